import { nixName, nixString } from "../../core/publish/nix-text.ts";

/** What `nixos-pull init` writes: a repository from which a fleet is published. */
export interface StartingRepository {
  readonly hosts: readonly string[];
  readonly mirrors: readonly string[];
  /** A flake with its lock file instead of `nixos.nix` with pins. */
  readonly flake: boolean;
}

/** A file of the repository, by its path in it. */
export interface StartingFile {
  readonly path: string;
  readonly text: string;
  readonly executable: boolean;
}

/** The files of a repository, in the order in which a person would read them. */
export function startingFiles(repository: StartingRepository): StartingFile[] {
  const plain = (path: string, text: string): StartingFile => ({ path, text, executable: false });
  const script = (path: string, text: string): StartingFile => ({ path, text, executable: true });
  const { hosts, flake } = repository;
  const [first = ""] = hosts;
  return [
    plain("README.md", readMe(repository, first)),
    ...(flake
      ? [plain("flake.nix", FLAKE), plain("hosts.json", hostsJson(hosts))]
      : [
          plain("nixos.nix", NIXOS),
          plain("hosts.nix", HOSTS),
          plain("pins/nixpkgs.json", NO_PIN),
          plain("pins/nixos-pull.json", NO_PIN),
          script("pin", PIN),
        ]),
    plain("common.nix", commonModule(repository)),
    ...hosts.flatMap((hostname) => [
      plain(`hosts/${hostname}.nix`, hostModule(hostname)),
      plain(`hardware/${hostname}.nix`, HARDWARE),
    ]),
    plain(".gitignore", GIT_IGNORE),
    plain("keys/.gitignore", "*.secret\n"),
    script("publish", publishScript(flake)),
    script("upload", UPLOAD),
    plain(".github/workflows/publish.yml", workflow(flake, first)),
  ];
}

/** A URL of nothing: `./pin` replaces it. */
const NO_PIN = '{ "url": "", "sha256": "" }\n';

/** Every file in hosts/ is a host. */
const HOSTS_OF_DIRECTORY = `builtins.listToAttrs (
    map (file: {
      name = builtins.head (builtins.match "(.*)\\\\.nix" file);
      value = ./hosts + "/\${file}";
    }) (builtins.filter (file: builtins.match ".*\\\\.nix" file != null) (builtins.attrNames (builtins.readDir ./hosts)))
  )`;

const NODE_MODULES_HASH = `# Of nixos-pull's dependencies. The first build fails and says what belongs here.
  nodeModulesHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";`;

/** Modules of every host, whose \`pkgs\` is the module system's own. */
const MODULES = (agent: string): string => `[
          "\${nixos-pull}/nixos-module"
          (
            { lib, pkgs, ... }:
            {
              # Releases name the host in full; the machine's own name has no dots.
              services.nixos-pull.settings.hostname = lib.mkDefault hostname;
              networking.hostName = lib.mkDefault (builtins.head (builtins.match "([^.]*).*" hostname));
              services.nixos-pull.package = lib.mkDefault (
                pkgs.callPackage "\${nixos-pull}/nixos-module/package.nix" { ${agent} }
              );
            }
          )
          ./common.nix
          configuration
        ]`;

const NIXOS = `# The systems of all hosts: \`nix-build nixos.nix -A web1.system\`.
#
# All of it comes from this directory and what is pinned in pins/. NIX_PATH, channels and the
# environment have no say, so every machine builds the same. \`pkgs\` comes from the module
# system: a module that wants it is a function, \`{ pkgs, ... }: { … }\`.
let
  fetch =
    name:
    let
      pin = builtins.fromJSON (builtins.readFile (./pins + "/\${name}.json"));
    in
    if pin.sha256 == "" then
      throw "\${name} is not pinned yet: run ./pin \${name} URL (README.md says which)"
    else
      builtins.fetchTarball { inherit (pin) url sha256; };

  nixpkgs = fetch "nixpkgs";
  nixos-pull = fetch "nixos-pull";

  ${NODE_MODULES_HASH}

  hosts = ${HOSTS_OF_DIRECTORY};

  evaluate =
    hostname: configuration:
    let
      nixos = import "\${nixpkgs}/nixos/lib/eval-config.nix" {
        # The host says what machine it is (nixpkgs.hostPlatform), not the one that builds.
        system = null;
        # The default reads an environment variable.
        extraModules = [ ];
        modules = ${MODULES("inherit nodeModulesHash;")};
      };
    in
    {
      inherit (nixos) config options pkgs;
      system = nixos.config.system.build.toplevel;
    };
in
builtins.mapAttrs evaluate hosts
`;

