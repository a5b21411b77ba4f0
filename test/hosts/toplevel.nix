# Systems for the test hosts, built by real Nix with /bin/sh alone, that look and behave
# like NixOS toplevels: units and configuration below etc/, the agent in sw/bin, kernel
# links, an activation script, an init that does what NixOS's stage 2 does, and a
# switch-to-configuration with the real one's actions and exit codes.
{
  name ? "web1",
  # Says nothing to anybody but makes two systems differ; stands in nixos-version.
  generation ? "1",
  # Unit file name -> text. @nixos-pull@ is the agent's package. [Install] WantedBy= counts.
  units ? { },
  # normal | changed (the unit differs) | removed (neither unit nor program) | broken (exits 1)
  agent ? "normal",
  # Text of nixos-pull.service instead of the one below; and units that belong to it.
  agentUnit ? null,
  agentUnits ? { },
  # JSON text of etc/nixos-pull/config.json; null: no such file.
  agentConfig ? null,
  # The shipped bundle.
  bundle ? ../../dist/nixos-pull.cjs,
  # What a reboot is needed for.
  kernel ? "6.12.1",
  initrd ? kernel,
  kernelModules ? kernel,
  initInterface ? "1",
  # Real ones, for machines with a boot loader: paths of files, and the kernel's command line.
  kernelFile ? null,
  initrdFile ? null,
  kernelParameters ? "",
  # Whether the system has GRUB's own tool, as far as the stand-in goes.
  grub ? false,
  # The boot loader's installer, and how many tries it gives an entry (0: they are not counted).
  bootLoaderInstaller ? ./install-boot-loader.sh,
  bootTries ? 0,
  # Failures of switch-to-configuration.
  checkFails ? false,
  bootLoaderFails ? false,
  activateFails ? false,
  # Switch inhibitors, name -> value: one that differs is better taken by a boot.
  inhibitors ? { },
  # The program that switches: the stand-in, or a real one (its binary).
  switchProgram ? ./switch-to-configuration.sh,
  # Of the stand-in alone: which release it behaves like, and where it dies with which code.
  switchEra ? "26.11",
  switchDiesAt ? "",
  switchDiesWith ? 1,
  # An init that never gets to systemd.
  bootFails ? false,
  # Seconds that switch-to-configuration sleeps, and where: "started" (in the pre-switch checks,
  # before the boot loader), "stopped" (units are stopped, nothing is activated) or "activated".
  switchSleep ? 0,
  switchSleepAt ? "stopped",
  # Activation takes the network interface down; others bring it up.
  cutNetwork ? false,
  # Shell text at the end of the activation script.
  activationScript ? "",
  # Bytes of a path that does not compress, other bytes in each generation.
  payloadBytes ? 0,
}:
let
  build =
    pathName: script: attributes:
    derivation (
      {
        name = pathName;
        system = builtins.currentSystem;
        builder = "/bin/sh";
        args = [
          "-euc"
          "PATH=/usr/bin:/bin; ${script}"
        ];
      }
      // attributes
    );

  shell = value: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] (toString value)}'";
  flag = value: if value then "1" else "";
  # Copies a script and fills in @NAME@ where it stands alone in a value.
  fill =
    file: values:
    "sed ${
      toString (
        map (key: "-e ${shell "s|@${key}@|${toString values.${key}}|g"}") (builtins.attrNames values)
      )
    } ${builtins.path { path = file; name = baseNameOf file; }}";

  bundleFile = builtins.path {
    path = bundle;
    name = "nixos-pull.cjs";
  };

  grubEditenv = builtins.path {
    path = ./grub-editenv.sh;
    name = "grub-editenv";
  };

  package = build "nixos-pull-0.1.0" ''
    mkdir -p $out/bin $out/lib
    ${
      if agent == "broken" then
        ''printf '#!/bin/sh\necho "this agent is broken" >&2\nexit 1\n' > $out/bin/nixos-pull''
      else
        ''
          cp ${bundleFile} $out/lib/nixos-pull.cjs
          printf '#!/bin/sh\nexec /usr/bin/node %s/lib/nixos-pull.cjs "$@"\n' $out > $out/bin/nixos-pull
        ''
    }
    chmod +x $out/bin/nixos-pull
  '' { };

  defaultAgentUnit = ''
    [Unit]
    Description=Pull-based release agent
    After=network.target
    [Service]
    ExecStart=@nixos-pull@/bin/nixos-pull run
    Environment=PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root
    StateDirectory=nixos-pull
    Restart=always
    RestartSec=1
    ${if agent == "changed" then "Environment=CHANGED=${generation}" else ""}
    [Install]
    WantedBy=multi-user.target
  '';

  # Targets belong to NixOS's own directory too: starting them again starts what is new.
  targets = {
    "multi-user.target" = ''
      [Unit]
      Description=Multi-User System
      Requires=basic.target
      Conflicts=rescue.service rescue.target
      After=basic.target rescue.service rescue.target
      AllowIsolate=yes
    '';
    "timers.target" = ''
      [Unit]
      Description=Timer Units
      DefaultDependencies=no
      Conflicts=shutdown.target
    '';
    # Every switch restarts it.
    "sysinit-reactivation.target" = ''
      [Unit]
      Description=Reactivate sysinit units
    '';
  };

  # A program from the store has libraries there.
  switchToConfiguration =
    if builtins.match "/nix/store/.*" (toString switchProgram) != null && builtins.isString switchProgram then
      builtins.storePath switchProgram
    else
      builtins.path {
        path = switchProgram;
        name = "switch-to-configuration";
      };

  allUnits =
    targets
    // (
      if agent == "removed" then
        { }
      else
        { "nixos-pull.service" = if agentUnit == null then defaultAgentUnit else agentUnit; } // agentUnits
    )
    // units;

  etc = build "etc" ''
    system=$out/systemd/system
    mkdir -p $system
    ${toString (
      map (unit: ''
        sed -e ${
          shell "s|@nixos-pull@|${if agent == "removed" then "" else package}|g"
        } ${builtins.toFile "unit" allUnits.${unit}} > $system/${shell unit}
      '') (builtins.attrNames allUnits)
    )}
    for unit in $system/*; do
      for target in $(sed -n 's/^WantedBy=//p' $unit); do
        mkdir -p $system/$target.wants
        ln -s ../''${unit##*/} $system/$target.wants/
      done
    done
    ${
      if agentConfig == null then
        ""
      else
        ''
          mkdir $out/nixos-pull
          cp ${builtins.toFile "config.json" agentConfig} $out/nixos-pull/config.json
        ''
    }
  '' { };

  file =
    pathName: fileName: contents:
    build pathName ''
      mkdir $out
      ${
        if contents == null then
          "echo ${pathName} > $out/${fileName}"
        else
          "cp ${
            builtins.path {
              path = contents;
              name = fileName;
            }
          } $out/${fileName}"
      }
    '' { };

  payload = build "payload" ''
    openssl enc -aes-256-ctr -pass pass:${name}-${generation} -nosalt -pbkdf2 < /dev/zero 2>/dev/null \
      | head -c ${toString payloadBytes} > $out || true
  '' { };
