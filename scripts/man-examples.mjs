// The examples of the manual pages. They are one story, which a test runs from the beginning to the
// end (test/integration/documents): an operator publishes and changes releases, then a host follows.

const MIRROR = "--mirror /srv/mirror";
const SIGNED = `${MIRROR} --key fleet-1.secret`;
const TRUSTED = '--public-key "$(cat fleet-1.public)"';

const example = (page, does, command) => ({
  page,
  does,
  command: `nixos-pull ${page} ${command}`.trim(),
});

export const EXAMPLES = [
  example("keygen", "Make the key pair fleet-1.secret and fleet-1.public:", "fleet-1"),
  example(
    "init",
    "Write a repository for two hosts:",
    "fleet --host web1 --host db1 --mirror https://releases.example.org",
  ),
  example(
    "option",
    "Show what the hosts' configuration says of their firewall:",
    "networking.firewall.allowedTCPPorts --file fleet/nixos.nix",
  ),
  example(
    "bootstrap",
    "Make cloud-init user data for a fresh host:",
    `--hostname web1 --mirror https://releases.example.org ${TRUSTED} > web1.yaml`,
  ),
  example(
    "publish",
    "Build the system of web1 and publish it:",
    `${SIGNED} --host web1=./nixos.nix#system`,
  ),
  example(
    "publish",
    "The same, with web1 first and all other hosts two hours later:",
    `${SIGNED} --host web1=./nixos.nix#system --host db1=./db1.nix#system --canary web1 --waves 100%=2h`,
  ),
  example("publish", "Give the release in force a new expiry:", `${SIGNED} --refresh`),
  example(
    "verify",
    "Read every byte of a mirror and compare it with what was signed:",
    `/srv/mirror ${TRUSTED}`,
  ),
  example(
    "release show",
    "Show the release in force, with the turn of each host:",
    `${MIRROR} ${TRUSTED}`,
  ),
  example("release diff", "Show what the release in force changed:", `${MIRROR} ${TRUSTED}`),
  example("release pause", "Let no more hosts begin:", `"disks fill up" ${SIGNED}`),
  example("release resume", "Go on where the rollout was paused:", SIGNED),
  example(
    "release edit",
    "Keep db1 out of it until further notice:",
    `${SIGNED} --hold "db1=it is mended"`,
  ),
  example("release edit", "End the rollout: all others may go at once:", `${SIGNED} --everyone`),
  example(
    "release promote",
    "Make the release of stable the next one of beta:",
    `${SIGNED} --from stable --to beta`,
  ),
  example("release abort", "Give every host the system that it had before:", SIGNED),
  example(
    "sign",
    "Add a signature to a draft, and see what it would change:",
    "release.json --key fleet-1.secret --against /srv/mirror",
  ),
  example(
    "prune",
    "See which archives the last three releases do not need:",
    "/srv/mirror --keep 3 --dry-run",
  ),
  example("mirror", "Copy all releases to a stick:", `/srv/mirror /mnt/stick ${TRUSTED}`),
  example("check", "Say what would happen now:", ""),
  example("confirm", "Allow the release that waits:", ""),
  example("apply", "Poll and apply the release now:", ""),
  example("status", "Show what this host is:", ""),
  example("doctor", "Try everything that this host needs for its updates:", ""),
  example("config", "Check the configuration:", ""),
  example("history", "Show what happened:", ""),
  example(
    "report",
    "Note the key that this host signs its reports with:",
    "--public-key >> hosts.keys",
  ),
  example("report", "Write a signed report:", "--out /srv/reports/web1.json"),
  example(
    "fleet",
    "Show what all hosts report:",
    `/srv/reports --keys hosts.keys --manifest /srv/mirror ${TRUSTED}`,
  ),
  example(
    "hold",
    "Keep this host as it is for three days:",
    '--for 3d --reason "trade fair, ask Ada"',
  ),
  example("unhold", "End the hold:", ""),
  example("repair", "Look for damaged files, and change nothing:", "--dry-run"),
  example("rollback", "Go back to the generation before:", ""),
  example("run", "Follow releases until it is stopped, as the service does:", ""),
  example("completion", "Write the completions of bash:", "bash > nixos-pull.bash"),
];
