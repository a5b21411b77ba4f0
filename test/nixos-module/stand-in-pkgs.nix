# A stand-in for nixpkgs' package set: packages are names with a made-up store path, and
# a "derivation" is the arguments that it was made from. Nothing can be built from it.
{
  lib,
  system ? "x86_64-linux",
}:
let
  inherit (lib) types;

  package =
    name: attributes:
    attributes
    // {
      type = "derivation";
      inherit name;
      outPath = "/nix/store/00000000000000000000000000000000-${name}";
    };

  jsonType = types.nullOr (
    types.oneOf [
      types.bool
      types.int
      types.float
      types.str
      types.path
      (types.attrsOf jsonType)
      (types.listOf jsonType)
    ]
  )
  // {
    description = "JSON value";
  };

  pkgs =
    builtins.listToAttrs (
      map
        (name: {
          inherit name;
          value = package name { };
        })
        [
          "cacert"
          "coreutils"
          "makeBinaryWrapper"
          "nix"
          "nodejs"
          "nodejs-slim"
          "systemd"
          "util-linux"
          "zstd"
        ]
    )
    // {
      inherit lib;

      callPackage =
        file: arguments:
        let
          function = import file;
        in
        function (builtins.intersectAttrs (builtins.functionArgs function) pkgs // arguments);

      stdenvNoCC = {
        mkDerivation =
          arguments:
          package "${arguments.pname}-${arguments.version}" (
            arguments // arguments.passthru or { } // { inherit arguments; }
          );
        buildPlatform = {
          inherit system;
          canExecute = _: true;
        };
        hostPlatform = { };
      };

      stdenv = {
        buildPlatform.canExecute = _: true;
        hostPlatform = { };
      };

      # What a checked file holds is what was given to be checked.
      runCommandLocal =
        name: attributes: script:
        package name {
          inherit (attributes.configFile) value;
          inherit attributes script;
        };

      formats.json = _: {
        type = jsonType;
        generate = name: value: package name { inherit value; };
      };
    };
in
pkgs
