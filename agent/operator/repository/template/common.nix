# The configuration of all hosts.
{ lib, ... }:
{
  services.nixos-pull = {
    enable = true;
    settings = {
      mirrors = [
        @mirrors@
      ];
      # Every public key in keys/. A host trusts these keys and no others.
      publicKeys = map (file: lib.removeSuffix "\n" (builtins.readFile (./keys + "/${file}"))) (
        builtins.filter (lib.hasSuffix ".public") (builtins.attrNames (builtins.readDir ./keys))
      );
    };
  };

  networking.firewall.allowedTCPPorts = [ ];
}
