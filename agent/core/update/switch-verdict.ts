import type { ActivationResult, SwitchAction } from "../ports.ts";
import { snippetText, type SwitchFacts } from "./switch-output.ts";

/** What one run of switch-to-configuration is judged by. */
export interface SwitchEvidence {
  readonly action: SwitchAction;
  /** The system whose program ran. */
  readonly toplevel: string;
  readonly result: ActivationResult;
  /** What ran before and what runs after it; null if that cannot be seen. */
  readonly running: { readonly before: string | null; readonly after: string | null };
  /** Snippets that are recorded to fail in the system that ran before, as `snippetText` has them. */
  readonly knownSnippets: readonly string[];
}

/** Why a run left everything as it was. */
export type NotBegun =
  /** Another switch held the lock. */
  | "locked"
  /** A pre-switch check refused. */
  | "refused"
  /** A switch inhibitor differs: a boot would take the system, a live switch does not. */
  | "inhibited";

/** Why a run ended before its end. */
export type HalfDone =
  /** Its time limit. */
  | "timeout"
  /** Something that it asked for was not to be had at that moment (EAGAIN). */
  | "unavailable"
  | "fault";

/** What happened in a run of switch-to-configuration. `message` says it in plain words. */
export type SwitchVerdict =
  | { readonly kind: "activated" }
  /** It is done, and something in it failed that is no news or not the system's. */
  | { readonly kind: "activatedWithWarnings"; readonly message: string }
  /**
   * It is done, and jobs or units failed. Which of them are new, the state of units tells.
   * `isNamed`: the output names something that failed.
   */
  | {
      readonly kind: "unitsFailed";
      readonly message: string;
      readonly jobs: readonly string[];
      readonly isNamed: boolean;
    }
  /** It came to its end, but the activation script failed: the system is not what it should be. */
  | { readonly kind: "activationFailed"; readonly message: string }
  /** Nothing was touched. */
  | { readonly kind: "notBegun"; readonly why: NotBegun; readonly message: string }
  /** Nothing was activated: it takes effect only with a reboot. */
  | { readonly kind: "rebootNeeded" }
  /** It ended before its end, by a fault or its time limit. What it touched has to be undone. */
  | { readonly kind: "halfDone"; readonly message: string; readonly why: HalfDone }
  /** Something else ended it; how far it came is not known. */
  | { readonly kind: "interrupted"; readonly message: string };

/** Exit code of a switch that needs a reboot. */
const REBOOT_NEEDED = 100;
/** The error number that becomes an exit code if a resource is not to be had (errno(3)). */
const EAGAIN = 11;
/** Exit codes that a switch gives after it went through all its steps. */
const ENDED: readonly (number | null)[] = [0, 2, 4];

/**
 * Judges a run by what happened rather than by its exit code: 4 hides 2, 11 may be any EAGAIN,
 * and 1 may be a refusal or a fault at any step.
 */
export function judgeSwitch(evidence: SwitchEvidence): SwitchVerdict {
  const { action, result } = evidence;
  return (
    untouched(evidence) ??
    cutShort(result) ??
    (action === "switch" || action === "test"
      ? (failedActivation(evidence) ?? ended(evidence))
      : result.exitCode === 0
        ? { kind: "activated" }
        : halfDone(`it ended with ${exitText(result)}`, result.exitCode))
  );
}

/** Runs that stopped before they touched anything; null if this one did not, or may not have. */
function untouched({ action, result, running }: SwitchEvidence): SwitchVerdict | null {
  const { exitCode, facts, timedOut } = result;
  if (facts.begun) return null;
  const moved = running.before !== null && running.after !== running.before;
  if (timedOut) return waitedForLock(action, result, moved) ? locked("all the time") : null;
  if (exitCode === 0 || exitCode === null) return null;
  if (facts.lockRefused) return locked("");
  if (facts.checksRefused) {
    if (facts.inhibited) {
      return notBegun("inhibited", "a switch inhibitor changed, so that it takes a boot");
    }
    const names = facts.failedChecks.join(", ");
    return notBegun("refused", `the pre-switch check${names === "" ? "s" : ` ${names}`} refused`);
  }
  if (moved) return null;
  // The boot loader may have been installed, which a boot shows to be right or wrong.
  return exitCode === REBOOT_NEEDED || facts.rebootDemanded ? { kind: "rebootNeeded" } : null;
}

/**
 * Whether a time limit passed while only the lock was waited for, as the programs before 25.05
 * do: they print nothing before they have it. `test` prints before it touches anything; a boot
 * loader may not, so there the lock itself has to be seen held.
 */
function waitedForLock(
  action: SwitchAction,
  { facts, lockHeld }: ActivationResult,
  moved: boolean,
): boolean {
  if (facts.lineCount !== 0) return false;
  // What another switch has moved, it moved while it held the lock.
  return lockHeld || (!moved && action !== "switch" && action !== "boot");
}

