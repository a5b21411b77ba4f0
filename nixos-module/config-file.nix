# The agent's configuration file, and what can be known to be wrong before it is built.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.nixos-pull;
  inherit (cfg) settings;
  inherit (settings) mirrors publicKeys threshold;
  storeKeys = if settings.storeKeys == null then [ ] else settings.storeKeys;

  partsOf = key: lib.splitString ":" (lib.removeSuffix "\n" key);
  base64Of = key: lib.last (partsOf key);

  # A secret key has 64 bytes and a public one 32: 86 characters and 43, without padding.
  isLong = text: builtins.stringLength text >= 86;
  isSecret = key: builtins.any isLong (partsOf key);
  isPublic =
    key: builtins.match "[^:[:space:]]+:[A-Za-z0-9+/]{43}=" (lib.removeSuffix "\n" key) != null;

  # No message repeats what may be a secret.
  nameOf =
    key:
    let
      name = builtins.head (partsOf key);
    in
    if name == base64Of key || isLong name then "one without a name" else name;
  namesOf = keys: lib.concatStringsSep ", " (map nameOf keys);

  allKeys = publicKeys ++ storeKeys ++ settings.revokedKeys;
  secretKeys = builtins.filter isSecret allKeys;
  malformedKeys = builtins.filter (key: !isSecret key && !isPublic key) allKeys;

  # The agent counts keys, not names: one key listed twice is one voice, and a revoked one
  # is none.
  revoked = map base64Of settings.revokedKeys;
  distinctKeys = builtins.length (
    builtins.filter (key: !builtins.elem key revoked) (lib.unique (map base64Of publicKeys))
  );

  # Secrets that would be copied to where everyone can read them.
  secretFiles =
    lib.optional (settings.tls.keyFile != null) settings.tls.keyFile
    ++ builtins.attrValues cfg.credentialFiles
    ++ builtins.concatMap (credential: lib.optional (credential.file != null) credential.file) (
      builtins.attrValues settings.credentials
    );
  exposedFiles = builtins.filter (lib.hasPrefix builtins.storeDir) secretFiles;

  unloaded = builtins.filter (name: name != null && !cfg.credentialFiles ? ${name}) (
    map (credential: credential.credential) (builtins.attrValues settings.credentials)
  );

  volatileDirectories = [
    "/run"
    "/tmp"
    "/dev/shm"
    "/var/run"
    "/var/tmp"
  ];
  isVolatile = builtins.any (
    directory: settings.paths.state == directory || lib.hasPrefix "${directory}/" settings.paths.state
  ) volatileDirectories;

  option = name: "`services.nixos-pull.settings.${name}`";

  withoutNull =
    value:
    if builtins.isAttrs value then
      builtins.mapAttrs (_: withoutNull) (lib.filterAttrs (_: one: one != null) value)
    else if builtins.isList value then
      map withoutNull value
    else
      value;

  # The agent's schema is strict and knows no null: absent means its default.
  configFile = (pkgs.formats.json { }).generate "nixos-pull-config.json" (
    withoutNull settings
  );

  # A key that the agent does not know would stop it on a host that nobody can reach;
  # here it stops the build.
  checkedFile =
    pkgs.runCommandLocal "nixos-pull-config.json"
      {
        nativeBuildInputs = [ cfg.package ];
        inherit configFile;
      }
      ''
        nixos-pull config --config "$configFile"
        cp "$configFile" "$out"
      '';
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = mirrors != [ ];
        message = ''
          ${option "mirrors"} is empty, so the agent has nowhere to look for releases.
          Name at least one mirror, such as [ "https://releases.example.org" ].
        '';
      }
      {
        assertion = publicKeys != [ ];
        message = ''
          ${option "publicKeys"} is empty, so no release could ever be trusted.
          Name the public key that releases are signed with, as NAME:BASE64.
        '';
      }
      {
        assertion = secretKeys == [ ];
        message = ''
          ${option "publicKeys"}, storeKeys or revokedKeys holds a SECRET key (${namesOf secretKeys}).
          Put the public key in its place, and make a new pair: this configuration is
          copied to the Nix store, which everyone on the machine can read.
        '';
      }
      {
        assertion = malformedKeys == [ ];
        message = ''
          ${option "publicKeys"}, storeKeys or revokedKeys holds something that is no public key (${namesOf malformedKeys}).
          A public key is NAME:BASE64 with 44 characters of base64, on one line.
        '';
      }
      {
        assertion = publicKeys == [ ] || threshold <= distinctKeys;
        message = ''
          ${option "threshold"} is ${toString threshold}, but ${option "publicKeys"} has
          ${toString distinctKeys} distinct key(s) that are not revoked, so no release could ever
          be accepted. Lower the threshold or add the missing keys.
        '';
      }
      {
        assertion = exposedFiles == [ ];
        message = ''
          ${lib.concatStringsSep ", " exposedFiles} is to be secret, but everyone on the machine
          can read the Nix store. Give a path outside of it, as text in quotes.
        '';
      }
      {
        assertion = settings.poll.interval == null || settings.poll.cron == null;
        message = ''
          ${option "poll.interval"} and ${option "poll.cron"} are both set.
          Keep one of them and leave the other null.
        '';
      }
      {
        assertion =
          settings.reboot.policy != "window"
          || settings.reboot.window != null
          || settings.maintenance.windows != [ ];
        message = ''
          ${option "reboot.policy"} is "window", but neither ${option "reboot.window"} nor
          ${option "maintenance.windows"} is set, so the host would never reboot. Say when
          the window opens and how long it lasts.
        '';
      }
      {
        assertion = !isVolatile;
        message = ''
          ${option "paths.state"} is ${settings.paths.state}, which does not outlive a reboot.
          The record of accepted releases would be lost and an old release could be
          replayed; choose a directory on a disk, such as /var/lib/nixos-pull.
        '';
      }
    ];

    warnings = map (name: ''
      ${option "credentials"} names the systemd credential ${name}, which
      services.nixos-pull.credentialFiles does not have: the unit has to load it otherwise.
    '') unloaded;

    # Where the agent and the command line look when they are given no --config.
    environment.etc."nixos-pull/config.json".source =
      if cfg.checkConfig then checkedFile else configFile;

    environment.systemPackages = [ cfg.package ];
  };
}
