/**
 * Every way in which nixos-pull can fail, as one closed list. The same codes
 * appear in messages, `status`, history and `--json` output, so an operator can
 * search for one and find one meaning.
 */

/** What a code means for the caller: the process exit code and whether trying again can help. */
interface ErrorKind {
  /** Process exit code; documented in agent/docs/errors.md. */
  readonly exit: number;
  /** True if the same attempt may succeed later without a change by a person. */
  readonly transient: boolean;
  /** One line for the documentation. */
  readonly meaning: string;
}

/** Process exit codes, by what the reader has to look at. */
export const EXIT = {
  ok: 0,
  internal: 1,
  usage: 2,
  configuration: 3,
  trust: 4,
  mirror: 5,
  archive: 6,
  host: 7,
  activation: 8,
  busy: 9,
  publish: 10,
  /** Nothing is wrong: the host's turn, window or confirmation has not come, or it is held. */
  waiting: 11,
  /** `publish --keep-going` only: the release was made, and hosts failed to build. */
  keptGoing: 12,
  /** `check --exit-code` only: an update would be applied now. */
  updateAvailable: 20,
  /** `fleet --exit-code` only: at least one host wants a person to look. */
  fleetTroubled: 21,
  /** `doctor` only: a check failed. */
  unwell: 22,
  /** `doctor` only: no check failed, and some could not be tried. */
  untried: 23,
  interrupted: 130,
} as const;

const kind = (exit: number, meaning: string, transient = false): ErrorKind => ({
  exit,
  meaning,
  transient,
});

