import type { ErrorCode } from "../errors.ts";

const CLOCK = "set the clock (`timedatectl`), and see to it that a time server keeps it right";
const SIGNATURES =
  "compare publicKeys, threshold and revokedKeys of this host with the key that signs releases";
const MIRROR = "on the operator's machine: `nixos-pull verify MIRROR`, and upload it again";
const NAMES =
  "on the operator's machine: `nixos-pull release show -m MIRROR` names all hosts; publish one for this host";
const DISK =
  "delete old generations (`nix-env --profile /nix/var/nix/profiles/system --delete-generations " +
  "+2`), then run `nix-collect-garbage`";

/** What helps against an error, in a sentence without its end. */
const ADVICE: Partial<Record<ErrorCode, string>> = {
  CONFIG_NOT_FOUND: "enable services.nixos-pull, which writes the file, or give --config FILE",
  CONFIG_INVALID: "correct the setting; agent/docs/configuration.md has all of them",
  CREDENTIAL_UNREADABLE:
    "create the file that the message names, or correct the settings credentials and tls",
  SIGNATURE_THRESHOLD: SIGNATURES,
  KEY_REVOKED: SIGNATURES,
  ENVELOPE_INVALID: "look at what the mirror serves as manifest.json; a login page, say",
  PAYLOAD_TYPE_WRONG: MIRROR,
  MANIFEST_INVALID: MIRROR,
  CHANNEL_MISMATCH: "correct the setting channel, or what was uploaded there",
  SEQUENCE_REPLAYED: "find out who restored or changed the mirror, and upload the newest release",
  SEQUENCE_CONFLICT: "find out who restored or changed the mirror, and publish another release",
  SEQUENCE_FORKED: "find out who restored or changed the mirror, and publish with a new epoch",
  MANIFEST_EXPIRED: "on the operator's machine: `nixos-pull publish --refresh`, then upload",
  MIRROR_STALE: "on the operator's machine: `nixos-pull publish --refresh`, then upload",
  CLOCK_BEHIND: CLOCK,
  CLOCK_IMPLAUSIBLE: CLOCK,
  AGENT_TOO_OLD: "publish a release with the newer agent that requires less",
  FORMAT_UNSUPPORTED: "publish a release with the newer agent that requires less",
  PLATFORM_MISMATCH: "build this host's configuration for its own platform, and publish again",
  HOST_NOT_IN_RELEASE: NAMES,
  MACHINE_MISMATCH: NAMES,
  RELEASE_COMMANDS: "publish without commands, or set health.releaseCommands on this host",
  RELEASE_DENIED: "`nixos-pull history` says why it failed; then `nixos-pull apply --again`",
  MIRROR_UNREACHABLE: "look at the network, the firewall and the server",
  MIRROR_ABSENT: "plug the stick in, or mount the directory",
  MIRROR_NOT_FOUND: "correct the setting mirrors or channel, or upload the mirror",
  MIRROR_STATUS: "look at the server's log and at its configuration",
  MIRROR_STALLED: "look at the load of the server and at the network",
  MIRROR_SLOW: "look at the load of the server and at the network",
  MIRROR_REDIRECT: "have the server answer by itself, or redirect to https:// in the same network",
  ARCHIVE_TRUNCATED: MIRROR,
  ARCHIVE_CORRUPT: MIRROR,
  ARCHIVE_MEMBER: MIRROR,
  INDEX_INVALID: MIRROR,
  NARINFO_MISMATCH: MIRROR,
  ARCHIVE_PARTIAL: "fill the stick for this host: `nixos-pull mirror`",
  PATH_SIGNATURE: "set storeKeys to the key that signs store paths, or publish with that key",
  DISK_FULL: DISK,
  PERMISSION_DENIED: "look at the owner and the mode of what the message names",
  TOOL_MISSING: "put the program on the PATH of the agent's unit",
  TOOL_TIMEOUT: "look for a stuck disk or daemon: `journalctl -b -p warning`",
  STATE_UNSAFE: "`chown root:root` and `chmod 700` the directory, and find out who changed it",
  STATE_CORRUPT: "look at the disk; the next `nixos-pull apply` writes the file again",
  STATE_LOST: "find out who removed it; if `apply` stops, `nixos-pull apply --accept-state-loss`",
  STATE_UNKNOWN: "bring the later nixos-pull back",
  AGENT_HUNG: "`journalctl -u nixos-pull` before that time",
  STORE_DAMAGED: "`nixos-pull repair`",
};

/** What a person should do about an error. */
export function adviceFor(code: ErrorCode): string {
  return ADVICE[code] ?? `look ${code} up in agent/docs/errors.md`;
}
