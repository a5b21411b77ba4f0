# What `nixos-pull publish --hosts hosts.nix` publishes. A host may have more attributes beside
# `system`, such as `activation.mode = "boot"`, or the `machineId` of the one machine that may use it.
builtins.mapAttrs (hostname: host: { inherit (host) system; }) (import ./nixos.nix)
