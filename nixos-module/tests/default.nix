# NixOS machines that follow a mirror, for people with nixpkgs and KVM:
#
#   nix-build nixos-module/tests              all
#   nix-build nixos-module/tests -A follow    one
#
# NOT RUN YET: they were written where there is no nixpkgs. They are parsed, evaluated as far
# as stand-ins go, and their scripts checked for syntax by test/nixos-module/machines.test.ts.
{
  pkgs ? import <nixpkgs> { },
  package ? pkgs.callPackage ../package.nix { },
  # A pair of keys, made while this is built. It is in the Nix store, so good for tests alone.
  keys ? pkgs.runCommand "nixos-pull-test-keys" { nativeBuildInputs = [ package ]; } ''
    mkdir "$out"
    nixos-pull keygen test-1 --out "$out/test-1"
  '',
  # Read out of what was just built ("import from derivation").
  publicKey ? pkgs.lib.fileContents "${keys}/test-1.public",
}:
let
  inherit (pkgs) lib;
  machines = import ./machines.nix { inherit keys package publicKey; };

  # What a test's script may use: PUBLISH, and waits for what the agent says of itself.
  preamble =
    { nodes, ... }:
    ''
      RELEASED = "${nodes.host.released}"
      PUBLISH = (
          "nixos-pull publish --mirror /srv/mirror --key ${keys}/test-1.secret"
          f" --level 1 --host host={RELEASED} >&2"
      )

      def wait_for_status(condition):
          host.wait_until_succeeds(f"nixos-pull status --json | jq -e '{condition}'")

      # A machine of a test is booted without one, an installed machine never is.
      def remember_system():
          host.succeed(
              "nix-env --profile /nix/var/nix/profiles/system"
              " --set $(readlink -f /run/current-system)"
          )
          return host.succeed("readlink -f /run/current-system").strip()
    '';

  test =
    {
      name,
      next ? { },
      settings ? { },
      hostModule ? { },
      mirrorModule ? { },
      script,
    }:
    pkgs.testers.runNixOSTest {
      name = "nixos-pull-${name}";
      nodes = {
        host.imports = [
          (machines.host { inherit next settings; })
          hostModule
        ];
        mirror.imports = [
          machines.mirror
          mirrorModule
        ];
      };
      testScript = arguments: preamble arguments + script;
    };

  # A certificate that is its own authority. Its key is apart, since the host's system refers
  # to the certificate, and systems with private keys are not published.
  certificate =
    pkgs.runCommand "nixos-pull-test-certificate"
      {
        nativeBuildInputs = [ pkgs.openssl ];
        outputs = [
          "out"
          "key"
        ];
      }
      ''
        openssl req -x509 -newkey rsa:2048 -nodes -days 36500 -subj /CN=mirror \
          -addext subjectAltName=DNS:mirror -keyout "$key" -out "$out"
      '';
