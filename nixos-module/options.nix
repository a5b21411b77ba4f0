# What an operator may set. Below `settings`, an option's path is the key's path in the
# agent's configuration file; agent/core/settings.ts is the source of names, forms and
# defaults, and test/nixos-module fails where the two differ.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  # Empty if the network gives the name.
  inherit (config.networking) hostName;
  inherit (lib)
    literalExpression
    mkEnableOption
    mkOption
    types
    ;

  # The agent's own forms, so that a typo stops the evaluation on the operator's machine
  # and not the agent on a host that nobody can reach.
  matching = description: pattern: types.strMatching pattern // { inherit description; };
  duration = matching "duration such as 90s, 15m or 1h30m" "([0-9]+[smhd])+";
  # What is given up or opened after no time at all would never be done.
  positiveDuration = matching "duration of at least 1s such as 90s, 15m or 1h30m" "([0-9]+[smhd])*0*[1-9][0-9]*[smhd]([0-9]+[smhd])*";
  # A field: values and ranges, with steps, and commas in between; `more` are forms of its own.
  # The names of months and days are left to the agent, which is asked when the system is built.
  cronField =
    value: more:
    let
      item = "([*]|(${value})-(${value}))(/0*[1-9][0-9]*)?|(${value})${more}";
    in
    "(${item})(,(${item}))*";
  cron =
    let
      second = cronField "[0-5]?[0-9]" "";
      hour = cronField "[01]?[0-9]|2[0-3]" "";
      number = "0?[1-9]|[12][0-9]|3[01]";
      day = cronField number "|[?]|[Ll](-[0-9]{1,2})?|(${number}|[Ll])[Ww]";
      month = cronField "0?[1-9]|1[0-2]|[A-Za-z]{3,9}" "";
      weekday = cronField "[0-7]|[A-Za-z]{3,9}" "|[?]|[0-7]([Ll]|#[1-5])";
    in
    matching "cron expression of five or six fields" (
      "@(yearly|annually|monthly|weekly|daily|midnight|hourly)"
      + "|(${second} +)?${second} +${hour} +${day} +${month} +${weekday}"
    );
  channel = matching "channel name of lower-case letters, digits, dots, dashes and underscores" "[a-z0-9][a-z0-9._-]{0,63}";
  hostname = matching "hostname" "[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?";
  group = matching "group name of lower-case letters, digits, dots, dashes and underscores" "[a-z0-9][a-z0-9._-]{0,63}";
  sha256 = matching "sha256 in lower-case hex" "[0-9a-f]{64}";
  specialisation = matching "specialisation's name" "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,99}";
  # An address stands in logs, in status and in the Nix store: a user and a password may not.
  mirror = matching "https://, http:// or file:/// address without user, query or fragment, or s3://BUCKET/PREFIX" (
    "(https?://[^/?#@[:space:]]+(/[^?#[:space:]]*)?|file:///[^?#[:space:]]*"
    + "|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._~/-]*)?([?][^#@[:space:]]*)?)"
  );
  webAddress = matching "https:// or http:// address without user" "https?://[^/?#@[:space:]]+([/?#][^[:space:]]*)?";
  atLeastTwo = types.addCheck types.int (number: number >= 2) // {
    description = "integer of at least 2";
  };
  # A check of one kind has no keys of another, so all that are of one kind may be null.
  healthCheck = types.submodule {
    options = {
      name = mkOption {
        type = types.str;
        example = "website";
        description = "Names the check in messages.";
      };

      kind = mkOption {
        type = types.enum [
          "command"
          "http"
          "tcp"
        ];
        example = "http";
        description = "What is done: a program is run, an address asked for, or a port connected to.";
      };

      timeout = mkOption {
        type = positiveDuration;
        default = "10s";
        example = "30s";
        description = "How long one try may take.";
      };

      command = mkOption {
        type = types.nullOr (types.listOf types.str);
        default = null;
        example = literalExpression ''[ "''${pkgs.curl}/bin/curl" "--fail" "http://localhost/" ]'';
        description = "Kind `command`: program and arguments; no shell. It passes with exit code 0.";
      };

      url = mkOption {
        type = types.nullOr webAddress;
        default = null;
        example = "http://localhost:8080/health";
        description = "Kind `http`: what is asked for; redirects are not followed.";
      };

      status = mkOption {
        type = types.nullOr (types.ints.between 100 599);
        default = null;
        example = 204;
        description = "Kind `http`: the status that must come; 200 where `null`.";
      };

      host = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "localhost";
        description = "Kind `tcp`: the host that is connected to.";
      };

      port = mkOption {
        type = types.nullOr (types.ints.between 1 65535);
        default = null;
        example = 5432;
        description = "Kind `tcp`: the port that is connected to.";
      };
    };
  };
  activationMode = types.enum [
    "switch"
    "boot"
    "test"
    "dry-activate"
  ];
  window = types.submodule {
    options = {
      cron = mkOption {
        type = cron;
        example = "0 3 * * *";
        description = "Cron expression: when the window opens.";
      };

      timezone = mkOption {
        type = types.str;
        default = "UTC";
        example = "Europe/Berlin";
        description = "IANA time zone of the expression.";
      };

      duration = mkOption {
        type = positiveDuration;
        example = "2h";
        description = "How long the window stays open; at most 7d.";
      };
    };
  };
  command = types.addCheck (types.listOf types.str) (words: words != [ ]) // {
    description = "list of a program and its arguments";
  };
  hook =
    description:
    mkOption {
      type = types.nullOr command;
      default = null;
      example = literalExpression ''[ "''${pkgs.systemd}/bin/systemctl" "start" "drain.service" ]'';
      inherit description;
    };
  directory = matching "absolute path without white space, ?, # or %" "/[^?#%[:space:]]*";
  file = matching "absolute path" "/.+";
  inbox = matching "https:// or http:// address without user, query or fragment" "https?://[^/?#@[:space:]]+(/[^?#[:space:]]*)?";
  promFile = matching "absolute path that ends with .prom" "/.+\\.prom";
  loopback = matching "loopback address and port" "(127(\\.(0|[1-9][0-9]{0,2})){3}|\\[::1]|localhost):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
  profile = matching "profile of a shared credentials file" "[A-Za-z0-9_.:@/-]{1,100}";
  credentialName = matching "name of a systemd credential" "[A-Za-z0-9_.:-]{1,100}";
