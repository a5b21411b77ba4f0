# What nixos-module/tests makes of stand-ins: the settings of each host, evaluated, and the
# text of each script. No machine is built.
{
  publicKey,
  # A tree with nixpkgs' `lib`; the stand-in where empty.
  nixpkgs ? "",
}:
let
  lib = import (if nixpkgs == "" then ./stand-in-lib.nix else "${nixpkgs}/lib");
  standIns = import ./stand-in-pkgs.nix { inherit lib; };
  built = name: {
    type = "derivation";
    inherit name;
    outPath = "/nix/store/00000000000000000000000000000000-${name}";
    key = "/nix/store/00000000000000000000000000000000-${name}-key";
  };
  pkgs =
    standIns
    // {
      runCommand =
        name: attributes: _:
        built name // attributes;
      closureInfo = _: built "closure-info";
      testers.runNixOSTest = test: test;
    }
    // builtins.listToAttrs (
      map
        (name: {
          inherit name;
          value = built name;
        })
        [
          "curl"
          "jq"
          "openssl"
        ]
    );

  tests = import ../../nixos-module/tests { inherit pkgs publicKey; };
  released = "/nix/store/00000000000000000000000000000000-nixos-system-host-next";

  call = module: arguments: if builtins.isFunction module then module arguments else module;
  hostOf =
    test:
    builtins.map (
      module:
      let
        body = call module {
          inherit lib pkgs;
          extendModules = _: { config.system.build.toplevel = released; };
        };
      in
      { services = (body.config or body).services or { }; }
    ) test.nodes.host.imports;

  evaluated =
    test:
    (lib.evalModules {
      specialArgs = { inherit pkgs; };
      modules = [
        ./stand-in-nixos.nix
        ../../nixos-module
      ]
      ++ hostOf test;
    }).config;
in
builtins.mapAttrs (
  _: test:
  let
    config = evaluated test;
    mirror = call (builtins.head test.nodes.mirror.imports) {
      inherit pkgs;
      nodes.host.released = released;
    };
  in
  {
    inherit (test) name;
    script = test.testScript { nodes.host.released = released; };
    failures = map (assertion: assertion.message) (
      builtins.filter (assertion: !assertion.assertion) config.assertions
    );
    inherit (config) warnings;
    settings = config.environment.etc."nixos-pull/config.json".source.value;
    credentials = config.systemd.services.nixos-pull.serviceConfig.LoadCredential or [ ];
    published = map toString mirror.virtualisation.additionalPaths;
  }
) (removeAttrs tests [ "closureSize" ])
