import { describe, expect, test } from "vitest";
import { describeHistory } from "../../../../agent/cli/display/history.ts";
import { render, type Screen } from "../../../../agent/cli/display/screen.ts";
import { Times } from "../../../../agent/core/text/times.ts";
import type { HistoryEntry } from "../../../../agent/core/update/history-entry.ts";

const SCREEN: Screen = { columns: Infinity, colour: false };
const NOW = new Date("2026-12-01T12:00:00Z");
const SYSTEM = "/nix/store/k3v8x2m0000000000000000000000000-nixos-system-web1-26.05";

/** An entry so many seconds after 11:00 UTC. */
function entry(seconds: number, event: string, rest: Partial<HistoryEntry> = {}): HistoryEntry {
  const at = new Date(Date.parse("2026-12-01T11:00:00Z") + seconds * 1000).toISOString();
  return { at, event, state: "Idle", ...rest };
}

const RELEASE = { sequence: 8, toplevel: SYSTEM, mode: "switch" };
const UPDATED = [
  entry(0, "ManifestAccepted", { sequence: 8 }),
  entry(1, "ReleaseAccepted", { ...RELEASE, state: "Candidate" }),
  entry(1, "FetchBegun", { ...RELEASE, state: "Fetching" }),
  entry(20, "GarbageCollected", { state: "Fetching", message: "garbage was collected: 2 paths" }),
  entry(40, "ClosureImported", {
    ...{ ...RELEASE, state: "Imported" },
    deltas: { used: 3, failed: 0 },
  }),
  entry(41, "ActivationBegun", { ...RELEASE, state: "Activating" }),
  entry(50, "ActivationSucceeded", { ...RELEASE, state: "Verifying", lastLines: ["a line"] }),
  entry(61, "HealthConfirmed", { ...RELEASE, state: "Committing" }),
  entry(62, "BootDefaultSet", { ...RELEASE, state: "Committed" }),
  entry(63, "LeftoversRemoved", RELEASE),
];

/** An attempt that fails so many seconds after 11:00. */
function failure(seconds: number, message: string): HistoryEntry[] {
  return [
    entry(seconds, "ReleaseAccepted", { ...RELEASE, state: "Candidate" }),
    entry(seconds + 2, "AttemptFailed", {
      ...{ ...RELEASE, state: "Failed" },
      ...{ code: "MIRROR_STALLED", message },
    }),
  ];
}

/** A history as a person in Berlin sees it. */
function shown(entries: readonly HistoryEntry[], { all = false, utc = false } = {}): string[] {
  const times = new Times({ now: NOW, zone: "Europe/Berlin", utc });
  return render(describeHistory(entries, { times, screen: SCREEN, all }), SCREEN).split("\n");
}

describe("an update", () => {
  test("is one heading, with what is worth to know", () => {
    expect(shown(UPDATED)).toEqual([
      "●  12:00     release 8 applied after 61 s: k3v8x2m-web1-26.05, switch",
      "   12:00:20    garbage was collected: 2 paths",
    ]);
  });

  test("is told whole if that is asked for, in exact times too", () => {
    expect(shown(UPDATED, { all: true })).toEqual([
      "●  12:00     release 8 applied after 61 s: k3v8x2m-web1-26.05, switch",
      "   12:00:00    was found on a mirror, signed and newer than those before [ManifestAccepted]",
      "   12:00:01    the update begins [ReleaseAccepted]",
      "   12:00:01    the download begins [FetchBegun]",
      "   12:00:20    garbage was collected: 2 paths [GarbageCollected]",
      "   12:00:40    downloaded, and in the store (3 paths by deltas, 0 deltas of no use) [ClosureImported]",
      "   12:00:41    the activation begins [ActivationBegun]",
      "   12:00:50    activated [ActivationSucceeded]",
      "                 | a line",
      "   12:01:01    healthy [HealthConfirmed]",
      "   12:01:02    it is the boot default [BootDefaultSet]",
      "   12:01:03    cleaned up [LeftoversRemoved]",
    ]);
    expect(shown(UPDATED, { utc: true })[0]).toBe(
      "●  2026-12-01T11:00:00Z  release 8 applied after 61 s: k3v8x2m-web1-26.05, switch",
    );
  });

  test("that waited for its window did not take so long", () => {
    const waits = { ...RELEASE, state: "Imported", code: "WINDOW_CLOSED" };
    const begun = entry(0, "ReleaseAccepted", { ...RELEASE, state: "Candidate" });
    const waiting = entry(5, "ReleaseWaits", { ...waits, message: "the window opens" });
    expect(shown([begun, waiting])).toEqual([
      "○  12:00  release 8 waits: WINDOW_CLOSED: the window opens",
    ]);
    const applied = [
      entry(3000, "BaselineRecorded", { ...RELEASE, state: "Staged" }),
      entry(3020, "BootDefaultSet", { ...RELEASE, state: "Committed" }),
    ];
    expect(shown([begun, waiting, ...applied])[0]).toContain("release 8 applied after 20 s");
  });
});

describe("a failure", () => {
  const undone = [
    entry(0, "ReleaseAccepted", { ...RELEASE, state: "Candidate" }),
    entry(30, "ActivationRejected", {
      ...{ ...RELEASE, state: "RollingBack" },
      ...{ code: "ACTIVATION_FAILED", message: "exit code 1", lastLines: ["\u001b[31mno"] },
    }),
    entry(34, "RollbackSucceeded", { ...RELEASE, state: "RolledBack" }),
    entry(35, "LeftoversRemoved", RELEASE),
  ];

  test("says once why, what was printed, and that the host is as before", () => {
    expect(shown(undone)).toEqual([
      "✗  12:00     release 8 failed after 30 s, and was undone: ACTIVATION_FAILED: exit code 1",
      "                 | \ufffd[31mno",
      "   12:00:34    undone: the system from before is back",
    ]);
  });

  test("that comes again and again is one heading; another one, or a success, has its own", () => {
    const again = [...failure(0, "slow"), ...failure(60, "slow"), ...failure(120, "slow")];
    expect(shown([...again, ...failure(200, "gone"), ...UPDATED])).toEqual([
      "✗  12:02     release 8 failed after 2 s: MIRROR_STALLED: slow (3 times alike)",
      "✗  12:03     release 8 failed after 2 s: MIRROR_STALLED: gone",
      "●  12:00     release 8 applied after 61 s: k3v8x2m-web1-26.05, switch",
      "   12:00:20    garbage was collected: 2 paths",
    ]);
    expect(shown(again, { all: true })).toHaveLength(9);
  });
});

test("what happened beside releases has its own heading, and an unknown event its name", () => {
  expect(
    shown([
      entry(0, "Held", { message: "until 2026-12-01T18:00:00.000Z: fair" }),
      entry(60, "HoldEnded"),
      entry(61, "BootCalledOff", { ...RELEASE, code: "BOOT_CALLED_OFF", message: "withdrawn" }),
      entry(90, "SomethingNew", { message: "of a later version" }),
    ]),
  ).toEqual([
    "○  12:00  a person held this host: until 19:00: fair",
    "·  12:01  a person ended the hold",
    "○  12:01  release 8 is no longer what the next boot tries: BOOT_CALLED_OFF: withdrawn",
    "·  12:01  SomethingNew: of a later version",
  ]);
});
