# The agent as one JavaScript file and a wrapper. The result refers to Node, zstd and
# nothing else of the build: hosts download it with every release that changes it.
let
  inherit (builtins.fromJSON (builtins.readFile ./node-modules-hashes.json)) hashes;
in
{
  lib,
  stdenvNoCC,
  cacert,
  makeBinaryWrapper,
  nodejs,
  nodejs-slim,
  zstd,

  # Hash of what node-modules.sh makes. It differs between build systems, since esbuild comes
  # as a native program; scripts/node-modules-hashes.mjs records it for two of them.
  nodeModulesHash ? hashes.${stdenvNoCC.buildPlatform.system} or (lib.warn ''
    nixos-pull: no hash of the npm packages is recorded for ${stdenvNoCC.buildPlatform.system}, so
    the build will stop and show it after "got:". Call nixos-module/package.nix with it:
      callPackage ./nixos-pull/nixos-module/package.nix { nodeModulesHash = "sha256-…"; }
  '' lib.fakeHash),

  # When the sources were made, in seconds since 1970: no host's clock can be before that.
  # A flake knows; otherwise only the releases that a host accepted bound its clock.
  lastModified ? null,
}:
let
  inherit (lib) fileset;
  inherit (lib.importJSON ../package.json) version;

  # package-lock.json pins every package by its integrity but names no download address,
  # so the fetchers that read addresses from it (fetchNpmDeps, importNpmLock) have
  # nothing to fetch, and npm itself does it in a fixed-output derivation.
  nodeModules = stdenvNoCC.mkDerivation {
    pname = "nixos-pull-node-modules";
    inherit version;

    src = fileset.toSource {
      root = ../.;
      fileset = fileset.unions [
        ../package.json
        ../package-lock.json
      ];
    };

    nativeBuildInputs = [ nodejs ];

    # NIX_NPM_REGISTRY is nixpkgs' own name for a registry other than npm's default.
    impureEnvVars = lib.fetchers.proxyImpureEnvVars ++ [ "NIX_NPM_REGISTRY" ];
    env.NODE_EXTRA_CA_CERTS = "${cacert}/etc/ssl/certs/ca-bundle.crt";

    buildPhase = ''
      runHook preBuild
      bash ${./node-modules.sh}
      runHook postBuild
    '';

    installPhase = ''
      runHook preInstall
      mv node_modules "$out"
      runHook postInstall
    '';

    # Patched interpreters would be store paths, which a fixed output may not name.
    dontFixup = true;

    outputHash = nodeModulesHash;
    outputHashAlgo = "sha256";
    outputHashMode = "recursive";
  };
in
stdenvNoCC.mkDerivation {
  pname = "nixos-pull";
  inherit version;

  src = fileset.toSource {
    root = ../.;
    fileset = fileset.unions [
      ../agent
      ../package.json
      ../scripts/build.mjs
      ../tsconfig.json
    ];
  };

  strictDeps = true;
  # npm would look for a newer npm.
  env.npm_config_update_notifier = "false";
  nativeBuildInputs = [
    makeBinaryWrapper
    nodejs
  ];

  buildPhase = ''
    runHook preBuild
    export HOME="$TMPDIR"
    cp -r ${nodeModules} node_modules
    chmod -R u+w node_modules
    patchShebangs --build node_modules
    # Nix's own value is a time of convention and says nothing about the sources.
    SOURCE_DATE_EPOCH=${toString lastModified} npm run build
    runHook postBuild
  '';

  # Memory before speed: the agent moves bytes, which lie in buffers outside of Node's own
  # memory, and has to fit on small hosts (scripts/bench/memory.mjs).
  #
  # Node trusts its own list of authorities; the host's certificates (`security.pki`) are
  # added. The host's nix, flock and systemd-run serve where PATH has none. Both are paths
  # that add nothing to the closure. zstd makes deltas and compresses what is published;
  # every NixOS has it.
  installPhase = ''
    runHook preInstall
    install -D -m 644 dist/nixos-pull.cjs "$out/libexec/nixos-pull/nixos-pull.cjs"
    makeWrapper ${nodejs-slim}/bin/node "$out/bin/nixos-pull" \
      --add-flags "--max-semi-space-size=2 --optimize-for-size $out/libexec/nixos-pull/nixos-pull.cjs" \
      --set-default MALLOC_ARENA_MAX 1 \
      --set-default NODE_EXTRA_CA_CERTS /etc/ssl/certs/ca-certificates.crt \
      --suffix PATH : ${lib.makeBinPath [ zstd ]}:/run/current-system/sw/bin
    for shell in bash zsh fish; do
      node dist/nixos-pull.cjs completion "$shell" >"dist/completion.$shell"
    done
    install -D -m 644 -t "$out/share/man/man1" agent/docs/man/*.1
    install -D -m 644 dist/completion.bash "$out/share/bash-completion/completions/nixos-pull"
    install -D -m 644 dist/completion.zsh "$out/share/zsh/site-functions/_nixos-pull"
    install -D -m 644 dist/completion.fish "$out/share/fish/vendor_completions.d/nixos-pull.fish"
    runHook postInstall
  '';

  doInstallCheck = stdenvNoCC.buildPlatform.canExecute stdenvNoCC.hostPlatform;
  installCheckPhase = ''
    runHook preInstallCheck
    "$out/bin/nixos-pull" --help >/dev/null
    runHook postInstallCheck
  '';

  disallowedReferences = [ nodeModules ];

  passthru = { inherit nodeModules; };

  meta = {
    description = "Pull-based release agent for NixOS hosts that nobody can SSH into";
    license = lib.licenses.mit;
    mainProgram = "nixos-pull";
    platforms = lib.platforms.linux;
  };
}