in
{
  options.services.nixos-pull = {
    enable = mkEnableOption "nixos-pull, the agent that fetches signed system releases and activates them";

    package = mkOption {
      type = types.package;
      default = pkgs.nixos-pull or (pkgs.callPackage ./package.nix { });
      defaultText = literalExpression "pkgs.nixos-pull or (pkgs.callPackage ./package.nix { })";
      example = literalExpression ''pkgs.callPackage ./nixos-pull/nixos-module/package.nix { nodejs-slim = pkgs.nodejs-slim_22; }'';
      description = "The package that holds the agent and its command line.";
    };

    watchdog = mkOption {
      type = types.nullOr positiveDuration;
      default = "30m";
      example = "1h";
      description = ''
        How long systemd waits for a sign of life of the agent before it ends the service and
        starts it again. A download, a switch or a wait that goes on is a sign of life, however
        long it takes. At most twice this time passes. `null`: a service that hangs is not noticed.
      '';
    };

    checkConfig = mkOption {
      type = types.bool;
      default = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
      defaultText = literalExpression "pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform";
      example = false;
      description = ''
        Whether the agent itself checks its configuration while the system is built. Off
        where the build machine cannot run the host's programs.
      '';
    };

    credentialFiles = mkOption {
      type = types.attrsOf file;
      default = { };
      example = {
        mirror-password = "/run/keys/mirror-password";
      };
      description = ''
        Files with secrets, by the names under which the unit loads them as systemd
        credentials (LoadCredential=). `settings.credentials` refers to these names. The
        files must not lie in the Nix store, which everyone on the machine can read.
      '';
    };

    release = {
      publish = mkOption {
        type = types.bool;
        default = config.services.nixos-pull.enable;
        defaultText = literalExpression "config.services.nixos-pull.enable";
        example = false;
        description = ''
          Whether {command}`nixos-pull publish --flake` publishes this host. It lists the hosts
          that it leaves out.
        '';
      };

      groups = mkOption {
        type = types.nullOr (types.listOf group);
        default = null;
        example = [ "canary" ];
        description = "Groups by which a rollout may name this host.";
      };

      machineId = mkOption {
        type = types.nullOr sha256;
        default = null;
        example = "0a4d55a8d778e5022fab701977c5d840bbc486d0bd0f2ad1b2b0c1a1a6d3f2e9";
        description = ''
          The one machine that may use this host's entry of a release: the id that
          {command}`nixos-pull status` shows there. Any machine of this name where `null`.
        '';
      };

      activation = {
        mode = mkOption {
          type = types.nullOr activationMode;
          default = null;
          example = "boot";
          description = ''
            How releases say that this host activates them; as the option `--mode` of
            {command}`nixos-pull publish` says where `null`. Unlike `settings.activation.mode`, it
            applies to the release that brings it.
          '';
        };

        specialisation = mkOption {
          type = types.nullOr specialisation;
          default = null;
          example = "debug";
          description = ''
            The specialisation of this system that the host runs; the system itself where `null`.
          '';
        };

        checks = mkOption {
          type = types.nullOr (types.listOf healthCheck);
          default = null;
          example = literalExpression ''[ { name = "website"; kind = "http"; url = "http://localhost/"; } ]'';
          description = "Checks that the new system must pass, beside the host's own.";
        };
      };
    };

    settings = mkOption {
      default = { };
      example = literalExpression ''
        {
          mirrors = [ "https://releases.example.org" "file:///mnt/usb" ];
          publicKeys = [ "releases-1:RbfLIBXdq0ZBWH4jmZCGEqZ5I3qFZe9UUxPFyqtZLgM=" ];
          limits.stallTimeout = "2m";
        }
      '';
      description = ''
        The agent's configuration, written to {file}`/etc/nixos-pull/config.json`. Keys
        without an option of their own are passed on as they are; the agent refuses keys
        that it does not know. Keys that are `null` are left out, and the agent's default
        applies.
      '';
      type = types.submodule {
        freeformType = (pkgs.formats.json { }).type;

        options = {
          mirrors = mkOption {
            type = types.listOf mirror;
            default = [ ];
            example = [
              "https://releases.example.org"
              "file:///mnt/usb"
            ];
            description = ''
              Mirrors, best first; at least one. Every poll asks them all: the highest
              sequence wins, and archives come from the first mirror that serves them.
            '';
          };

          publicKeys = mkOption {
            type = types.listOf types.str;
            default = [ ];
            example = [ "releases-1:RbfLIBXdq0ZBWH4jmZCGEqZ5I3qFZe9UUxPFyqtZLgM=" ];
            description = ''
              Public keys trusted to sign releases and store paths, at least one, in Nix's
              `NAME:BASE64` form. Secret keys never belong on a host.
            '';
          };

          threshold = mkOption {
            type = types.ints.positive;
            default = 1;
            example = 2;
            description = "How many distinct keys of `publicKeys` must have signed a release.";
          };

          storeKeys = mkOption {
            type = types.nullOr (types.listOf types.str);
            default = null;
            example = [ "builder-1:RbfLIBXdq0ZBWH4jmZCGEqZ5I3qFZe9UUxPFyqtZLgM=" ];
            description = "Public keys trusted to sign store paths; those of `publicKeys` where `null`.";
          };

          contentAddressed = mkOption {
            type = types.enum [
              "signed"
              "unsigned"
            ];
            default = "signed";
            example = "unsigned";
            description = ''
              Whether store paths with a content address need a signature by `storeKeys`, as all
              others do. If `unsigned`, whoever can sign releases needs no store key for such paths.
            '';
          };

          revokedKeys = mkOption {
            type = types.listOf types.str;
            default = [ ];
            example = [ "stolen-1:RbfLIBXdq0ZBWH4jmZCGEqZ5I3qFZe9UUxPFyqtZLgM=" ];
            description = ''
              Public keys that count no longer, under whatever name and wherever else they
              stand.
            '';
          };

          credentials = mkOption {
            type = types.attrsOf (
              types.submodule {
                options = {
                  type = mkOption {
                    type = types.enum [
                      "basic"
                      "bearer"
                      "s3"
                      "instance-role"
                    ];
                    example = "basic";
                    description = ''
                      `basic`: the secret is `USER:PASSWORD`; `bearer`: it is a token. For `s3://`
                      mirrors: `s3`: it has the keys, in the form of AWS's shared credentials file;
                      `instance-role`: the machine's metadata service gives them (IMDSv2).
                    '';
                  };
                  credential = mkOption {
                    type = types.nullOr credentialName;
                    default = null;
                    example = "mirror-password";
                    description = "Name of the systemd credential that holds the secret.";
                  };
                  file = mkOption {
                    type = types.nullOr file;
                    default = null;
                    example = "/run/keys/mirror-password";
                    description = "File that holds the secret, instead of a credential.";
                  };
                  profile = mkOption {
                    type = types.nullOr profile;
                    default = null;
                    example = "fleet";
                    description = "Of `s3`: which profile of the file has the keys; `default` where `null`.";
                  };
                };
              }
            );
            default = { };
            example = {
              "https://releases.example.org" = {
                type = "basic";
                credential = "mirror-password";
              };
            };
            description = ''
              How this host identifies itself to a mirror, by the mirror's address exactly as
              in `mirrors`. Secrets come from `services.nixos-pull.credentialFiles` or a file.
            '';
          };

          tls = {
            caFile = mkOption {
              type = types.nullOr file;
              default = null;
              example = "/etc/ssl/certs/releases-ca.pem";
              description = "Certificate authorities for mirrors, PEM; the system's where `null`.";
            };

            certFile = mkOption {
              type = types.nullOr file;
              default = null;
              example = "/var/lib/acme/gateway/cert.pem";
              description = "Client certificate for mirrors and where reports go, PEM.";
            };

            keyFile = mkOption {
              type = types.nullOr file;
              default = null;
              example = "/var/lib/acme/gateway/key.pem";
              description = "The client certificate's private key, PEM.";
            };
          };

          reports = {
            directory = mkOption {
              type = types.nullOr file;
              default = null;
              example = "/mnt/usb/reports";
              description = ''
                Where a signed report {file}`HOSTNAME.json` is written after every poll. The
                agent does not make the directory, since it may be on a stick that is elsewhere.
              '';
            };

            url = mkOption {
              type = types.nullOr inbox;
              default = null;
              example = "https://releases.example.org/reports";
              description = "Below this address the report is sent by HTTP PUT.";
            };
          };

          sticks = {
            watch = mkOption {
              type = duration;
              default = "5s";
              example = "1m";
              description = ''
                How often the waiting service looks whether a `file://` mirror came or changed, to
                poll at once; `0s` never looks.
              '';
            };

            reports = mkOption {
              type = types.bool;
              default = false;
              example = true;
              description = ''
                Whether the signed report is written to {file}`reports/HOSTNAME.json` on every
                `file://` mirror that is there, after every poll.
              '';
            };
          };

          statusSocket = {
            path = mkOption {
              type = types.nullOr file;
              default = null;
              example = "/run/nixos-pull/status.socket";
              description = ''
                A Unix socket on which the service tells its status, as JSON. The unit makes
                {file}`/run/nixos-pull` where it lies there.
              '';
            };

            group = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "monitoring";
              description = "The group that may open it, beside root.";
            };
          };

          metrics = {
            textfile = mkOption {
              type = types.nullOr promFile;
              default = null;
              example = "/var/lib/node-exporter/nixos-pull.prom";
              description = ''
                Where metrics are written after every poll, for the textfile collector of
                Prometheus' node_exporter. The directory has to be there.
              '';
            };

            listen = mkOption {
              type = types.nullOr loopback;
              default = null;
              example = "127.0.0.1:9184";
              description = "Loopback address and port on which the service gives metrics by HTTP.";
            };
          };

          clock = mkOption {
            type = types.enum [
              "strict"
              "ignore"
            ];
            default = "strict";
            example = "ignore";
            description = ''
              `ignore` is for sites without time: releases never expire there, and a mirror
              can hold newer ones back unnoticed.
            '';
          };

          channel = mkOption {
            type = channel;
            default = "stable";
            example = "canary";
            description = "The channel that this host follows.";
          };

          hostname = mkOption {
            type = types.nullOr hostname;
            default = if hostName == "" then null else hostName;
            defaultText = literalExpression "config.networking.hostName";
            example = "gateway-07.example.org";
            description = ''
              Name of this host in releases. `publish` refuses a system that has another one than
              it is published for. If `null`, as with an empty `networking.hostName`, it is the
              name that the network gives this host.
            '';
          };

          poll = {
            interval = mkOption {
              type = types.nullOr positiveDuration;
              default = null;
              example = "1h";
              description = ''
                Time from one poll to the next. Where neither this nor `poll.cron` is set,
                the agent polls every 15 minutes.
              '';
            };

            cron = mkOption {
              type = types.nullOr cron;
              default = null;
              example = "0 3 * * *";
              description = "Cron expression of five or six fields, instead of `poll.interval`.";
            };

            timezone = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "Europe/Berlin";
              description = "IANA time zone of `poll.cron`; UTC where `null`.";
            };

            jitter = mkOption {
              type = duration;
              default = "2m";
              example = "30m";
              description = ''
                Up to this much, chosen at random, is added to every wait, so that a fleet
                does not ask its mirror all at once.
              '';
            };
          };

          activation = {
            mode = mkOption {
              type = types.nullOr activationMode;
              default = null;
              example = "boot";
              description = ''
                How this host activates every release, whatever the release says; as the
                release says where `null`.
              '';
            };

            specialisation = mkOption {
              type = types.nullOr specialisation;
              default = null;
              example = "debug";
              description = ''
                The specialisation of each system that this host runs, whatever the release
                says; as the release says where `null`.
              '';
            };

            timeout = mkOption {
              type = positiveDuration;
              default = "30m";
              example = "1h";
              description = ''
                How long {command}`switch-to-configuration` may take. A stop of the unit
                waits for it too, so a shutdown in the middle of an activation can take
                this long.
              '';
            };

            runner = mkOption {
              type = types.enum [
                "auto"
                "systemd"
                "child"
              ];
              default = "auto";
              example = "systemd";
              description = ''
                What runs {command}`switch-to-configuration`: a transient systemd unit, which
                outlives the agent, or the agent itself. `auto` is the unit wherever systemd
                runs.
              '';
            };

            attempts = mkOption {
              type = types.ints.between 1 100;
              default = 5;
              example = 3;
              description = ''
                How often a system is tried whose failure may not be its own, as by power cuts
                or time limits, before it waits for a person or for the next release.
              '';
            };

            retryWait = mkOption {
              type = positiveDuration;
              default = "1h";
              example = "6h";
              description = ''
                Wait before a system is tried again whose failure may not be its own: no mirror
                could be read, or a unit failed that both systems define alike. Each later wait is
                four times as long, at most a day.
              '';
            };

            confirm = mkOption {
              type = types.enum [
                "none"
                "required"
              ];
              default = "none";
              example = "required";
              description = ''
                `required`: the service fetches a release, and activates it only after
                {command}`nixos-pull confirm` on this host.
              '';
            };
          };

          maintenance = {
            windows = mkOption {
              type = types.listOf window;
              default = [ ];
              example = [
                {
                  cron = "0 2 * * 6,0";
                  timezone = "Europe/Berlin";
                  duration = "3h";
                }
              ];
              description = ''
                When the service may activate releases, which it fetches at any time; always
                where empty. {command}`nixos-pull apply` does not wait.
              '';
            };

            jitter = mkOption {
              type = duration;
              default = "5m";
              example = "30m";
              description = ''
                Up to this much after a window's opening, and a quarter of the window at most,
                is this host's turn to activate or reboot, so that the hosts of a fleet do not
                all begin in the same second. `0s`: at once.
              '';
            };
          };

          hooks = {
            preActivate = hook ''
              Runs as root before a release is activated: program and arguments, no shell.
              While it fails, the release is not activated.
            '';

            preReboot = hook ''
              Runs before a reboot, to drain the host for instance; while it fails, the host
              does not reboot.
            '';
            postBoot = hook ''
              Runs after that reboot, once the booted system was judged; a failure is a warning.
            '';
            postCommit = hook "Runs once this host is what a release says; a failure is a warning.";

            postRollback = hook "Runs once this host has gone back; a failure is a warning.";

            onFailure = hook ''
              Runs when a poll, a download or an update fails, to tell somebody: mirrors that
              cannot be reached, a full disk, an archive that is missing. Once for each code
              and release, and again after a poll that succeeded; a failure is a warning.
            '';

            timeout = mkOption {
              type = positiveDuration;
              default = "5m";
              example = "30s";
              description = "How long one hook may take before it is ended; at most 1h.";
            };
          };

          drift = mkOption {
            type = types.enum [
              "keep"
              "revert"
            ];
            default = "keep";
            example = "revert";
            description = ''
              What becomes of this host after it was changed by hand, as by
              {command}`nixos-rebuild`. `keep`: it is left alone until another system is
              released. `revert`: the release is activated again.
            '';
          };

          health = {
            settle = mkOption {
              type = duration;
              default = "10s";
              example = "30s";
              description = "Time that units get before the new system is judged.";
            };

            timeout = mkOption {
              type = positiveDuration;
              default = "2m";
              example = "10m";
              description = ''
                Time in which everything that is checked must have passed together once. Else
                the release is rolled back.
              '';
            };

            interval = mkOption {
              type = positiveDuration;
              default = "5s";
              example = "15s";
              description = "Time between two tries.";
            };

            mirror = mkOption {
              type = types.bool;
              default = true;
              example = false;
              description = ''
                Whether a release must be readable from the new system: a host that cannot
                poll is lost.
              '';
            };

            ignoreUnits = mkOption {
              type = types.listOf (types.strMatching ".+");
              default = [ ];
              example = [ "backup-*.service" ];
              description = ''
                Units whose failures do not count when a new system is judged. `*` stands for any
                text, `?` for one character.
              '';
            };

            checks = mkOption {
              type = types.listOf healthCheck;
              default = [ ];
              example = literalExpression ''
                [
                  { name = "website"; kind = "http"; url = "http://localhost/"; }
                  { name = "database"; kind = "tcp"; host = "localhost"; port = 5432; }
                ]
              '';
              description = ''
                This host's own checks, which a new system must pass beside those of the
                release.
              '';
            };

            releaseCommands = mkOption {
              type = types.nullOr types.bool;
              default = null;
              example = true;
              description = ''
                Whether releases may bring commands as checks, which run as root. Otherwise a
                release with commands is refused. Allowed where `null` if `storeKeys` is `null`
                too: whoever has only a release key must not run anything.
              '';
            };
          };

          reboot = {
            policy = mkOption {
              type = types.enum [
                "never"
                "window"
                "now"
              ];
              default = "never";
              example = "window";
              description = ''
                When to reboot for a new kernel, initrd or kernel modules: never by itself,
                only in `reboot.window`, or as soon as they are the boot default.
              '';
            };

            window = mkOption {
              default = null;
              example = {
                cron = "0 3 * * *";
                timezone = "Europe/Berlin";
                duration = "2h";
              };
              description = ''
                When the policy `window` may reboot; in `maintenance.windows` where `null`.
              '';
              type = types.nullOr window;
            };

            grace = mkOption {
              type = duration;
              default = "1m";
              example = "10m";
              description = ''
                Time between the announcement of a reboot and the reboot. Who is logged in is
                told by `wall`.
              '';
            };

            users = mkOption {
              type = types.enum [
                "warn"
                "wait"
              ];
              default = "warn";
              example = "wait";
              description = ''
                Whether a reboot waits while somebody is logged in, or only warns them.
              '';
            };

            fleetLock = mkOption {
              default = null;
              example = {
                url = "https://fleetlock.example.org";
                group = "gateways";
              };
              description = ''
                A FleetLock server that lets only so many hosts reboot at a time; reboots are
                not coordinated where `null`.
              '';
              type = types.nullOr (
                types.submodule {
                  options = {
                    url = mkOption {
                      type = webAddress;
                      example = "https://fleetlock.example.org";
                      description = "Address of a FleetLock server, such as airlock.";
                    };

                    group = mkOption {
                      type = matching "group name of letters, digits, dots and dashes" "[a-zA-Z0-9.-]+";
                      default = "default";
                      example = "gateways";
                      description = "Group whose reboot slots this host shares.";
                    };

                    id = mkOption {
                      type = types.nullOr types.str;
                      default = null;
                      example = "gateway-07";
                      description = "This host's identity; its hostname where `null`.";
                    };
                  };
                }
              );
            };
          };

          generations.keep = mkOption {
            type = types.nullOr atLeastTwo;
            default = null;
            example = 10;
            description = ''
              Generations of the system profile that are kept when a release is committed, at least
              2; all if `null`.
            '';
          };

          generations.collect = mkOption {
            type = types.enum [
              "never"
              "when-needed"
            ];
            default = "never";
            example = "when-needed";
            description = ''
              Whether the agent has Nix collect garbage.

              - `never`: it does not; `nix.gc` may.
              - `when-needed`: if the store has no room for a release, it collects as much as is
                missing before it gives the update up. Generations, and what the agent holds,
                are no garbage; `generations.keep` limits how many of them there are.
            '';
          };

          paths.bootedSystem = mkOption {
            type = directory;
            default = "/run/booted-system";
            example = "/run/booted-system";
            description = "Link to the system that was booted.";
          };

          paths.boot = mkOption {
            type = types.nullOr directory;
            default = null;
            example = "/efi";
            description = ''
              Where the boot loader keeps kernels: an update with a new one begins only if
              there is room for it. With `null` it is what systemd-boot says (the XBOOTLDR
              partition or the ESP), and `/boot` with other boot loaders.
            '';
          };

          paths.state = mkOption {
            type = directory;
            default = "/var/lib/nixos-pull";
            example = "/persist/nixos-pull";
            description = ''
              The agent's state and history. It must outlive reboots: the highest release
              ever accepted is kept here, and without it an old release could be replayed.
            '';
          };

          log = {
            level = mkOption {
              type = types.enum [
                "debug"
                "info"
                "warn"
                "error"
              ];
              default = "info";
              example = "debug";
              description = "Least severe level that is logged.";
            };

            format = mkOption {
              type = types.enum [
                "auto"
                "text"
                "json"
              ];
              default = "auto";
              example = "json";
              description = "`auto` gives readable lines in the journal and on a terminal, JSON elsewhere.";
            };
          };
        };
      };
    };
  };
}
