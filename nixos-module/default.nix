# `services.nixos-pull`, the agent on a NixOS host; README.md shows how to import it.
{
  imports = [
    ./options.nix
    ./config-file.nix
    ./combinations.nix
    ./unit.nix
  ];
}
