# The systems of all hosts: `nix-build nixos.nix -A web1.system`.
#
# All of it comes from this directory and what is pinned in pins/. NIX_PATH, channels and the
# environment have no say, so every machine builds the same. `pkgs` comes from the module
# system: a module that wants it is a function, `{ pkgs, ... }: { … }`.
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

  # Of nixos-pull's dependencies. The first build fails and says what belongs here.
  nodeModulesHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

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
        # The host says what machine it is (nixpkgs.hostPlatform), not the one that builds.
        system = null;
        # The default reads an environment variable.
        extraModules = [ ];
        modules = [
          "${nixos-pull}/nixos-module"
          (
            { lib, pkgs, ... }:
            {
              # Releases name the host in full; the machine's own name has no dots.
              services.nixos-pull.settings.hostname = lib.mkDefault hostname;
              networking.hostName = lib.mkDefault (builtins.head (builtins.match "([^.]*).*" hostname));
              services.nixos-pull.package = lib.mkDefault (
                pkgs.callPackage "${nixos-pull}/nixos-module/package.nix" { inherit nodeModulesHash; }
              );
            }
          )
          ./common.nix
          configuration
        ];
      };
    in
    {
      inherit (nixos) config options pkgs;
      system = nixos.config.system.build.toplevel;
    };
in
builtins.mapAttrs evaluate hosts
