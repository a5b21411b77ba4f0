import type { ErrorCode } from "../errors.ts";

/** What `doctor` tries, by its stable id: what is expected each time. Their order is that of the output. */
export const CHECKS = {
  "configuration.file": "a configuration file that is valid",

  "mirror.directory": "the directory of the mirror",
  "mirror.name": "an address for the name of the server, or of its proxy",
  "mirror.connection": "a server that accepts connections",
  "mirror.tls":
    "a certificate that is valid now, for this name, by an authority that this host knows",
  "mirror.answer":
    "an answer to a request for the manifest, in time, with the credentials accepted",
  "mirror.manifest": "a manifest that this host may follow",
  "mirror.archive": "the archive with this host's system",
  "mirror.ranges": "a server that can send parts of a file",
  "mirror.any": "at least one mirror with a manifest that this host may follow",

  "clock.synchronised": "a clock that a time server sets",
  "clock.mirror": "the time that the mirror has",
  "clock.release": "a release that is neither from the future nor expired",

  "keys.trusted": "enough trusted keys that are not revoked",
  "keys.release": "enough signatures by trusted keys under the release",
  "keys.store": "store paths that are signed by a key of storeKeys",

  "release.agent": "a release that this agent understands",
  "release.host": "an entry for this host in the release",
  "release.platform": "a system for this kind of machine",
  "release.commands": "no commands that this host does not allow",
  "release.name": "systems that have the name of this host",
  "release.decision": "a release that this host follows, now or later",
  "release.closure": "a system that can be brought in, with room for it",

  "store.nix": "a Nix that this agent can use",
  "store.trust": "an import that Nix accepts",
  "store.profile": "a system profile that Nix knows",
  "store.running": "a running system that Nix knows",
  "store.way-back": "another system to go back to",

  "units.agent": "the agent's service, loaded, enabled and active",
  "units.watchdog": "a watchdog that ends an agent that hangs",
  "units.boot-deadline": "the timer that goes back if no agent judges a boot",
  "units.boot-complete": "the unit that gives the agent's verdict to the boot loader",
  "units.deadline": "no deadline that failed",
  "units.switch": "no switch that failed",

  "files.state": "a state directory that is this host's alone",
  "files.runtime": "a directory for the copy of the state that is this host's alone",
  "files.record": "a record of the state that is whole",
  "files.credential": "a secret that only its owner can read",
  "files.tls": "certificates and keys that can be read",

  "disk.writable": "a file system that can be written to",
  "disk.space": "room for an update",
  "disk.inodes": "room for files",

  "boot.loader": "a boot loader that can be asked",
  "boot.directory": "the boot loader's directory, mounted and writable",
  "boot.space": "room for one more kernel",

  "reports.url": "a server that takes reports",
  "reports.directory": "the directory for reports",
  "reports.sticks": "a mirror in a directory, for reports on sticks",
} as const;

/** The id of a check. */
export type CheckId = keyof typeof CHECKS;

export const CHECK_IDS = Object.keys(CHECKS) as [CheckId, ...CheckId[]];

export const CHECK_OUTCOMES = ["passed", "failed", "untried"] as const;
export type CheckOutcome = (typeof CHECK_OUTCOMES)[number];

/** What one try came to. */
export interface CheckResult {
  readonly id: CheckId;
  /** Which mirror, directory or unit was tried; null if there is only one. */
  readonly subject: string | null;
  readonly outcome: CheckOutcome;
  readonly expected: string;
  /** What was found, or why it could not be tried. */
  readonly found: string;
  /** What a person should do; null if there is nothing to do. */
  readonly advice: string | null;
  /** The error that the agent itself would meet; null if there is none. */
  readonly code: ErrorCode | null;
}

/** Makes the results of one check. */
export interface Verdicts {
  passed(found: string): CheckResult;
  failed(found: string, advice: string, code?: ErrorCode): CheckResult;
  /** It could not be tried: `why`, and what has to be done so that it can, if anything. */
  untried(why: string, advice?: string | null): CheckResult;
}

/** The results of a check, of one `subject` if there are several. */
export function about(id: CheckId, subject: string | null = null): Verdicts {
  const result = (
    outcome: CheckOutcome,
    found: string,
    advice: string | null,
    code: ErrorCode | null = null,
  ): CheckResult => ({ id, subject, outcome, expected: CHECKS[id], found, advice, code });
  return {
    passed: (found) => result("passed", found, null),
    failed: (found, advice, code) => result("failed", found, advice, code),
    untried: (why, advice = null) => result("untried", why, advice),
  };
}

/** Results in the order of `CHECKS`; those of one check stay in theirs. */
export function inOrder(results: readonly CheckResult[]): CheckResult[] {
  return [...results].sort((a, b) => CHECK_IDS.indexOf(a.id) - CHECK_IDS.indexOf(b.id));
}

/** What all results come to: failed if one failed, else untried if one could not be tried. */
export function summaryOf(results: readonly CheckResult[]): CheckOutcome {
  if (results.some(({ outcome }) => outcome === "failed")) return "failed";
  return results.some(({ outcome }) => outcome === "untried") ? "untried" : "passed";
}
