/** How a fresh host comes to its first release. Everything in it is public. */
export interface Bootstrap {
  /** The agent's configuration file, as JSON text. */
  readonly config: string;
  /** A shell script that root runs once. */
  readonly script: string;
  /** The same for cloud-init: YAML, of which JSON is a part. */
  readonly userData: string;
}

/** Where the script keeps the configuration until the first system brings its own. */
const DIRECTORY = "/var/lib/nixos-pull-bootstrap";
const SCRIPT_FILE = `${DIRECTORY}/bootstrap`;

/** The bootstrap of one host; `settings` are those of its configuration file, checked. */
export function bootstrapOf(settings: Readonly<Record<string, unknown>>): Bootstrap {
  const config = `${JSON.stringify(settings, null, 2)}\n`;
  const script = SCRIPT.replace("CONFIG_TEXT\n", () => config);
  const userData = {
    write_files: [{ path: SCRIPT_FILE, permissions: "0755", content: script }],
    runcmd: [["/bin/sh", SCRIPT_FILE]],
  };
  return { config, script, userData: `#cloud-config\n${JSON.stringify(userData, null, 2)}\n` };
}

/**
 * No line of JSON is the mark that ends the configuration. A switch may end whatever
 * started this, cloud-init for one, so under systemd it goes on in a unit of its own.
 */
const SCRIPT = `#!/bin/sh
# Made by \`nixos-pull bootstrap\`: brings this host to its first release. It may be repeated.
set -eu

directory=\${NIXOS_PULL_BOOTSTRAP:-${DIRECTORY}}
PATH=$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin
export PATH

if [ -d /run/systemd/system ] && [ -f "$0" ] && [ "\${1-}" != --here ]; then
  exec systemd-run --unit=nixos-pull-bootstrap --collect \\
    --setenv=PATH="$PATH" --setenv=NIXOS_PULL_BOOTSTRAP="$directory" /bin/sh "$(readlink -f "$0")" --here
fi

if ! command -v nixos-pull >/dev/null; then
  echo "nixos-pull is not on this image; its README says how it gets there" >&2
  exit 1
fi

mkdir -p "$directory"
cat >"$directory/config.json.tmp" <<'END_OF_CONFIG'
CONFIG_TEXT
END_OF_CONFIG
mv "$directory/config.json.tmp" "$directory/config.json"
nixos-pull config --config "$directory/config.json"

# The network and the clock may need a while after the first boot.
tries=\${NIXOS_PULL_BOOTSTRAP_TRIES:-60}
while :; do
  status=0
  nixos-pull apply --config "$directory/config.json" || status=$?
  tries=$((tries - 1))
  case $status in
    0 | 2 | 3) exit "$status" ;;
  esac
  if [ "$tries" -le 0 ]; then exit "$status"; fi
  sleep "\${NIXOS_PULL_BOOTSTRAP_DELAY:-30}"
done
`;
