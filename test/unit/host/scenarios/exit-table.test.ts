import { describe, expect, test } from "vitest";
import { tick } from "../../../../agent/host/tick.ts";
import type { ActivationMode } from "../../../../agent/core/formats/manifest.ts";
import type { SwitchFacts } from "../../../../agent/core/update/switch-output.ts";
import { MemoryHost, shortened, system, type SwitchOutcome } from "../../../support/memory-host.ts";

/**
 * Every exit code of switch-to-configuration × before or after its activation script × a unit
 * that was sick before, or none × the mode: what becomes of the host. The host suite brings real
 * programs to some of these cells (hosts/cases-exit-codes, cases-evidence, cases-refuse, cases-interrupt).
 */

/** What becomes of a host. */
type End =
  /** The release is what the host is. */
  | "committed"
  /** It is the boot default, and waits for its boot. */
  | "pending"
  /** Nothing was touched; it is tried again, and no system is switched to for that. */
  | "not begun"
  /** The old system is back; the release is tried again. */
  | "undone"
  /** The old system is back; the release is not tried again. */
  | "denied";

/** Ends in the modes switch, test, boot and dry-activate. */
type Ends = readonly [End, End, End, End];

interface Row {
  readonly code: number | null;
  readonly when: "before" | "after";
  readonly what: string;
  readonly ends: Ends;
  readonly timedOut?: boolean;
  readonly lockHeld?: boolean;
  readonly facts?: Partial<SwitchFacts>;
}

const MODES: readonly ActivationMode[] = ["switch", "test", "boot", "dry-activate"];

const FAILED_SCRIPT: Partial<SwitchFacts> = {
  activationScriptFailed: true,
  failedSnippets: [{ name: "users", code: 1 }],
};
/** What a program with its output unread looks like: it printed, and did not say that it began. */
const SPOKE: Partial<SwitchFacts> = { lineCount: 3 };

const EVERYWHERE = (end: End): Ends => [end, end, end, end];
const REFUSED = { checksRefused: true, failedChecks: ["nfs"] };

/** A boot or a dry run has no activation script: for them "after" is after all that they do. */
const ROWS: readonly Row[] = [
  {
    code: 0,
    when: "before",
    what: "another system runs",
    ends: ["denied", "denied", "pending", "committed"],
  },
  {
    code: 0,
    when: "after",
    what: "all is well",
    ends: ["committed", "committed", "pending", "committed"],
  },
  {
    code: 0,
    when: "after",
    what: "a snippet failed",
    facts: FAILED_SCRIPT,
    ends: ["denied", "denied", "pending", "committed"],
  },
  {
    code: 1,
    when: "before",
    what: "a check refuses",
    facts: REFUSED,
    ends: EVERYWHERE("not begun"),
  },
  {
    code: 1,
    when: "before",
    what: "a switch inhibitor changed",
    facts: { ...REFUSED, inhibited: true },
    ends: ["pending", "not begun", "not begun", "not begun"],
  },
  {
    code: 1,
    when: "before",
    what: "an error of any kind",
    facts: SPOKE,
    ends: EVERYWHERE("denied"),
  },
  {
    code: 1,
    when: "before",
    what: "the boot loader fails",
    facts: { bootLoaderFailed: true },
    ends: EVERYWHERE("denied"),
  },
  { code: 1, when: "after", what: "an error of any kind", ends: EVERYWHERE("denied") },
  { code: 2, when: "before", what: "a file is missing", facts: SPOKE, ends: EVERYWHERE("denied") },
  {
    code: 2,
    when: "after",
    what: "a snippet failed",
    facts: FAILED_SCRIPT,
    ends: EVERYWHERE("denied"),
  },
  { code: 2, when: "after", what: "a file is missing", ends: EVERYWHERE("denied") },
  {
    code: 4,
    when: "before",
    what: "it was interrupted (EINTR)",
    facts: SPOKE,
    ends: EVERYWHERE("denied"),
  },
  {
    code: 4,
    when: "after",
    what: "a user's manager is not reached",
    facts: { failedUsers: ["bob"] },
    ends: ["committed", "committed", "denied", "denied"],
  },
  {
    code: 4,
    when: "after",
    what: "a snippet failed, too",
    facts: FAILED_SCRIPT,
    ends: EVERYWHERE("denied"),
  },
  {
    code: 11,
    when: "before",
    what: "the lock is held",
    facts: { lockRefused: true },
    ends: EVERYWHERE("not begun"),
  },
  {
    code: 11,
    when: "before",
    what: "EAGAIN",
    facts: { ...SPOKE, lockRefused: false },
    ends: EVERYWHERE("undone"),
  },
  {
    code: 11,
    when: "after",
    what: "EAGAIN",
    facts: { lockRefused: false },
    ends: EVERYWHERE("undone"),
  },
  {
    code: 100,
    when: "before",
    what: "it takes a reboot",
    facts: { rebootDemanded: true },
    ends: ["pending", "not begun", "pending", "not begun"],
  },
  { code: 100, when: "after", what: "it says so too late", ends: EVERYWHERE("denied") },
  {
    code: 101,
    when: "before",
    what: "it crashed",
    facts: { panicked: true },
    ends: EVERYWHERE("denied"),
  },
  {
    code: 101,
    when: "after",
    what: "it crashed",
    facts: { panicked: true },
    ends: EVERYWHERE("denied"),
  },
  { code: null, when: "before", what: "a signal", ends: EVERYWHERE("undone") },
  { code: null, when: "after", what: "a signal", ends: EVERYWHERE("undone") },
  {
    code: null,
    when: "before",
    what: "its time limit, waiting for the lock",
    timedOut: true,
    lockHeld: true,
    facts: { lineCount: 0 },
    ends: EVERYWHERE("not begun"),
  },
  {
    code: null,
    when: "before",
    what: "its time limit",
    timedOut: true,
    facts: SPOKE,
    ends: EVERYWHERE("undone"),
  },
  { code: null, when: "after", what: "its time limit", timedOut: true, ends: EVERYWHERE("undone") },
];