in
{
  system = build "nixos-system-${name}-${generation}" ''
    mkdir -p $out/bin $out/sw/bin
    ${if agent == "removed" then "" else "ln -s ${package}/bin/nixos-pull $out/sw/bin/nixos-pull"}
    ${if grub then "install -m 755 ${grubEditenv} $out/sw/bin/grub-editenv" else ""}
    ln -s ${etc} $out/etc
    ln -s ${file "linux-${kernel}" "bzImage" kernelFile}/bzImage $out/kernel
    ln -s ${file "initrd-linux-${initrd}" "initrd" initrdFile}/initrd $out/initrd
    ln -s ${file "linux-${kernelModules}-modules" "modules" null} $out/kernel-modules
    ${if payloadBytes > 0 then "ln -s ${payload} $out/payload" else ""}
    printf %s ${shell kernelParameters} > $out/kernel-params
    printf %s ${initInterface} > $out/init-interface-version
    printf %s ${generation} > $out/nixos-version
    printf %s x86_64-linux > $out/system
    ${
      fill ./activate.sh {
        FAILS = flag activateFails;
        CUT_NETWORK = flag cutNetwork;
        SLEEP = switchSleep;
        SLEEP_AT = switchSleepAt;
      }
    } -e "s|@TOPLEVEL@|$out|g" > $out/activate
    cat ${builtins.toFile "activation-script" activationScript} >> $out/activate
    printf '\nsleep_at activated\nexit $status\n' >> $out/activate
    ${fill ./init.sh { FAILS = flag bootFails; }} -e "s|@TOPLEVEL@|$out|g" > $out/init
    ${
      fill ./pre-switch-checks.sh {
        CHECK_FAILS = flag checkFails;
        GENERATION = generation;
        SLEEP = switchSleep;
        SLEEP_AT = switchSleepAt;
      }
    } > $out/pre-switch-checks
    ${
      fill bootLoaderInstaller {
        FAILS = flag bootLoaderFails;
        TRIES = bootTries;
      }
    } > $out/install-boot-loader
    cp ${builtins.toFile "switch-inhibitors" (builtins.toJSON inhibitors)} $out/switch-inhibitors
    cat > $out/bin/switch-to-configuration <<END
    #!/bin/sh
    export OUT=$out TOPLEVEL=$out DISTRO_ID=nixos LOCALE_ARCHIVE= SYSTEMD=/usr
    export PRE_SWITCH_CHECK=$out/pre-switch-checks INSTALL_BOOTLOADER=$out/install-boot-loader
    export STAND_IN_ERA=${switchEra} STAND_IN_DIES_AT=${switchDiesAt} STAND_IN_DIES_WITH=${toString switchDiesWith}
    exec ${switchToConfiguration} "\$@"
    END
    chmod +x $out/activate $out/init $out/pre-switch-checks $out/install-boot-loader \
      $out/bin/switch-to-configuration
  '' { };

  # The agent alone.
  inherit package;
}
