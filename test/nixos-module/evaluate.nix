# Evaluates the module with one configuration; the tests read attributes of the result.
{
  # A NixOS module.
  configuration ? { },
  # A tree with nixpkgs' `lib`; the stand-in where empty.
  nixpkgs ? "",
  # What builds the package.
  system ? "x86_64-linux",
}:
let
  lib = import (if nixpkgs == "" then ./stand-in-lib.nix else "${nixpkgs}/lib");
  pkgs = import ./stand-in-pkgs.nix { inherit lib system; };

  inherit
    (lib.evalModules {
      specialArgs = { inherit pkgs; };
      modules = [
        ./stand-in-nixos.nix
        ../../nixos-module
        configuration
      ];
    })
    config
    options
    ;

  # Options below a tree as { "poll.jitter" = { … }; }.
  flatten =
    prefix: tree:
    builtins.concatMap (
      name:
      let
        value = tree.${name};
      in
      if lib.isOption value then
        [
          {
            name = prefix + name;
            value = {
              default = value.default or null;
              hasDefault = value ? default;
              hasExample = value ? example;
              description = value.description or "";
            };
          }
        ]
        # What a value consists of: { "reboot.window" = …; "reboot.window.cron" = …; }.
        ++ flatten "${prefix}${name}." (value.type.getSubOptions [ ])
      else
        flatten "${prefix}${name}." value
    ) (builtins.filter (name: builtins.substring 0 1 name != "_") (builtins.attrNames tree));

  service = options.services.nixos-pull;

  # Options below a tree in the order of their names, as a reader wants them: what a list or a
  # set of them consists of as `checks.*.name` and `credentials.<name>.type`.
  documented =
    prefix: tree:
    builtins.concatMap (
      name:
      let
        value = tree.${name};
        full = prefix + name;
        type = value.type.description;
        element =
          if builtins.match ".*list of .*" type != null then
            "*."
          else if builtins.match ".*attribute set of .*" type != null then
            "<name>."
          else
            "";
      in
      if lib.isOption value then
        [
          {
            name = full;
            inherit type;
            inherit (value) description;
            # Of text as it is, or of a value, which may be null.
            default = if value ? defaultText then value.defaultText else { value = value.default or null; };
            required = !(value ? default);
            example = { value = value.example or null; };
          }
        ]
        ++ documented "${full}.${element}" (value.type.getSubOptions [ ])
      else
        documented "${full}." value
    ) (builtins.filter (name: builtins.substring 0 1 name != "_") (builtins.attrNames tree));
in
{
  # What nixos-module/options.md is made of.
  documented = documented "services.nixos-pull." service;

  # Messages of the assertions that do not hold.
  failures = map (assertion: assertion.message) (
    builtins.filter (assertion: !assertion.assertion) config.assertions
  );
  inherit (config) warnings;
  etc = builtins.mapAttrs (_: file: file.source.value) config.environment.etc;
  # How the configuration file is checked while it is built; null where it is not.
  check = builtins.mapAttrs (_: file: file.source.script or null) config.environment.etc;
  systemPackages = map (package: package.name) config.environment.systemPackages;
  services = config.systemd.services;

  # What the host's entry of a release gets.
  inherit (config.services.nixos-pull) release;

  options = builtins.listToAttrs (flatten "" (removeAttrs service [ "settings" ]));
  settingsOptions = builtins.listToAttrs (flatten "" (service.settings.type.getSubOptions [ ]));

  # What the package and its node_modules would be built from.
  package =
    let
      package = pkgs.callPackage ../../nixos-module/package.nix { };
      # `src` apart: nixpkgs' filesets need a Nix with readFileType (2.14).
      shown =
        derivation:
        removeAttrs derivation.arguments [
          "passthru"
          "src"
        ];
    in
    {
      nixos-pull = shown package;
      nodeModules = shown package.nodeModules;
      sources = {
        nixos-pull = package.src;
        nodeModules = package.nodeModules.src;
      };
    };
}
