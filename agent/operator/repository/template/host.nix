# The configuration of @hostname@ alone.
{ pkgs, ... }:
{
  imports = [ ../hardware/@hostname@.nix ];

  environment.systemPackages = [ pkgs.curl ];

  # The NixOS release that this host was installed with. Do not change it when you update nixpkgs.
  system.stateVersion = "26.05";
}