in
{
  # A host gets a system that it never had from a mirror, and keeps it.
  follow = test {
    name = "follow";
    next.environment.etc."release".text = "the next one";
    settings.poll = {
      interval = "5s";
      jitter = "0s";
    };
    script = ''
      start_all()
      mirror.wait_for_unit("nginx.service")
      host.wait_for_unit("nixos-pull.service")
      remember_system()
      host.fail(f"nix-store --check-validity {RELEASED}")

      mirror.succeed(PUBLISH)
      wait_for_status(".committed.sequence == 1")
      host.succeed(f"test $(readlink -f /run/current-system) = {RELEASED}")
      host.succeed(f"test $(readlink -f /nix/var/nix/profiles/system) = {RELEASED}")
      host.succeed("grep 'the next one' /etc/release")
      host.wait_for_unit("nixos-pull.service")
    '';
  };

  # A release whose unit fails is left again, and not tried a second time.
  rollback = test {
    name = "rollback";
    next.systemd.services.broken = {
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        Type = "oneshot";
        ExecStart = "/run/current-system/sw/bin/false";
      };
    };
    settings = {
      poll = {
        interval = "5s";
        jitter = "0s";
      };
      health.timeout = "30s";
    };
    script = ''
      start_all()
      mirror.wait_for_unit("nginx.service")
      host.wait_for_unit("nixos-pull.service")
      before = remember_system()

      mirror.succeed(PUBLISH)
      wait_for_status(f'.denied[0].toplevel == "{RELEASED}" and .state.name == "Idle"')
      host.succeed(f"test $(readlink -f /run/current-system) = {before}")
      host.succeed(f"test $(readlink -f /nix/var/nix/profiles/system) = {before}")
      host.fail("systemctl cat broken.service")
      host.wait_for_unit("nixos-pull.service")
    '';
  };

  # What the module puts on a machine beside the agent.
  units = test {
    name = "units";
    script = ''
      host.start()
      host.wait_for_unit("nixos-pull.service")
      host.wait_for_unit("nixos-pull-boot.timer")
      host.succeed("systemctl cat nixos-pull-boot.service nixos-pull-boot-complete.service")
      host.succeed(
          "test -e /etc/systemd/system/boot-complete.target.requires/nixos-pull-boot-complete.service"
      )
      host.succeed("nixos-pull --version")
      host.succeed("nixos-pull config")
      host.succeed("ls /run/current-system/sw/share/man/man1/nixos-pull.1*")
      host.succeed("test -e /run/current-system/sw/share/bash-completion/completions/nixos-pull")
      # Linked into a system by programs.zsh and programs.fish alone.
      host.succeed("test -e ${package}/share/zsh/site-functions/_nixos-pull")
      host.succeed("test -e ${package}/share/fish/vendor_completions.d/nixos-pull.fish")
    '';
  };

  # The module's defaults, and a mirror that asks for a password.
  credentials = test {
    name = "credentials";
    next.environment.etc."release".text = "the private one";
    settings = {
      mirrors = lib.mkForce [ "https://mirror" ];
      tls.caFile = "${certificate}";
      credentials."https://mirror" = {
        type = "basic";
        credential = "mirror-password";
      };
    };
    hostModule = {
      services.nixos-pull.credentialFiles.mirror-password = "/var/secrets/mirror-password";
      systemd.tmpfiles.rules = [ "f /var/secrets/mirror-password 0400 root root - host:password" ];
    };
    mirrorModule = {
      networking.firewall.allowedTCPPorts = [ 443 ];
      services.nginx.virtualHosts.mirror = {
        onlySSL = true;
        sslCertificate = "${certificate}";
        sslCertificateKey = "${certificate.key}";
        basicAuth.host = "password";
      };
    };
    script = ''
      start_all()
      mirror.wait_for_unit("nginx.service")
      host.wait_for_unit("nixos-pull.service")
      remember_system()

      mirror.succeed(PUBLISH)
      mirror.succeed("curl -k -w '%{http_code}' https://mirror/channels/stable/manifest.json | grep 401")
      # A start polls at once; the next poll would come after 15 minutes.
      host.systemctl("restart nixos-pull.service")
      wait_for_status(".committed.sequence == 1")
      host.succeed("grep 'the private one' /etc/release")
      # Nobody but root may look into the unit's credentials.
      host.fail("su nobody -s /bin/sh -c 'ls /run/credentials/nixos-pull.service/mirror-password'")
    '';
  };

  # Hosts download the package with every release that changes it, and once all it refers to.
  closureSize =
    pkgs.runCommand "nixos-pull-closure-size"
      {
        closure = pkgs.closureInfo { rootPaths = [ package ]; };
        limit = 320 * 1024 * 1024;
      }
      ''
        size=$(cat "$closure/total-nar-size")
        echo "$size bytes in $(wc -l <"$closure/store-paths") paths"
        if [ "$size" -gt "$limit" ]; then
          echo "expected at most $limit bytes; the paths are:"
          cat "$closure/store-paths"
          exit 1
        fi
        echo "$size" >"$out"
      '';
}
