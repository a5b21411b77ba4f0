# A small but honest system closure, built by real Nix with /bin/sh alone: references
# between paths, a path that refers to itself, symlinks, executables, empty directories,
# odd file names, and a switch-to-configuration that records what it is asked.
#
# In a sandbox it works below $NIXOS_PULL_SANDBOX_ROOT: it appends "MODE TOPLEVEL" to
# switch.log there and, like the real one, points /run/current-system at its toplevel.
{
  name ? "web1",
  generation ? "1",
  # What the system calls its host: a name that was given, else nothing, as on hosts whose name
  # the network gives. Such a system may be any host's.
  hostname ? args.name or "",
  # Whether it has the agent's unit.
  agent ? true,
  # The name of a specialisation that it has; none if empty.
  specialisation ? "",
  # What its file `system` says; none if empty.
  platform ? "",
  # Exit code of switch-to-configuration.
  exitCode ? 0,
  # Seconds that it takes.
  seconds ? 0,
  # Bytes of a path with contents that do not compress.
  payloadBytes ? 0,
  # A row of paths, each of so many bytes that do not compress and referring to the one before.
  parts ? 0,
  partBytes ? 0,
  # Changes the hashes of the row and of all that refers to it, and no contents.
  salt ? "",
}@args:
let
  build =
    name: script: attributes:
    derivation (
      {
        inherit name;
        system = builtins.currentSystem;
        builder = "/bin/sh";
        args = [
          "-euc"
          "PATH=/usr/bin:/bin; ${script}"
        ];
      }
      // attributes
    );

  # Shared by every host and generation.
  library = build "library-1.0" ''
    mkdir -p $out/lib $out/empty/directory
    echo library > $out/lib/liblibrary.so.1
    ln -s liblibrary.so.1 $out/lib/liblibrary.so
    ln -s ${"$"}{out}/lib $out/itself
    ln -s /nowhere/at/all $out/dangling
  '' { };

  # File names that trip careless code.
  odd = build "odd-names" ''
    mkdir -p "$out/with space" "$out/-dash"
    echo 1 > "$out/with space/quote\"and'apostrophe"
    echo 2 > "$out/ünïcödé"
    echo 3 > "$out/-dash/--option"
    printf 4 > "$out/$(printf 'new\nline')"
    : > $out/empty
    echo long > $out/$(printf '%0200d' 0)
  '' { };

  payload = build "payload-${toString payloadBytes}" ''
    openssl enc -aes-256-ctr -pass pass:nixos-pull -nosalt -pbkdf2 < /dev/zero 2>/dev/null \
      | head -c ${toString payloadBytes} > $out || true
  '' { };

  row = builtins.foldl' (
    before: number:
    before
    ++ [
      (build "part-${toString number}" ''
        mkdir $out
        echo $out ${if before == [ ] then "" else "${builtins.elemAt before (number - 1)}"} > $out/references
        openssl enc -aes-256-ctr -pass pass:part-${toString number} -nosalt -pbkdf2 < /dev/zero 2>/dev/null \
          | head -c ${toString partBytes} > $out/contents || true
      '' { inherit salt; })
    ]
  ) [ ] (builtins.genList (number: number) parts);

  program = build "program-2.0" ''
    mkdir -p $out/bin
    printf '#!/bin/sh\necho ${library}\n' > $out/bin/program
    chmod +x $out/bin/program
  '' { };

  etc = build "etc" ''
    mkdir -p $out/systemd/system
    echo ${hostname} > $out/hostname
    ${if agent then "echo '[Service]' > $out/systemd/system/nixos-pull.service" else ""}
    echo generation ${generation} > $out/release
  '' { };
in
rec {
  system = build "nixos-system-${name}-${generation}" ''
    ${
      if specialisation == "" then
        ""
      else
        "mkdir -p $out/specialisation; ln -s ${specialised} $out/specialisation/${specialisation}"
    }
    mkdir -p $out/bin $out/sw
    ln -s ${program}/bin $out/sw/bin
    ln -s ${library} $out/sw/library
    ln -s ${odd} $out/odd
    ln -s ${etc} $out/etc
    ${if platform == "" then "" else "printf ${platform} > $out/system"}
    ${if payloadBytes > 0 then "ln -s ${payload} $out/payload" else ""}
    ${builtins.concatStringsSep "\n" (map (part: "ln -s ${part} $out/") row)}
    echo ${generation} > $out/nixos-version
    cat > $out/bin/switch-to-configuration <<EOF
    #!/bin/sh
    PATH=/usr/bin:/bin
    if [ \$# -ne 1 ]; then echo "usage: \$0 [switch|boot|test|dry-activate]" >&2; exit 1; fi
    root=\''${NIXOS_PULL_SANDBOX_ROOT:-}
    echo "switching to generation ${generation} of ${name}: \$1"
    sleep ${toString seconds}
    echo "\$1 $out" >> "\$root/switch.log"
    if [ ${toString exitCode} -ne 0 ]; then echo "warning: it was told to fail" >&2; exit ${toString exitCode}; fi
    case "\$1" in
      switch|test) mkdir -p "\$root/run"; ln -sfn $out "\$root/run/current-system" ;;
    esac
    EOF
    chmod +x $out/bin/switch-to-configuration
  '' { };

  # The system's specialisation: the same with another generation's name.
  specialised =
    (import ./system.nix (
      args
      // {
        generation = "${generation}-${specialisation}";
        specialisation = "";
      }
    )).system;

  # A path that is no system at all.
  notASystem = library;
}
