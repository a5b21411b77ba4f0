{
  description = "Pull-based release agent for NixOS hosts that nobody can SSH into";

  # No inputs, so nothing to lock and nothing to fetch: the module and the package use the
  # nixpkgs of whoever imports them.
  outputs =
    { self, ... }:
    let
      package =
        pkgs:
        pkgs.callPackage ./nixos-module/package.nix {
          lastModified = self.lastModified or null;
        };
      module = {
        imports = [ ./nixos-module ];
      };
    in
    {
      nixosModules = {
        default = module;
        nixos-pull = module;
      };

      # The package, for a nixpkgs of the importer's choice: as an overlay or a function.
      overlays.default = final: prev: { nixos-pull = package final; };
      lib = { inherit package; };

      # For `nix build --impure` alone, with the nixpkgs of NIX_PATH: a pure evaluation
      # knows neither a nixpkgs nor the system, and sees no packages.
      packages =
        let
          nixpkgs = builtins.tryEval <nixpkgs>;
          nixos-pull = package (import nixpkgs.value { });
        in
        if builtins ? currentSystem && nixpkgs.success then
          {
            ${builtins.currentSystem} = {
              inherit nixos-pull;
              default = nixos-pull;
            };
          }
        else
          { };
    };
}