export const ERROR_KINDS = {
  USAGE: kind(EXIT.usage, "the command line is not understood"),
  CONFIG_NOT_FOUND: kind(EXIT.configuration, "the configuration file does not exist"),
  CONFIG_INVALID: kind(EXIT.configuration, "a setting is missing, unknown or of the wrong form"),
  CREDENTIAL_UNREADABLE: kind(
    EXIT.configuration,
    "a credential or TLS file is not there, or has not what it must have",
    true,
  ),
  KEY_INVALID: kind(EXIT.configuration, "a key is not in Nix's name:base64 form"),

  ENVELOPE_INVALID: kind(EXIT.trust, "the manifest is not a DSSE envelope"),
  PAYLOAD_TYPE_WRONG: kind(EXIT.trust, "the envelope carries something other than a release"),
  SIGNATURE_THRESHOLD: kind(EXIT.trust, "fewer valid signatures by trusted keys than required"),
  KEY_REVOKED: kind(EXIT.trust, "enough signatures only if revoked keys were counted"),
  FORMAT_UNSUPPORTED: kind(EXIT.trust, "the format version is newer than this agent knows"),
  MANIFEST_INVALID: kind(EXIT.trust, "a signed manifest does not follow the format"),
  CHANNEL_MISMATCH: kind(EXIT.trust, "the manifest is of another channel"),
  SEQUENCE_REPLAYED: kind(EXIT.trust, "the manifest is older than one accepted before"),
  SEQUENCE_CONFLICT: kind(EXIT.trust, "two different manifests carry the same sequence number"),
  SEQUENCE_FORKED: kind(EXIT.trust, "a newer manifest does not come after the one accepted here"),
  EPOCH_IMPLAUSIBLE: kind(EXIT.trust, "the numbering was restarted more often than is believable"),
  MANIFEST_EXPIRED: kind(EXIT.trust, "the manifest's expiry time has passed", true),
  CLOCK_BEHIND: kind(EXIT.trust, "this host's clock is behind what it has already seen", true),
  CLOCK_IMPLAUSIBLE: kind(EXIT.trust, "the manifest was created in this host's future", true),
  AGENT_TOO_OLD: kind(EXIT.trust, "the release requires a feature that this agent lacks"),
  PLATFORM_MISMATCH: kind(EXIT.trust, "the system is for another kind of machine"),
  HOST_NOT_IN_RELEASE: kind(EXIT.trust, "the release names no system for this hostname"),
  REPORT_INVALID: kind(EXIT.trust, "a signed report does not follow the format"),
  HOSTNAME_MISMATCH: kind(EXIT.trust, "the system calls itself by another host's name"),
  MACHINE_MISMATCH: kind(EXIT.trust, "the release names another machine for this hostname"),
  RELEASE_COMMANDS: kind(EXIT.trust, "the release brings commands, which this host does not allow"),
  RELEASE_DENIED: kind(EXIT.activation, "this system failed here before and is not tried again"),

  MIRROR_STALE: kind(EXIT.mirror, "the release accepted here has expired, and none is newer", true),
  MIRROR_UNREACHABLE: kind(EXIT.mirror, "no connection to the mirror", true),
  MIRROR_ABSENT: kind(EXIT.mirror, "the mirror's directory is not there now: a stick, say", true),
  MIRROR_NOT_FOUND: kind(EXIT.mirror, "the mirror has no such file", true),
  MIRROR_STATUS: kind(
    EXIT.mirror,
    "an unexpected HTTP status, or a link or device in a directory",
    true,
  ),
  MIRROR_STALLED: kind(EXIT.mirror, "the mirror stopped sending", true),
  MIRROR_SLOW: kind(EXIT.mirror, "the mirror sends more slowly than the rate floor", true),
  MIRROR_TLS: kind(EXIT.mirror, "no trusted TLS connection: a certificate is wrong", true),
  MIRROR_REDIRECT: kind(EXIT.mirror, "too many redirects, or one to an insecure address", true),
  MIRROR_OVERSIZE: kind(EXIT.mirror, "the mirror sent more than the allowed size", true),

  ARCHIVE_TRUNCATED: kind(EXIT.archive, "the archive ends before its signed size", true),
  ARCHIVE_PARTIAL: kind(EXIT.archive, "a stick has only parts that other hosts lack", true),
  ARCHIVE_CORRUPT: kind(EXIT.archive, "bytes of the archive do not have their signed hash", true),
  ARCHIVE_MEMBER: kind(EXIT.archive, "a tar member is not the one the index demands", true),
  INDEX_INVALID: kind(EXIT.archive, "a signed archive index does not follow the format"),
  NARINFO_MISMATCH: kind(EXIT.archive, "a narinfo in the archive disagrees with the index", true),
  PATH_SIGNATURE: kind(EXIT.archive, "a store path lacks a signature by a trusted key"),
  IMPORT_FAILED: kind(EXIT.archive, "nix copy could not import the closure", true),

  DISK_FULL: kind(EXIT.host, "not enough free disk space", true),
  PERMISSION_DENIED: kind(EXIT.host, "a file or directory may not be read or written", true),
  IO_FAILED: kind(EXIT.host, "the operating system refused a file operation", true),
  TOOL_MISSING: kind(EXIT.host, "a program the agent needs is not on PATH", true),
  TOOL_TIMEOUT: kind(EXIT.host, "a program did not finish in its time limit", true),
  UNSAFE_FILE: kind(EXIT.host, "a link, a FIFO or a device lies where a plain file belongs"),
  STAGING_UNSAFE: kind(EXIT.host, "other users could write to the staging directory"),
  STATE_UNSAFE: kind(EXIT.host, "other users could write to the state or runtime directory"),
  STATE_CORRUPT: kind(EXIT.host, "a state file is damaged"),
  STATE_LOST: kind(EXIT.host, "the record of accepted releases is gone"),
  STATE_UNKNOWN: kind(
    EXIT.host,
    "another version of nixos-pull recorded something that this one does not know",
  ),
  STORE_DAMAGED: kind(EXIT.host, "store paths do not have the contents that they must have", true),
  PROFILE_FAILED: kind(EXIT.host, "nix-env could not set the system profile", true),

  NOT_A_SYSTEM: kind(EXIT.activation, "the closure has no bin/switch-to-configuration"),
  SPECIALISATION_MISSING: kind(EXIT.activation, "the system has no specialisation of that name"),
  ACTIVATION_FAILED: kind(EXIT.activation, "switch-to-configuration failed"),
  ACTIVATION_TIMEOUT: kind(EXIT.activation, "switch-to-configuration did not finish in time", true),
  ACTIVATION_INTERRUPTED: kind(
    EXIT.activation,
    "the activation was cut off before its result was known",
    true,
  ),
  SWITCH_REFUSED: kind(
    EXIT.activation,
    "a pre-switch check of the system refused, and nothing was touched",
  ),
  BOOT_REQUIRED: kind(
    EXIT.activation,
    "the system takes a boot, which the release's mode does not allow",
  ),
  BOOT_LOADER_FAILED: kind(EXIT.activation, "the boot loader could not be told what to boot", true),
  BOOT_TRIAL_FAILED: kind(
    EXIT.activation,
    "the system was started once, and the host came back with another one",
  ),
  BOOT_NOT_TRIED: kind(EXIT.activation, "the boot loader did not start the system once", true),
  BOOT_CALLED_OFF: kind(
    EXIT.activation,
    "the release that waited for a boot is no longer this host's",
  ),
  SWITCH_LOCKED: kind(EXIT.activation, "another switch-to-configuration holds the lock", true),
  HEALTH_FAILED: kind(EXIT.activation, "the new system did not prove healthy"),
  HEALTH_UNBLAMED: kind(EXIT.activation, "units failed that the release did not change", true),
  HEALTH_MIRROR: kind(EXIT.activation, "the new system could not read a release", true),
  CHANGED_BY_HAND: kind(
    EXIT.activation,
    "somebody switched this host to another system while a release was under way",
  ),
  DEADLINE_PASSED: kind(EXIT.activation, "the release was not committed before its deadline", true),
  RESTART_LOOP: kind(
    EXIT.activation,
    "the agent was ended again and again in one activation",
    true,
  ),
  REBOOT_LOOP: kind(EXIT.activation, "reboots that the agent asked for did not come"),
  REBOOT_BLOCKED: kind(EXIT.waiting, "somebody keeps this host from rebooting now", true),
  REBOOT_REFUSED: kind(EXIT.waiting, "the FleetLock server gives no reboot slot now", true),
  ROLLBACK_FAILED: kind(EXIT.activation, "the previous system could not be restored", true),
  NOTHING_TO_ROLL_BACK: kind(EXIT.activation, "there is no previous system"),
  NOTHING_TO_CONFIRM: kind(EXIT.activation, "that release does not wait for a confirmation here"),
  HOOK_FAILED: kind(EXIT.host, "a hook of this host failed or did not finish in time", true),

  AGENT_HUNG: kind(EXIT.busy, "the service gave no sign of life, and systemd restarted it", true),
  AGENT_RUNNING: kind(EXIT.busy, "another agent already runs with this state directory", true),
  AGENT_BUSY: kind(EXIT.busy, "an update is in progress", true),

  BUILD_FAILED: kind(EXIT.publish, "Nix could not build a system"),
  PUBLISH_FAILED: kind(EXIT.publish, "the release could not be put together"),
  RELEASE_BEHIND: kind(
    EXIT.publish,
    "a newer release was signed before than the mirror or draft has",
  ),
  RELEASE_FORKED: kind(EXIT.publish, "what was signed before and the mirror or draft disagree"),
  SIGNER_FAILED: kind(EXIT.publish, "an external signer gave no valid signature"),
  OPTION_UNKNOWN: kind(EXIT.usage, "a host's configuration has no such option"),
  OPTION_UNDEFINED: kind(EXIT.configuration, "an option has neither a definition nor a default"),
  AGENT_MISSING: kind(
    EXIT.publish,
    "a system has no nixos-pull, so that its host would follow no later release",
  ),
  SECRET_IN_CLOSURE: kind(EXIT.publish, "a system to be published holds a private key"),
  PUBLISH_LOCKED: kind(EXIT.publish, "another publish writes to this mirror", true),

  INTERRUPTED: kind(EXIT.interrupted, "stopped by a signal", true),
  INTERNAL: kind(EXIT.internal, "a defect in nixos-pull"),
} as const satisfies Record<string, ErrorKind>;

