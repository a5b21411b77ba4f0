# A system of many small paths, as a configuration is made of; built by small-paths.mjs. The first
# `changed` of them differ between generations.
{
  count,
  changed,
  generation,
}:

let
  number = text: builtins.fromJSON text;

  # About as long as a unit or a file of /etc, and unlike the others.
  text =
    at:
    let
      salt = "${toString at}-${if at < number changed then generation else "1"}";
      line = key: "${key} = ${builtins.hashString "sha256" "${key}-${salt}"}\n";
    in
    "# file ${salt}\n" + line "first" + line "second" + line "third" + line "fourth";

  files = builtins.genList (at: builtins.toFile "unit-${toString at}.conf" (text at)) (number count);

  # A file and no argument: an argument may be 128 KiB long (execve(2)).
  list = builtins.toFile "small-paths" (builtins.concatStringsSep "\n" files);
in
derivation {
  name = "nixos-system-small-${generation}";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [
    "-euc"
    ''
      PATH=/usr/bin:/bin
      mkdir -p $out/bin $out/etc/systemd/system
      echo '[Service]' > $out/etc/systemd/system/nixos-pull.service
      ln -s ${list} $out/etc/small-paths
      cat > $out/bin/switch-to-configuration <<END
      #!/bin/sh
      exit 0
      END
      chmod +x $out/bin/switch-to-configuration
    ''
  ];
}
