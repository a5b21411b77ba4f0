# A system that shares nothing with its other generations, so that a host has to read the
# whole archive, and whose switch-to-configuration does what a test tells it at run time:
# it runs $NIXOS_PULL_SANDBOX_ROOT/switch-hook, a snippet of shell that sees $mode,
# $generation, $out and $root and may wait, fail or exit as it likes. What it says of its
# usage may stand in $NIXOS_PULL_SANDBOX_ROOT/switch-usage.
{
  name ? "web1",
  generation ? "1",
  # Bytes of a path with contents that do not compress.
  payloadBytes ? 0,
}:
let
  build =
    name: script:
    derivation {
      inherit name;
      system = builtins.currentSystem;
      builder = "/bin/sh";
      args = [
        "-euc"
        "PATH=/usr/bin:/bin; ${script}"
      ];
    };

  library = build "library-${generation}" ''
    mkdir -p $out/lib
    echo ${generation} > $out/lib/library
    ln -s $out/lib $out/itself
  '';

  program = build "program-${generation}" ''
    mkdir -p $out/bin
    printf '#!/bin/sh\ncat ${library}/lib/library\n' > $out/bin/program
    chmod +x $out/bin/program
  '';

  payload = build "payload-${generation}-${toString payloadBytes}" ''
    openssl enc -aes-256-ctr -pass pass:${generation} -nosalt -pbkdf2 < /dev/zero 2>/dev/null \
      | head -c ${toString payloadBytes} > $out || true
  '';
in
build "nixos-system-${name}-${generation}" ''
  mkdir -p $out/bin $out/sw $out/etc/systemd/system
  echo '[Service]' > $out/etc/systemd/system/nixos-pull.service
  ln -s ${program}/bin $out/sw/bin
  ln -s ${library} $out/sw/library
  ${if payloadBytes > 0 then "ln -s ${payload} $out/payload" else ""}
  echo ${generation} > $out/nixos-version
  cat > $out/bin/switch-to-configuration <<EOF
  #!/bin/sh
  PATH=/usr/bin:/bin
  mode=\''${1-} generation=${generation} out=$out root=\''${NIXOS_PULL_SANDBOX_ROOT:-}
  if [ \$# -ne 1 ]; then
    cat "\$root/switch-usage" 2>/dev/null || echo "usage: \$0 [switch|boot|test|dry-activate]"
    exit 1
  fi
  echo "switching to generation ${generation} of ${name}: \$mode"
  echo "\$mode \$out" >> "\$root/switch.log"
  if [ -e "\$root/switch-hook" ]; then . "\$root/switch-hook"; fi
  case "\$mode" in
    switch|test) mkdir -p "\$root/run"; ln -sfn \$out "\$root/run/current-system" ;;
  esac
  EOF
  chmod +x $out/bin/switch-to-configuration
''
