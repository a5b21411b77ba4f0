{
  description = "A fleet of NixOS hosts that pull their releases";

  inputs = {
    # The branch that `nix flake update` follows; flake.lock pins a commit of it.
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.05";
    # The repository from which you take nixos-pull.
    nixos-pull.url = "git+https://git.example.org/nixos-pull";
  };

  outputs =
    { nixpkgs, nixos-pull, ... }:
    let
      # Hash of nixos-pull's dependencies. The first build fails and prints the right one.
      nodeModulesHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

      hosts = builtins.listToAttrs (
        map (file: {
          name = builtins.head (builtins.match "(.*)\\.nix" file);
          value = ./hosts + "/${file}";
        }) (builtins.filter (file: builtins.match ".*\\.nix" file != null) (builtins.attrNames (builtins.readDir ./hosts)))
      );

      evaluate =
        hostname: configuration:
        nixpkgs.lib.nixosSystem {
          modules = [
            "${nixos-pull}/nixos-module"
            (
              { lib, pkgs, ... }:
              {
                # Releases use the full hostname. The machine's own name has no dots.
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
      nixosConfigurations = builtins.mapAttrs evaluate hosts;
    };
}