const HOSTS = `# What \`nixos-pull publish --hosts hosts.nix\` publishes. A host may have more beside its
# system: \`activation.mode = "boot"\`, or the \`machineId\` of the one machine that may take it.
builtins.mapAttrs (hostname: host: { inherit (host) system; }) (import ./nixos.nix)
`;

const FLAKE = `{
  description = "A fleet of NixOS hosts that pull their releases";

  inputs = {
    # The branch that \`nix flake update\` follows; flake.lock pins a commit of it.
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.05";
    # Where your nixos-pull comes from.
    nixos-pull.url = "git+https://git.example.org/nixos-pull";
  };

  outputs =
    { nixpkgs, nixos-pull, ... }:
    let
      ${NODE_MODULES_HASH.replace("\n", "\n    ")}

      hosts = ${HOSTS_OF_DIRECTORY.replaceAll("\n", "\n    ")};

      evaluate =
        hostname: configuration:
        nixpkgs.lib.nixosSystem {
          modules = ${MODULES("inherit nodeModulesHash;").replaceAll("\n", "\n  ")};
        };
    in
    {
      nixosConfigurations = builtins.mapAttrs evaluate hosts;
    };
}
`;

function hostsJson(hosts: readonly string[]): string {
  const sources = Object.fromEntries(hosts.map((hostname) => [hostname, `.#${hostname}`]));
  return `${JSON.stringify(sources, null, 2)}\n`;
}

function commonModule({ mirrors }: StartingRepository): string {
  return `# What all hosts are.
{ lib, ... }:
{
  services.nixos-pull = {
    enable = true;
    settings = {
      mirrors = [
${mirrors.map((mirror) => `        ${nixString(mirror)}`).join("\n")}
      ];
      # Every public key in keys/. A host trusts these and nothing else.
      publicKeys = map (file: lib.removeSuffix "\\n" (builtins.readFile (./keys + "/\${file}"))) (
        builtins.filter (lib.hasSuffix ".public") (builtins.attrNames (builtins.readDir ./keys))
      );
    };
  };

  networking.firewall.allowedTCPPorts = [ ];
}
`;
}

function hostModule(hostname: string): string {
  return `# What ${hostname} alone is.
{ pkgs, ... }:
{
  imports = [ ../hardware/${hostname}.nix ];

  environment.systemPackages = [ pkgs.curl ];

  # The NixOS release that this host was first installed with. It stays when nixpkgs moves on.
  system.stateVersion = "25.05";
}
`;
}

const HARDWARE = `# Replace this by what \`nixos-generate-config --show-hardware-config\` prints on the host, and
# keep the boot loader.
{
  nixpkgs.hostPlatform = "x86_64-linux";

  boot.loader.grub.device = "/dev/sda";

  fileSystems."/" = {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };
}
`;

const GIT_IGNORE = `# Secret keys stay where releases are signed.
*.secret
/mirror
/result
/result-*
`;

