# nixos-pull.service, the agent as a systemd unit.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.nixos-pull;
  inherit (cfg.settings)
    activation
    health
    paths
    statusSocket
    ;
in
{
  config = lib.mkIf cfg.enable {
    warnings = lib.optional (config.system.autoUpgrade.enable or false) ''
      system.autoUpgrade and services.nixos-pull are both enabled: each replaces what the
      other installed. Turn one of them off.
    '';

    systemd.services.nixos-pull = {
      description = "Pull-based release agent";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];

      # The agent runs the very switch that would stop or restart it.
      restartIfChanged = false;
      stopIfChanged = false;

      unitConfig = {
        # A release without the agent must not end the switch that installs it.
        X-StopOnRemoval = false;
        RequiresMountsFor = [ paths.state ];
      };

      # No limit: nobody can log in to reset it, and a host that stopped trying is lost.
      startLimitIntervalSec = 0;

      path = [
        config.nix.package
        pkgs.util-linux # flock
        pkgs.zstd # deltas
        config.systemd.package
        pkgs.coreutils
      ];

      # NIX_REMOTE is not set: root writes to the store itself or through the daemon, as
      # the host has it, and both will do.
      environment = config.networking.proxy.envVars // {
        HOME = paths.state;
        XDG_CACHE_HOME = "${paths.state}/cache";
      };

      serviceConfig = {
        Type = "exec";
        ExecStart = "${lib.getExe cfg.package} run";

        Restart = "always";
        # From 15 seconds to 10 minutes in 6 steps; systemd before 254 stays at 15 seconds.
        RestartSec = 15;
        RestartSteps = 6;
        RestartMaxDelaySec = 600;
        # The agent's exit code for "stopped by a signal".
        SuccessExitStatus = 130;

        # A stop asks the agent alone and lets a running switch finish: half an
        # activation is worse than a late shutdown.
        KillMode = "mixed";
        TimeoutStopSec = "${activation.timeout} 2m";
        # A program that ran out of memory is a failed step, not the agent's end.
        OOMPolicy = "continue";

        # Closed: no activation needs these.
        LockPersonality = true;
        RestrictRealtime = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [ "~@cpu-emulation @obsolete" ];
        SystemCallErrorNumber = "EPERM";
        RestrictAddressFamilies = [
          "AF_UNIX"
          "AF_INET"
          "AF_INET6"
          "AF_NETLINK"
          "AF_ALG" # kernel crypto, for cryptsetup
        ];

        # Open on purpose. Whatever is closed here is closed to the children too, which are
        # activation scripts and bootloader installers that run as root.
        NoNewPrivileges = false; # they drop to users, who may then use setuid wrappers
        RestrictSUIDSGID = false; # they make those wrappers
        RestrictNamespaces = false; # they unshare, and so does Nix
        ProtectHostname = false; # they set the hostname
        ProtectClock = false; # it closes every device, and installers write to disks
        DevicePolicy = "auto"; # likewise
        MemoryDenyWriteExecute = false; # Node compiles at run time
        UMask = "0022"; # others must read what installers write

        # Each of these needs a mount table of its own, from which nothing that an
        # activation mounts would reach the host; most also forbid what it is there to do.
        PrivateDevices = false;
        PrivateTmp = false;
        ProtectControlGroups = false;
        ProtectHome = false; # home directories of new users
        ProtectKernelLogs = false;
        ProtectKernelModules = false; # modprobe
        ProtectKernelTunables = false; # sysctl
        ProtectProc = "default";
        ProtectSystem = false; # /etc, /boot, /nix
      }
      // lib.optionalAttrs (cfg.watchdog != null) {
        WatchdogSec = cfg.watchdog;
        # systemd-notify tells it, a child of the agent.
        NotifyAccess = "all";
        # What hangs heeds nothing else, and the agent goes on after any end. No core is dumped.
        WatchdogSignal = "SIGKILL";
        # For the agent that follows, so that status, report and history tell of a hang.
        ExecStopPost = "-${pkgs.coreutils}/bin/touch ${paths.state}/ended-\${SERVICE_RESULT}";
      }
      // lib.optionalAttrs (cfg.credentialFiles != { }) {
        # Copies that only this unit can read, wherever the secrets come from.
        LoadCredential = map (name: "${name}:${cfg.credentialFiles.${name}}") (
          builtins.attrNames cfg.credentialFiles
        );
      }
      // lib.optionalAttrs (statusSocket.path != null && lib.hasPrefix "/run/nixos-pull/" statusSocket.path) {
        # Others may look for the socket; who opens it is the socket's own mode.
        RuntimeDirectory = "nixos-pull";
        RuntimeDirectoryMode = "0755";
      }
      // lib.optionalAttrs (lib.hasPrefix "/var/lib/" paths.state) {
        # Elsewhere the agent makes its directory itself.
        StateDirectory = lib.removePrefix "/var/lib/" paths.state;
        StateDirectoryMode = "0700";
      };
    };

    # A system that only a boot can prove may come up without an agent that judges it. The
    # agent that booted it left a program for that case, and removes it with its verdict.
    systemd.services.nixos-pull-boot = {
      description = "Go back from a system that was booted and not proven";
      restartIfChanged = false;
      stopIfChanged = false;
      startLimitIntervalSec = 0;
      unitConfig = {
        X-StopOnRemoval = false;
        ConditionFileIsExecutable = "${paths.state}/boot-deadline";
        RequiresMountsFor = [ paths.state ];
      };
      serviceConfig = {
        Type = "oneshot";
        ExecStart = "${paths.state}/boot-deadline";
        # It has to succeed: nobody else would go back.
        Restart = "on-failure";
        RestartSec = 30;
      };
    };
    systemd.timers.nixos-pull-boot = {
      description = "Deadline for the agent's verdict on a booted system";
      wantedBy = [ "timers.target" ];
      # The health gate's own times, and time for the network and the agent to come up.
      timerConfig.OnBootSec = "${health.settle} ${health.timeout} 10m";
    };

    # Only started where a boot loader counts boots, which boot-complete.target is for: an
    # entry is not taken for good before the agent's verdict (systemd-bless-boot.service(8)).
    systemd.services.nixos-pull-boot-complete = {
      description = "Verdict of the release agent on the booted system";
      requiredBy = [ "boot-complete.target" ];
      before = [ "boot-complete.target" ];
      # A switch while it waits for the verdict must not end it, not even one to a system
      # without it: the target would fail, the entry keep its counter, and the boot loader
      # give up a good system after some boots. It ends by itself, with the verdict.
      restartIfChanged = false;
      stopIfChanged = false;
      unitConfig.X-StopOnRemoval = false;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${lib.getExe cfg.package} boot-complete";
      };
    };
  };
}
