# Store paths out of Debian packages; called by ./debian-closure, which says why.
# The .deb files enter by absolute path and hash, not as sources, so that the
# closures are source-free; hence this needs an unsandboxed build on Debian.
{
  selection, # file: [ { name, version, deb, sha256, dependencies = [ name … ] } … ]
  debs, # directory of the .deb files
  hosts, # JSON list of host names
  generation,
  blobBytes, # size of the incompressible path, "0" for none
  salt ? "", # changes every hash and no contents, as a mass rebuild does
}:

let
  build = name: script: run name (builtins.toFile "build-${name}.sh" script);

  # The script is the same for every host; it finds $host, $generation, $label.
  buildFor =
    host: name: script: env:
    let
      label = "${host}-${generation}";
    in
    run "${name}-${label}" (builtins.toFile "build-${name}.sh" script) (
      env // { inherit host generation label; }
    );

  run =
    name: scriptFile: env:
    derivation (
      {
        inherit name;
        system = builtins.currentSystem;
        builder = "/bin/bash";
        args = [
          "-euo"
          "pipefail"
          scriptFile
        ];
        PATH = "/usr/bin:/bin";
        LC_ALL = "C.UTF-8";
        allowSubstitutes = false;
      }
      # Without a salt, the paths are those of always.
      // (if salt == "" then { } else { inherit salt; })
      // env
    );

  # Debian versions may hold characters that a store path name may not.
  storeName = p: builtins.replaceStrings [ ":" "~" ] [ "-" "_" ] "${p.name}-${p.version}";

  packageScript = builtins.toFile "build-debian-package.sh" ''
    umask 022
    sha256sum --check --status <<<"$sha256  $deb" || {
      echo "$deb is missing or is not the file with SHA-256 $sha256; delete it to have it fetched again" >&2
      exit 1
    }

    # No owners, no setuid bits (Nix forbids even to try), no device nodes.
    mkdir "$out"
    members() { dpkg-deb --fsys-tarfile "$deb"; }
    unpack() { members | tar -x -C "$out" --no-same-owner --no-same-permissions --delay-directory-restore "$@"; }
    unpack || {
      chmod -R u+rwX "$out"
      find "$out" -mindepth 1 -delete
      members | tar -tv --quoting-style=literal | awk '/^[bc]/ { print $NF }' > devices
      unpack --anchored --no-wildcards --exclude-from=devices
    }
    find "$out" \( -type b -o -type c -o -type p -o -type s \) -delete
    chmod -R u+rwX "$out"

    # What others need to link with this package, and what it needs itself.
    mkdir -p "$out/nix-support"
    find "$out" -name 'lib*.so.*' -printf '%h\n' | sort -u > "$out/nix-support/library-directories"
    printf '%s\n' $dependencies > "$out/nix-support/dependencies"

    rpath=
    for package in "$out" $dependencies; do
      while IFS= read -r directory; do rpath+="''${rpath:+:}$directory"; done < "$package/nix-support/library-directories"
    done
    [ -n "$rpath" ] || exit 0

    # patchelf refuses static executables and foreign firmware: left as they are.
    find "$out" -type f -size +3c \( -perm /111 -o -name '*.so' -o -name '*.so.*' \) -print0 |
      while IFS= read -r -d "" file; do
        magic=
        LC_ALL=C IFS= read -r -d "" -n 4 magic < "$file" || true
        if [ "$magic" = $'\x7fELF' ]; then
          patchelf --set-rpath "$rpath" "$file" || echo "not patched: $file"
        fi
      done
  '';

  data = builtins.fromJSON (builtins.readFile selection);

  packages = builtins.listToAttrs (
    map (p: {
      inherit (p) name;
      value = run (storeName p) packageScript {
        deb = "${debs}/${p.deb}";
        inherit (p) sha256;
        dependencies = map (dependency: packages.${dependency}) p.dependencies;
      };
    }) data
  );

  systemPath =
    build "system-path"
      ''
        mkdir "$out"
        for path in $(< "$packagesPath"); do
          name=''${path##*/}
          ln -s "$path" "$out/''${name#*-}"
        done
      ''
      {
        packages = map (p: packages.${p.name}) data;
        passAsFile = [ "packages" ];
      };

  # AES-CTR of zeros: the same bytes everywhere, and no compressor shrinks them.
  firmware = build "firmware-incompressible" ''
    mkdir "$out"
    head -c "$bytes" /dev/zero |
      openssl enc -aes-256-ctr -K ${zeros 64} -iv ${zeros 32} -out "$out/firmware.bin"
  '' { bytes = blobBytes; };

  zeros = count: builtins.concatStringsSep "" (builtins.genList (_: "0") count);

  # What an agent compares to learn whether a reboot is needed.
  linux = build "linux-boot" ''
    mkdir -p "$out/lib/modules/6.1.0"
    echo kernel > "$out/bzImage"
    echo initrd > "$out/initrd"
    echo > "$out/lib/modules/6.1.0/modules.order"
  '' { };

  system =
    host:
    let
      build = buildFor host;

      etc =
        build "etc"
          ''
            mkdir "$out"
            echo "$host" > "$out/hostname"
            echo "BUILD_ID=$label" > "$out/os-release"
            ln -s "$systemPath" "$out/system-path"
            ln -s "$units" "$out/systemd"
          ''
          { inherit systemPath units; };

      units =
        build "system-units"
          ''
            mkdir "$out"
            printf '[Unit]\nDescription=%s\n[Service]\nExecStart=%s/bin/true\n' "$label" "$systemPath" > "$out/example@.service"
            ln -s example@.service "$out/example@$host.service"
          ''
          { inherit systemPath; };

      activate =
        build "activate"
          ''
            printf '#!/bin/sh\nPATH=/usr/bin:/bin\necho "activating %s"\n' "$label" > "$out"
            chmod +x "$out"
          ''
          { };
    in
    build "nixos-system"
      ''
        mkdir -p "$out/bin" "$out/etc"
        cd "$out"

        echo "24.05.debian.$generation ($host)" > nixos-version
        echo "$system" > system
        ln -s "$systemPath" sw
        ln -s "$units" systemd-units
        ln -s "$activate" activate
        ln -s "$linux/bzImage" kernel
        ln -s "$linux/initrd" initrd
        ln -s "$linux" kernel-modules
        [ -z "$firmware" ] || ln -s "$firmware" firmware

        cat > bin/switch-to-configuration <<END
        #!/bin/sh
        # Changes nothing: says what it was asked for, and notes it where a test looks.
        PATH=/usr/bin:/bin
        export PATH
        case "\''${1-}" in
          switch | boot | test | dry-activate | check) ;;
          *)
            echo "usage: switch-to-configuration switch|boot|test|dry-activate|check" >&2
            exit 1
            ;;
        esac
        echo "\$1: $out"
        if [ -n "\''${NIXOS_PULL_TEST_LOG:-}" ]; then
          printf '%s %s\n' "\$1" "$out" >> "\$NIXOS_PULL_TEST_LOG"
        fi
        exit 0
        END
        chmod +x bin/switch-to-configuration

        # What a NAR can hold and a careless reader stumbles over.
        cd etc
        ln -s "$etc" static
        echo "$host" > hostname
        echo spaces > "a name  with spaces"
        echo unicode > "Grüße-世界-🚀"
        echo dash > ./-rf
        echo quotes > 'quote"s, $(dollars) and \backslashes'
        echo long > "$(printf 'n%.0s' {1..200})"
        echo upper > CASE
        echo lower > case
        : > empty-file
        mkdir -p systemd/system
        echo '[Service]' > systemd/system/nixos-pull.service
        mkdir -p empty-directory deep/er/and/deeper
        ln -s ../../../hostname deep/er/and/deeper-hostname
        ln -s "$systemPath" absolute-link
        ln -s /nonexistent/target dangling-link
        ln -s missing relative-dangling-link
        printf '#!/bin/sh\nexit 0\n' > executable
        chmod +x executable
      ''
      {
        inherit
          systemPath
          units
          activate
          etc
          linux
          ;
        firmware = if blobBytes == "0" then "" else firmware;
      };
in
{
  systems = map system (builtins.fromJSON hosts);
}
