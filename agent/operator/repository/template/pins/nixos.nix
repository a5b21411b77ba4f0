# The systems of all hosts: `nix-build nixos.nix -A web1.system`.
#
# Everything comes from this directory and from the sources that pins/ pins. NIX_PATH, channels and
# the environment are not read, so every machine builds the same systems. A module gets `pkgs` from
# the module system if it is a function, `{ pkgs, ... }: { … }`.
let
  fetch =
    name:
    let
      pin = builtins.fromJSON (builtins.readFile (./pins + "/${name}.json"));
    in
    if pin.sha256 == "" then
      throw "${name} is not pinned yet: run ./pin ${name} URL (README.md says which)"
    else
      builtins.fetchTarball { inherit (pin) url sha256; };

  nixpkgs = fetch "nixpkgs";
  nixos-pull = fetch "nixos-pull";

  hosts = builtins.listToAttrs (
    map (file: {
      name = builtins.head (builtins.match "(.*)\\.nix" file);
      value = ./hosts + "/${file}";
    }) (builtins.filter (file: builtins.match ".*\\.nix" file != null) (builtins.attrNames (builtins.readDir ./hosts)))
  );

  evaluate =
    hostname: configuration:
    let
      nixos = import "${nixpkgs}/nixos/lib/eval-config.nix" {
        # The host's nixpkgs.hostPlatform says what machine it is, not the machine that builds.
        system = null;
        # The default reads an environment variable.
        extraModules = [ ];
        # Arguments that every module may take, beside pkgs, lib and config.
        specialArgs = { inherit nixos-pull; };
        modules = [
          "${nixos-pull}/nixos-module"
          (
            { lib, ... }:
            {
              # Releases use the full hostname. The machine's own name has no dots.
              services.nixos-pull.settings.hostname = lib.mkDefault hostname;
              networking.hostName = lib.mkDefault (builtins.head (builtins.match "([^.]*).*" hostname));
            }
          )
          ./common.nix
          configuration
        ];
      };
    in
    nixos // { system = nixos.config.system.build.toplevel; };
in
builtins.mapAttrs evaluate hosts
