import { EXIT } from "../../core/errors.ts";

/** How a new host gets its first release. Everything in it is public. */
export interface Bootstrap {
  /** The agent's configuration file, as JSON text. */
  readonly config: string;
  /** A shell script that root runs once. */
  readonly script: string;
  /** The same for cloud-init, as JSON, which is YAML too. */
  readonly userData: string;
}

/** Where the script keeps the configuration until the first system brings its own. */
const DIRECTORY = "/var/lib/nixos-pull-bootstrap";
const SCRIPT_FILE = `${DIRECTORY}/bootstrap`;

/** The bootstrap of one host. `settings` are those of its configuration file, parsed before. */
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
 * JSON has no line that is END_OF_CONFIG. A switch may stop the unit that started this script,
 * such as cloud-init, so under systemd the script continues in a unit of its own.
 */
const SCRIPT = `#!/bin/sh
# Made by \`nixos-pull bootstrap\`: updates this host to its first release. May be run again.
set -eu

directory=\${NIXOS_PULL_BOOTSTRAP:-${DIRECTORY}}
PATH=$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin
export PATH

if [ -d /run/systemd/system ] && [ -f "$0" ] && [ "\${1-}" != --here ]; then
  exec systemd-run --unit=nixos-pull-bootstrap --collect \\
    --setenv=PATH="$PATH" --setenv=NIXOS_PULL_BOOTSTRAP="$directory" /bin/sh "$(readlink -f "$0")" --here
fi

if ! command -v nixos-pull >/dev/null; then
  echo "this image has no nixos-pull; the README of nixos-pull says how to add it" >&2
  exit 1
fi

mkdir -p "$directory"
cat >"$directory/config.json.tmp" <<'END_OF_CONFIG'
CONFIG_TEXT
END_OF_CONFIG
mv "$directory/config.json.tmp" "$directory/config.json"
nixos-pull config --config "$directory/config.json"

# After the first boot, the network and the clock may not be ready yet.
tries=\${NIXOS_PULL_BOOTSTRAP_TRIES:-60}
while :; do
  status=0
  nixos-pull apply --config "$directory/config.json" || status=$?
  case $status in
    ${EXIT.ok} | ${EXIT.usage} | ${EXIT.configuration}) exit "$status" ;;
    ${EXIT.waiting})
      # The host's turn in the rollout comes later: that is no failed try.
      sleep "\${NIXOS_PULL_BOOTSTRAP_WAIT:-300}"
      continue
      ;;
  esac
  tries=$((tries - 1))
  if [ "$tries" -le 0 ]; then exit "$status"; fi
  sleep "\${NIXOS_PULL_BOOTSTRAP_DELAY:-30}"
done
`;