/** Runs that did not come to their own end. */
function cutShort({ exitCode, timedOut, facts }: ActivationResult): SwitchVerdict | null {
  if (timedOut) {
    return { kind: "halfDone", message: "it did not finish in its time limit", why: "timeout" };
  }
  if (exitCode === null) return { kind: "interrupted", message: "a signal ended it" };
  if (facts.bootLoaderFailed) return halfDone("the boot loader could not be installed");
  if (facts.panicked) return halfDone("it crashed");
  return null;
}

/** An activation script that failed, unless in nothing but what fails in the running system too. */
function failedActivation({ result, knownSnippets }: SwitchEvidence): SwitchVerdict | null {
  const { facts, exitCode } = result;
  if (!facts.activationScriptFailed) return null;
  const failed = facts.failedSnippets.map(snippetText);
  const news = failed.filter((snippet) => !knownSnippets.includes(snippet));
  const isKnown = failed.length > 0 && news.length === 0;
  if (isKnown && ENDED.includes(exitCode)) return null;
  const what = news.length > 0 ? `: ${snippets(news)}` : "";
  return { kind: "activationFailed", message: `the activation script failed${what}` };
}

/** Runs that went through all their steps, as far as their exit code says. */
function ended({ toplevel, result, running }: SwitchEvidence): SwitchVerdict {
  const { exitCode, facts } = result;
  const isElsewhere = running.after !== null && running.after !== toplevel;
  if (isElsewhere && ENDED.includes(exitCode)) {
    return halfDone(`it ended with ${exitText(result)}, but ${running.after} runs`, exitCode);
  }
  const known = facts.failedSnippets.map(snippetText);
  if (exitCode === 4) {
    const { failedUnits, failedJobs: jobs, failedUsers } = facts;
    const isNamed = [failedUnits, jobs, failedUsers].some(({ length }) => length > 0);
    return { kind: "unitsFailed", message: unitsText(facts, known), jobs, isNamed };
  }
  if (exitCode === 0 || (exitCode === 2 && known.length > 0)) {
    if (known.length === 0) return { kind: "activated" };
    const message = `failed as in the system before: ${snippets(known)}`;
    return { kind: "activatedWithWarnings", message };
  }
  return halfDone(`it ended with ${exitText(result)}`, exitCode);
}

function unitsText(facts: SwitchFacts, known: readonly string[]): string {
  const parts = [
    facts.failedUnits.length > 0 ? `units failed: ${facts.failedUnits.join(", ")}` : "",
    facts.failedJobs.length > 0 ? `jobs failed: ${facts.failedJobs.join(", ")}` : "",
    facts.failedUsers.length > 0
      ? `user managers could not be switched: ${facts.failedUsers.join(", ")}`
      : "",
    known.length > 0 ? `failed as in the system before: ${snippets(known)}` : "",
  ].filter((part) => part !== "");
  return parts.length > 0 ? parts.join("; ") : "a unit failed to start, stop or reload";
}

function snippets(names: readonly string[]): string {
  return `snippet${names.length === 1 ? "" : "s"} ${names.join(", ")}`;
}

function notBegun(why: NotBegun, message: string): SwitchVerdict {
  return { kind: "notBegun", why, message };
}

function locked(howLong: string): SwitchVerdict {
  const message = `another switch-to-configuration holds the lock${howLong && `, ${howLong}`}`;
  return notBegun("locked", message);
}

function halfDone(message: string, exitCode?: number | null): SwitchVerdict {
  return { kind: "halfDone", message, why: exitCode === EAGAIN ? "unavailable" : "fault" };
}

/** The exit code, and what it can mean at most. */
function exitText({ exitCode }: ActivationResult): string {
  const meaning = exitCode === null ? undefined : EXIT_MEANINGS[exitCode];
  return `exit code ${exitCode}${meaning === undefined ? "" : ` (${meaning})`}`;
}

/** What exit codes can mean, beside any error number of the operating system. */
const EXIT_MEANINGS: Readonly<Record<number, string>> = {
  1: "a check, the boot loader or any other step failed",
  2: "the activation script failed, or a file was missing",
  4: "a unit or a user's manager failed to start, stop or reload",
  11: "the lock or another resource was not to be had",
  101: "it crashed",
};

/** How a switch ended that had to succeed: null if it did, else why not. */
export function failureOf(verdict: SwitchVerdict): string | null {
  switch (verdict.kind) {
    case "activated":
    case "activatedWithWarnings":
    case "unitsFailed":
    case "rebootNeeded":
      return null;
    case "activationFailed":
    case "notBegun":
    case "halfDone":
    case "interrupted":
      return verdict.message;
    default:
      return verdict satisfies never;
  }
}
