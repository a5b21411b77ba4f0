# What `nixos-pull publish --hosts hosts.nix` publishes. A host may have more beside its
# system: `activation.mode = "boot"`, or the `machineId` of the one machine that may take it.
builtins.mapAttrs (hostname: host: { inherit (host) system; }) (import ./nixos.nix)
