{
  description = "A fleet of NixOS hosts that pull their releases";

  inputs = {
    # The branch that `nix flake update` follows; flake.lock pins a commit of it.
    nixpkgs.url = "@nixpkgs@";
    # The repository from which you take nixos-pull.
    nixos-pull.url = "@nixosPull@";
    nixos-pull.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { nixpkgs, nixos-pull, ... }:
    let
      hosts = builtins.listToAttrs (
        map (file: {
          name = builtins.head (builtins.match "(.*)\\.nix" file);
          value = ./hosts + "/${file}";
        }) (builtins.filter (file: builtins.match ".*\\.nix" file != null) (builtins.attrNames (builtins.readDir ./hosts)))
      );

      evaluate =
        hostname: configuration:
        nixpkgs.lib.nixosSystem {
          # Arguments that every module may take, beside pkgs, lib and config.
          specialArgs = { inherit nixos-pull; };
          modules = [
            nixos-pull.nixosModules.default
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
    {
      nixosConfigurations = builtins.mapAttrs evaluate hosts;
    };
}
