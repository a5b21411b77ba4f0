# What @hostname@ alone is.
{ pkgs, ... }:
{
  imports = [ ../hardware/@hostname@.nix ];

  environment.systemPackages = [ pkgs.curl ];

  # The NixOS release that this host was first installed with. It stays when nixpkgs moves on.
  system.stateVersion = "25.05";
}