const SICK = { failed: ["sick.service"], restarts: new Map<string, number>() };

/** The run in which the exit code comes. */
function runOf(mode: ActivationMode): string {
  return mode === "switch" ? "test 2" : `${mode} 2`;
}

function outcomeOf(row: Row, mode: ActivationMode, isSick: boolean): SwitchOutcome {
  const { code, when, timedOut = false, lockHeld = code === 11, facts } = row;
  const begun = when === "after";
  // A live switch that gets to its end lists the failed units, old ones too, and ends with 4 for
  // them. One for which a file is missing ends there.
  const isLive = mode === "switch" || mode === "test";
  const getsToItsEnd = code === 0 || code === 4 || facts === FAILED_SCRIPT;
  const listed = begun && isSick && isLive && getsToItsEnd;
  return {
    ...{ exitCode: listed ? 4 : code, timedOut, lockHeld, moves: begun },
    facts: {
      ...{ begun, ...(begun && { lineCount: 9 }), ...facts },
      ...(listed && { failedUnits: ["sick.service"] }),
    },
  };
}

/** What a host in memory has become, as one word; all its parts have to agree. */
function endOf(host: MemoryHost, mode: ActivationMode): End {
  const { state, committed, denied, pendingReboot } = host.record ?? {};
  const parts = [host.running, host.profile, host.bootDefault].map((it) => shortened(it ?? ""));
  const setsProfile = mode === "switch" || mode === "boot";
  if (committed) {
    const runs = mode === "test" || (mode === "switch" && pendingReboot === null) ? "2" : "1";
    expect(parts).toEqual([runs, ...(setsProfile ? ["2", "2"] : ["1", "1"])]);
    return pendingReboot ? "pending" : "committed";
  }
  expect(parts).toEqual(["1", "1", "1"]);
  expect(host.deadline).toBeNull();
  const wentBack = host.events.includes("RollbackSucceeded");
  if (denied?.length) {
    expect([state?.name, wentBack]).toEqual(["Idle", true]);
    return "denied";
  }
  expect(state?.name).toBe("Failed");
  if (wentBack) return "undone";
  const ran = host.takeCalls().filter((call) => /^(switch|test|boot) 1$/.test(call));
  expect(ran).toEqual([]);
  return "not begun";
}

describe.each(MODES.map((mode, at) => ({ mode, at })))("in mode $mode", ({ mode, at }) => {
  describe.each([false, true])("with a unit that was sick before: %s", (isSick) => {
    test.each(ROWS)("exit code $code $when activation: $what", async (row) => {
      const host = new MemoryHost({ limits: { retryBase: "1m" } });
      if (isSick) host.units = SICK;
      host.publish({ sequence: 7, system: "2", mode });
      const outcome = outcomeOf(row, mode, isSick);
      // Another switch that holds the lock is waited for ten times.
      host.nextSwitch(runOf(mode), ...Array.from({ length: 10 }, () => outcome));
      await tick(host.tools, { insistence: "patient" });
      expect(endOf(host, mode)).toBe(row.ends[at]);
      expect(host.valid.has(system("1"))).toBe(true);
    });
  });
});
