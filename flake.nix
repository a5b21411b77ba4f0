{
  description = "Pull-based release agent for NixOS hosts that nobody can SSH into";

  # Only packages and apps use it. The module and the overlay have the nixpkgs of whoever imports
  # them; let this input follow that, and nothing more is locked or fetched.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      package =
        pkgs:
        pkgs.callPackage ./nixos-module/package.nix {
          lastModified = self.lastModified or null;
        };
      module = {
        imports = [ ./nixos-module ];
      };

      # Those for which nixos-module/node-modules-hashes.json has a hash.
      forEachSystem =
        function:
        builtins.listToAttrs (
          map
            (system: {
              name = system;
              value = function system;
            })
            [
              "x86_64-linux"
              "aarch64-linux"
            ]
        );
    in
    {
      nixosModules = {
        default = module;
        nixos-pull = module;
      };

      # The package, for a nixpkgs of the importer's choice: as an overlay or a function.
      overlays.default = final: prev: { nixos-pull = package final; };
      lib = { inherit package; };

      # For the operator's machine: `nix run`, `nix profile install`.
      packages = forEachSystem (
        system:
        let
          nixos-pull = package nixpkgs.legacyPackages.${system};
        in
        {
          inherit nixos-pull;
          default = nixos-pull;
        }
      );

      apps = forEachSystem (
        system:
        let
          nixos-pull = {
            type = "app";
            program = "${self.packages.${system}.nixos-pull}/bin/nixos-pull";
            meta.description = "Publish releases for NixOS hosts, and look after them";
          };
        in
        {
          inherit nixos-pull;
          default = nixos-pull;
        }
      );
    };
}
