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
 * JSON has no line that is END_OF_CONFIG. What is wrong with the image or the configuration is said at
 * once, to who runs the script. A switch may stop the unit that started it, such as cloud-init, so under
 * systemd the rest runs in a unit of its own.
 */
const SCRIPT = `#!/bin/sh
# Made by \`nixos-pull bootstrap\`: updates this host to its first release. May be run again.
set -eu

directory=\${NIXOS_PULL_BOOTSTRAP:-${DIRECTORY}}
PATH=$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin
export PATH

if ! command -v nixos-pull >/dev/null; then
  echo "this image has no nixos-pull: add its package to environment.systemPackages of the image" >&2
  exit 1
fi

mkdir -p "$directory"
cat >"$directory/config.json.tmp" <<'END_OF_CONFIG'
CONFIG_TEXT
END_OF_CONFIG
mv "$directory/config.json.tmp" "$directory/config.json"
nixos-pull config --config "$directory/config.json"

if [ -d /run/systemd/system ] && [ -f "$0" ] && [ "\${1-}" != --here ]; then
  if systemctl is-active --quiet nixos-pull-bootstrap.service; then
    echo "nixos-pull-bootstrap.service is at work already"
  else
    systemd-run --unit=nixos-pull-bootstrap --collect \\
      --setenv=PATH="$PATH" --setenv=NIXOS_PULL_BOOTSTRAP="$directory" /bin/sh "$(readlink -f "$0")" --here
  fi
  echo "\\\`journalctl --follow --unit nixos-pull-bootstrap\\\` shows what it does"
  exit 0
fi

# After the first boot, the network and the clock may not be ready yet.
tries=\${NIXOS_PULL_BOOTSTRAP_TRIES:-60}
delay=\${NIXOS_PULL_BOOTSTRAP_DELAY:-30}
wait=\${NIXOS_PULL_BOOTSTRAP_WAIT:-300}
while :; do
  status=0
  nixos-pull apply --config "$directory/config.json" || status=$?
  case $status in
    ${EXIT.ok} | ${EXIT.usage} | ${EXIT.configuration}) exit "$status" ;;
    ${EXIT.waiting})
      # The host's turn in the rollout comes later: that is no failed try.
      echo "this host has to wait; the next try is in $wait s"
      sleep "$wait"
      continue
      ;;
  esac
  tries=$((tries - 1))
  if [ "$tries" -le 0 ]; then
    echo "gave up: nixos-pull apply ended with exit code $status; run $0 to try again" >&2
    exit "$status"
  fi
  echo "nixos-pull apply ended with exit code $status; the next try is in $delay s, $tries left"
  sleep "$delay"
done
`;