/** A stable reason code. */
export type ErrorCode = keyof typeof ERROR_KINDS;

export const ERROR_CODES = Object.keys(ERROR_KINDS) as [ErrorCode, ...ErrorCode[]];

/** Whether this version has the code: what lies on disk may be another version's. */
export function isErrorCode(code: string | undefined): code is ErrorCode {
  return code !== undefined && Object.hasOwn(ERROR_KINDS, code);
}

/**
 * The one error class of the project. `message` says what was expected and what
 * was found; the cause is kept for the log.
 */
export class PullError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "PullError";
    this.code = code;
  }

  /** Whether the same attempt may succeed later by itself. */
  get transient(): boolean {
    return ERROR_KINDS[this.code].transient;
  }

  get exitCode(): number {
    return ERROR_KINDS[this.code].exit;
  }
}

/** Operating system error numbers that have a code of their own (errno(3)). */
const ERRNO_CODES: Record<string, ErrorCode> = {
  ENOSPC: "DISK_FULL",
  EDQUOT: "DISK_FULL",
  EACCES: "PERMISSION_DENIED",
  EPERM: "PERMISSION_DENIED",
  EROFS: "PERMISSION_DENIED",
};

/** Gives any thrown value as a PullError; unknown ones become INTERNAL with the cause kept. */
export function toPullError(thrown: unknown): PullError {
  if (thrown instanceof PullError) return thrown;
  if (thrown instanceof Error) {
    if (thrown.name === "AbortError") {
      return new PullError("INTERRUPTED", "stopped before it was finished", { cause: thrown });
    }
    const errno = (thrown as NodeJS.ErrnoException).code;
    const isSystemError = typeof (thrown as NodeJS.ErrnoException).syscall === "string";
    if (errno !== undefined && isSystemError) {
      return new PullError(ERRNO_CODES[errno] ?? "IO_FAILED", thrown.message, { cause: thrown });
    }
    return new PullError("INTERNAL", thrown.message, { cause: thrown });
  }
  return new PullError("INTERNAL", String(thrown));
}
