# The options of NixOS that the module reads or sets, without their effects.
{ lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  option =
    type: default:
    mkOption {
      inherit type default;
    };
in
{
  options = {
    assertions = option (types.listOf types.raw) [ ];
    warnings = option (types.listOf types.str) [ ];
    environment.etc = option (types.attrsOf (types.attrsOf types.raw)) { };
    environment.systemPackages = option (types.listOf types.package) [ ];
    networking.hostName = option types.str "nixos";
    networking.proxy.envVars = option (types.attrsOf types.str) { };
    nix.package = option types.package pkgs.nix;
    system.autoUpgrade.enable = option types.bool false;
    system.switch.enable = option types.bool true;
    systemd.package = option types.package pkgs.systemd;
    systemd.services = option (types.attrsOf (types.attrsOf types.raw)) { };
    systemd.timers = option (types.attrsOf (types.attrsOf types.raw)) { };
  };
}
