import { describe, expect, test } from "vitest";
import { describeDrift, driftOf, driftSchema } from "../../../../agent/core/update/drift.ts";
import { EMPTY_RECORD, type AgentRecord } from "../../../../agent/core/update/record.ts";
import type { ActivationMode } from "../../../../agent/core/formats/manifest.ts";
import { samplePath, sampleRelease } from "../../../support/sample-release.ts";

const NEW = sampleRelease().toplevel;
const OLD = samplePath("by-hand");

/** A host that committed the sample release. */
function recordWith(mode: ActivationMode): AgentRecord {
  const { channel, sequence, digest, toplevel } = sampleRelease();
  const committed = { channel, sequence, digest, toplevel, mode, previous: null };
  return { ...EMPTY_RECORD, committed: { ...committed, at: "2026-02-01T12:00:00.000Z" } };
}

/** The same, with a reboot that is still to come. */
function pendingWith(
  mode: ActivationMode,
  changes: Partial<NonNullable<AgentRecord["pendingReboot"]>> = {},
): AgentRecord {
  const baseline = {
    ...{ profile: OLD, generation: 1, running: OLD, failedUnits: [], restartedUnits: [] },
  };
  const pendingReboot = {
    ...{ release: sampleRelease(), wayBack: false, baseline, attempts: 0, bootId: "boot" },
    ...{ requested: 0, ...changes },
  };
  return { ...recordWith(mode), pendingReboot };
}

type Found = [profile: string | null, running: string | null, booted?: string | null];

describe("drift", () => {
  test.each<
    [string, ActivationMode, Found, "profile" | "running" | "booted" | null, string | null]
  >([
    ["nothing", "switch", [NEW, NEW], null, null],
    ["nothing after a boot", "switch", [NEW, NEW, NEW], null, null],
    ["the boot default", "switch", [OLD, NEW], "profile", OLD],
    ["a profile that is gone", "boot", [null, NEW], "profile", null],
    ["what runs", "switch", [NEW, OLD], "running", OLD],
    ["what runs, not what was booted", "switch", [NEW, OLD, NEW], "running", OLD],
    ["what runs after a test", "test", [OLD, OLD], "running", OLD],
    ["what was booted", "switch", [NEW, OLD, OLD], "booted", OLD],
    ["another boot default that was booted", "switch", [OLD, OLD, OLD], "profile", OLD],
    ["nothing if it cannot be seen", "switch", [NEW, null], null, null],
    [
      "nothing if it cannot be seen, and what was booted is not known either",
      "switch",
      [NEW, null, null],
      null,
      null,
    ],
    ["nothing that a boot would change", "boot", [NEW, OLD], null, null],
    ["nothing after a test that left the profile alone", "test", [OLD, NEW], null, null],
    ["nothing after a dry run", "dry-activate", [OLD, OLD], null, null],
  ])("is %s (%s, %j): %s, %s", (_, mode, [profile, running, booted], what, found) => {
    const host = { profile, running, ...(booted !== undefined && { booted }) };
    const expected = what && { what, expected: NEW, found };
    expect(driftOf(recordWith(mode), host)).toEqual(expected);
    if (expected) expect(driftSchema.parse(expected)).toEqual(expected);
  });

  test("is nothing on a host that committed no release", () => {
    expect(driftOf(EMPTY_RECORD, { profile: OLD, running: OLD })).toBeNull();
  });

  test("is not what runs while the release waits for its boot", () => {
    const host = { profile: NEW, running: OLD };
    expect(driftOf(pendingWith("switch"), host)).toBeNull();
    expect(driftOf(pendingWith("switch"), { profile: OLD, running: OLD })?.what).toBe("profile");
  });

  test("is what runs if the pending reboot leads away from the release, or to another one", () => {
    const host = { profile: NEW, running: OLD };
    expect(driftOf(pendingWith("switch", { wayBack: true }), host)?.what).toBe("running");
    const release = sampleRelease({ toplevel: samplePath("another") });
    expect(driftOf(pendingWith("switch", { release }), host)?.what).toBe("running");
  });

  test("is not what runs if it was switched to and waits for the boot that tries it", () => {
    const release = sampleRelease({ toplevel: OLD });
    const what = (host: Parameters<typeof driftOf>[1], trial?: boolean): string | undefined =>
      driftOf(pendingWith("switch", { release, ...(trial !== undefined && { trial }) }), host)
        ?.what;
    const host = { profile: NEW, running: OLD };
    expect(what(host, true)).toBeUndefined();
    expect([what(host, false), what(host)]).toEqual(["running", "running"]);
    expect(what({ ...host, running: samplePath("third") }, true)).toBe("running");
  });

  test.each([
    [{ what: "profile", expected: NEW, found: OLD }, `the boot default is ${OLD} and not ${NEW}`],
    [{ what: "profile", expected: NEW, found: null }, `the boot default is nothing and not ${NEW}`],
    [{ what: "running", expected: NEW, found: OLD }, `${OLD} runs and not ${NEW}`],
    [{ what: "booted", expected: NEW, found: OLD }, `${OLD} was booted and not ${NEW}`],
  ] as const)("%j is said as %s", (drift, words) => {
    expect(describeDrift(drift)).toBe(words);
  });
});