const PIN = `#!/bin/sh
# Pins what nixos.nix is built from: downloads the archive once, writes address and hash.
#   ./pin nixpkgs https://github.com/NixOS/nixpkgs/archive/COMMIT.tar.gz
set -eu

if [ $# -ne 2 ]; then
  echo "usage: $0 nixpkgs|nixos-pull URL" >&2
  exit 2
fi
case $1 in
  nixpkgs | nixos-pull) ;;
  *)
    echo "$0: expected nixpkgs or nixos-pull, found $1" >&2
    exit 2
    ;;
esac
case $2 in
  *[!A-Za-z0-9:/._~%?=\\&+@,-]*)
    echo "$0: expected a URL, found $2" >&2
    exit 2
    ;;
esac

file=$(dirname "$0")/pins/$1.json
sha256=$(nix-prefetch-url --unpack "$2")
printf '{ "url": "%s", "sha256": "%s" }\\n' "$2" "$sha256" >"$file.tmp"
mv "$file.tmp" "$file"
echo "pinned $1: $sha256"
`;

function publishScript(flake: boolean): string {
  return `#!/usr/bin/env bash
# Publishes every host from a clean checkout: ./publish KEY_FILE [further options of publish].
# The mirror is the directory $MIRROR, ./mirror where that is not set.
set -euo pipefail
cd "$(dirname "$0")"

if [ $# -lt 1 ]; then
  echo "usage: $0 KEY_FILE [OPTION…]" >&2
  exit 2
fi
key=$1
shift
mirror=\${MIRROR:-mirror}

# What is published can be found again: it is a commit, and nothing else.
changes=$(git status --porcelain)
if [ -n "$changes" ]; then
  printf 'not a clean checkout; commit this first:\\n%s\\n' "$changes" >&2
  exit 1
fi
unset NIX_PATH

nixos-pull publish --mirror "$mirror" --key "$key" --hosts ${flake ? "hosts.json" : "hosts.nix"} "$@"

trusted=()
for file in keys/*.public; do
  trusted+=(--public-key "$(cat "$file")")
done
nixos-pull verify "$mirror" "\${trusted[@]}"
`;
}

const UPLOAD = `#!/usr/bin/env bash
# Brings a mirror directory to where it is served, so that hosts see the old release or the new
# one and never half of one: archives first, then the manifests, and only then what was pruned.
#   ./upload rsync web@releases.example.org:/srv/mirror
#   ./upload rclone REMOTE:BUCKET/PATH
# The mirror is the directory $MIRROR, ./mirror where that is not set.
set -euo pipefail
cd "$(dirname "$0")"

if [ $# -ne 2 ]; then
  echo "usage: $0 rsync|rclone DESTINATION" >&2
  exit 2
fi
mirror=\${MIRROR:-mirror}
destination=\${2%/}

# Without releases the last step would empty the destination.
for part in archives channels; do
  if [ ! -d "$mirror/$part" ]; then
    echo "expected a mirror with $part/ at $mirror" >&2
    exit 1
  fi
done

case $1 in
  rsync)
    rsync --recursive --times --chmod=D755,F644 --size-only --delay-updates \\
      "$mirror/archives" "$destination/"
    rsync --recursive --times --chmod=D755,F644 --checksum --delay-updates \\
      "$mirror/channels" "$destination/"
    rsync --recursive --times --chmod=D755,F644 --size-only --delete-after \\
      "$mirror/archives" "$destination/"
    ;;
  rclone)
    # An archive's name is its hash: it never changes, and may be cached for ever.
    rclone copy --size-only --header-upload "Cache-Control: public, max-age=31536000, immutable" \\
      "$mirror/archives" "$destination/archives"
    rclone copy --ignore-times --header-upload "Cache-Control: no-cache" \\
      "$mirror/channels" "$destination/channels"
    rclone sync --size-only "$mirror/archives" "$destination/archives"
    ;;
  *)
    echo "expected rsync or rclone, found $1" >&2
    exit 2
    ;;
esac
`;

