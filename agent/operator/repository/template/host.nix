# The configuration of @hostname@ alone.
{ pkgs, ... }:
{
  imports = [ ../hardware/@hostname@.nix ];

  # How it is published beside its system, for example in a group that a rollout names:
  # services.nixos-pull.release.groups = [ "canary" ];

  environment.systemPackages = [ pkgs.curl ];

  # The NixOS release that this host was installed with. Do not change it when you update nixpkgs.
  system.stateVersion = "26.05";
}
