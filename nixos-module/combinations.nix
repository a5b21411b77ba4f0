# Settings that are each well formed and wrong together: the agent would refuse them, or they
# do not do what they seem to. The agent says it too where `checkConfig` is on; here it is
# said at evaluation, in the module's words.
{ config, lib, ... }:
let
  cfg = config.services.nixos-pull;
  inherit (cfg) settings;
  inherit (settings)
    credentials
    health
    mirrors
    poll
    reboot
    revokedKeys
    statusSocket
    sticks
    storeKeys
    tls
    ;

  option = name: "`services.nixos-pull.settings.${name}`";
  namesWhere = wrong: lib.filter (name: wrong name credentials.${name}) (builtins.attrNames credentials);
  shown = lib.concatStringsSep ", ";

  isDirectory = lib.hasPrefix "file:";

  # Loopback is nobody else's network.
  isSafe =
    address:
    lib.hasPrefix "https:" address
    || builtins.match "http://(127\\.[0-9.]+|\\[::1]|localhost)([:/].*)?" address != null
    || isBucket address && isSafeStore address;

  isBucket = lib.hasPrefix "s3:";
  isSafeStore =
    address:
    builtins.match ".*[?&]endpoint=http(:|%3[aA]).*" address == null
    || builtins.match ".*[?&]endpoint=http://(127\\.[0-9.]+|\\[::1]|localhost)([:&].*)?" address != null;
  isOfBucket =
    type:
    builtins.elem type [
      "s3"
      "instance-role"
    ];

  strangers = namesWhere (address: _: !builtins.elem address mirrors);
  inTheClear = namesWhere (address: _: !isSafe address);
  ambiguous = namesWhere (
    _:
    {
      type,
      credential,
      file,
      ...
    }:
    if type == "instance-role" then
      credential != null || file != null
    else
      (credential == null) == (file == null)
  );
  misfits = namesWhere (
    address:
    { type, profile, ... }:
    isBucket address != isOfBucket type || profile != null && type != "s3"
  );

  # What a check of each kind must have, and what else it may have.
  keysOf = {
    command = {
      needed = [ "command" ];
      allowed = [ "command" ];
    };
    http = {
      needed = [ "url" ];
      allowed = [
        "url"
        "status"
      ];
    };
    tcp = rec {
      needed = [
        "host"
        "port"
      ];
      allowed = needed;
    };
  };
  kindKeys = lib.concatMap (kind: keysOf.${kind}.allowed) (builtins.attrNames keysOf);
  missingOf = check: lib.filter (key: check.${key} == null) keysOf.${check.kind}.needed;
  foreignOf =
    check:
    lib.filter (key: check.${key} != null && !builtins.elem key keysOf.${check.kind}.allowed) kindKeys;
  complaintsOf =
    check:
    map (key: "${check.name}: ${key} is missing") (missingOf check)
    ++ map (key: "${check.name}: ${key} is of another kind than ${check.kind}") (foreignOf check);
  complaints = lib.concatMap complaintsOf health.checks;

  keyOf = key: lib.last (lib.splitString ":" (lib.removeSuffix "\n" key));
  revoked = map keyOf revokedKeys;
  trustedStoreKeys = lib.filter (key: !builtins.elem (keyOf key) revoked) (
    if storeKeys == null then [ ] else storeKeys
  );
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        # Not an option of every NixOS.
        assertion = config.system.switch.enable or true;
        message = ''
          `system.switch.enable` is off, so this system has no switch-to-configuration, and
          nixos-pull could never activate a release on it. Turn it on.
        '';
      }
      {
        assertion = ambiguous == [ ];
        message = ''
          ${option "credentials"} for ${shown ambiguous} needs exactly one of `credential` and
          `file`. Name a credential of `services.nixos-pull.credentialFiles`, or a file. The
          type `instance-role` has neither.
        '';
      }
      {
        assertion = misfits == [ ];
        message = ''
          ${option "credentials"} for ${shown misfits} has a type of another kind of mirror. The
          types `s3` and `instance-role` are for s3:// mirrors, and these take no other; `profile`
          is for the type `s3`.
        '';
      }
      {
        assertion = strangers == [ ];
        message = ''
          ${option "credentials"} has ${shown strangers}, which ${option "mirrors"} does not.
          Write the address there exactly as in mirrors.
        '';
      }
      {
        assertion = inTheClear == [ ];
        message = ''
          ${option "credentials"} for ${shown inTheClear} would go over the network in the clear.
          Use an https:// address in mirrors and here.
        '';
      }
      {
        assertion = (tls.certFile == null) == (tls.keyFile == null);
        message = ''
          ${option "tls.certFile"} and ${option "tls.keyFile"} are of use only together.
          Set the other one too, or neither.
        '';
      }
      {
        assertion = statusSocket.group == null || statusSocket.path != null;
        message = ''
          ${option "statusSocket.group"} is set without ${option "statusSocket.path"}.
          Say where the socket is to be, such as /run/nixos-pull/status.socket.
        '';
      }
      {
        assertion = poll.timezone == null || poll.cron != null;
        message = ''
          ${option "poll.timezone"} is set without ${option "poll.cron"}, which it belongs to.
          Set the cron expression, or leave the time zone null.
        '';
      }
      {
        assertion = complaints == [ ];
        message = ''
          ${option "health.checks"} does not fit together: ${shown complaints}.
          A check has the keys of its own kind: `command`; `url` and `status`; `host` and `port`.
        '';
      }
      {
        assertion = storeKeys == null || trustedStoreKeys != [ ];
        message = ''
          ${option "storeKeys"} has no key that is not revoked, so nothing could ever be imported.
          Name the key that store paths are signed with, or leave it null to trust publicKeys.
        '';
      }
      {
        assertion = !sticks.reports || builtins.any isDirectory mirrors;
        message = ''
          ${option "sticks.reports"} is set, but no address in ${option "mirrors"} begins with
          file://, so no report would be written. Add the directory to mirrors, or set
          ${option "reports.directory"}.
        '';
      }
    ];

    warnings =
      lib.optional (!health.mirror && health.checks == [ ] && !builtins.all isDirectory mirrors) ''
        ${option "health.mirror"} is off and ${option "health.checks"} is empty: a release that
        cuts this host off from its mirrors is kept, and nothing can reach the host then. Turn
        the first on, or add a check that fails without the network.
      ''
      ++ lib.optional (reboot.policy != "window" && reboot.window != null) ''
        ${option "reboot.window"} has no effect while ${option "reboot.policy"} is
        "${reboot.policy}". Set the policy to "window", or leave the window null.
      ''
      ++ lib.optional (reboot.policy == "never" && reboot.fleetLock != null) ''
        ${option "reboot.fleetLock"} has no effect while ${option "reboot.policy"} is "never".
        Set the policy to "window" or "now", or leave the server null.
      '';
  };
}
