# A stand-in for nixpkgs' nixos/lib/eval-config.nix, with what a starting repository uses of
# it. Like the original it would read the machine and the environment where it is let.
{
  system ? builtins.currentSystem,
  modules,
  specialArgs ? { },
  extraModules ?
    let
      path = builtins.getEnv "NIXOS_EXTRA_MODULE_PATH";
    in
    if path == "" then [ ] else [ (import path) ],
}:
let
  lib = import ../../lib;
  known = import ../../pkgs.nix { inherit lib; };
  # Flakes are evaluated purely, where only this file knows the machine.
  inherit ((import ./system.nix { }).system) system;
  writeShellScriptBin =
    name: text:
    derivation {
      inherit name system text;
      builder = "/bin/sh";
      args = [
        "-euc"
        ''
          PATH=/usr/bin:/bin; mkdir -p $out/bin; printf '#!/bin/sh\n%s\n' "$text" > $out/bin/$name
          chmod 555 $out/bin/$name
        ''
      ];
    };
  pkgs = known // {
    inherit writeShellScriptBin;
    curl = known.zstd // {
      name = "curl";
    };
    # This machine's own.
    rclone = writeShellScriptBin "rclone" ''exec /usr/bin/rclone "$@"'';
  };

  inherit (lib) mkOption types;
  option =
    type: default: description:
    mkOption { inherit type default description; };
  without = type: mkOption { inherit type; };
  raw = types.attrsOf types.raw;

  nixos =
    { config, ... }:
    {
      options = {
        boot.loader.grub.device = option types.str "" "Where the boot loader is installed.";
        fileSystems = option raw { } "File systems.";
        networking.firewall.allowedTCPPorts =
          option (types.listOf types.int) [ ]
            "TCP ports that are open.";
        networking.domain = without types.str;
        nixpkgs.hostPlatform = without types.str;
        services.sites = option (types.attrsOf raw) { } "Sites by name.";
        system.build.toplevel = mkOption { type = types.raw; };
        system.stateVersion = without types.str;
      };
      config.system.build.toplevel =
        assert builtins.all (one: one.assertion) config.assertions;
        (import ./system.nix {
          name = config.networking.hostName;
          # The real one has it in /etc/nixos-pull/config.json, which cannot be built here.
          inherit (config.services.nixos-pull.settings) hostname;
          generation = toString config.networking.firewall.allowedTCPPorts;
        }).system;
    };
in
lib.evalModules {
  specialArgs = { inherit pkgs; } // specialArgs;
  modules = [
    ../stand-in-nixos.nix
    nixos
  ]
  ++ modules
  ++ extraModules;
}
// {
  inherit pkgs;
}