function workflow(flake: boolean, host: string): string {
  const package_ = flake
    ? `nix build --no-link --print-out-paths '.#nixosConfigurations.${nixName(host)}.config.services.nixos-pull.package'`
    : `nix-build --no-out-link nixos.nix -A '${nixName(host)}.config.services.nixos-pull.package'`;
  return `# An example: publishes each commit of main from a clean checkout.
#
# Secrets: NIXOS_PULL_KEY (the text of keys/NAME.secret) and RCLONE_CONFIG_TEXT (rclone's
# configuration, with a remote "mirror"). Who can change this repository's main or its secrets
# decides what hosts run. If that is too many, let CI publish with --unsigned and sign elsewhere.
name: publish
on:
  push:
    branches: [main]
concurrency: publish
permissions:
  contents: read
jobs:
  publish:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: cachix/install-nix-action@v31
      - name: Get nixos-pull, as the hosts have it
        run: echo "$(${package_})/bin" >> "$GITHUB_PATH"
      - name: Get rclone and the mirror as it is
        env:
          RCLONE_CONFIG_TEXT: \${{ secrets.RCLONE_CONFIG_TEXT }}
        run: |
          sudo apt-get update && sudo apt-get install --yes rclone zstd
          install -D -m 600 /dev/null ~/.config/rclone/rclone.conf
          printf '%s\\n' "$RCLONE_CONFIG_TEXT" > ~/.config/rclone/rclone.conf
          rclone copy mirror:releases mirror
      - name: Publish
        env:
          NIXOS_PULL_KEY: \${{ secrets.NIXOS_PULL_KEY }}
        run: |
          install -m 600 /dev/null "$RUNNER_TEMP/key"
          printf '%s' "$NIXOS_PULL_KEY" > "$RUNNER_TEMP/key"
          ./publish "$RUNNER_TEMP/key"
      - name: Upload
        run: ./upload rclone mirror:releases
`;
}

function readMe({ flake }: StartingRepository, host: string): string {
  const inputs = flake
    ? `1. In \`flake.nix\`, say which nixpkgs and which nixos-pull; \`nix flake lock\` pins them. A flake sees
   only files that git knows: \`git add\` first.`
    : `1. Pin what systems are built from, by commits of your choice:

   \`\`\`console
   $ ./pin nixpkgs https://github.com/NixOS/nixpkgs/archive/COMMIT.tar.gz
   $ ./pin nixos-pull https://git.example.org/nixos-pull/archive/COMMIT.tar.gz
   \`\`\`
`;
  const build = flake
    ? `nix build '.#nixosConfigurations.${nixName(host)}.config.system.build.toplevel'`
    : `nix-build nixos.nix -A '${nixName(host)}.system'`;
  const nixFile = flake ? "flake.nix" : "nixos.nix";
  return `# Our hosts

Published with nixos-pull. What is here:

| file                            | what                                                      |
| ------------------------------- | --------------------------------------------------------- |
| \`${nixFile}\`                     | makes the systems; every file in \`hosts/\` is a host       |
| \`common.nix\`                    | what all hosts are                                        |
| \`hosts/NAME.nix\`                | what one host is                                          |
| \`hardware/NAME.nix\`             | its disks and boot loader                                 |
| \`keys/NAME.public\`              | the keys that hosts trust                                 |
| \`publish\`, \`upload\`             | a release from a clean checkout, and the mirror's way out |
| \`.github/workflows/publish.yml\` | the same in CI, as an example                             |

## Once

${inputs}
2. Make the key that signs. Its secret half never comes into this repository; move it to where you
   publish from, and keep a copy that is not on a network.

   \`\`\`console
   $ nixos-pull keygen fleet-1 --out keys/fleet-1
   $ mv keys/fleet-1.secret ~/fleet-1.secret
   \`\`\`

3. Replace \`hardware/${host}.nix\` by what the host itself says, then build. The first build fails and
   says the hash that belongs into \`nodeModulesHash\` of \`${nixFile}\`.

   \`\`\`console
   $ ${build}
   \`\`\`

4. Install the host once: \`nixos-pull bootstrap\` makes what a provisioner or cloud-init wants.

## Each time

\`\`\`console
$ git commit --all
$ ./publish ~/fleet-1.secret
$ ./upload rsync web@releases.example.org:/srv/mirror
\`\`\`

\`nixos-pull option networking.firewall.allowedTCPPorts\` shows what an option is, on every host.
`;
}
