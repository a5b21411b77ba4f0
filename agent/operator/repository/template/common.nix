# What all hosts are.
{ lib, ... }:
{
  services.nixos-pull = {
    enable = true;
    settings = {
      mirrors = [
        @mirrors@
      ];
      # Every public key in keys/. A host trusts these and nothing else.
      publicKeys = map (file: lib.removeSuffix "\n" (builtins.readFile (./keys + "/${file}"))) (
        builtins.filter (lib.hasSuffix ".public") (builtins.attrNames (builtins.readDir ./keys))
      );
    };
  };

  networking.firewall.allowedTCPPorts = [ ];
}
