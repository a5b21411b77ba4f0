import { describe, expect, test } from "vitest";
import { passageOf, stageRelease } from "../../../../agent/core/release/barrier.ts";
import { EMPTY_RECORD, type AgentRecord } from "../../../../agent/core/update/record.ts";
import type { Manifest, Stage } from "../../../../agent/core/formats/manifest.ts";
import { rolloutWaits } from "../../../../agent/core/release/rollout.ts";
import {
  sampleDigest,
  sampleHost,
  sampleManifest,
  samplePath,
  sampleRelease,
} from "../../../support/sample-release.ts";

function stage(sequence: number, changes: Partial<Stage> = {}): Stage {
  const { closureSize, archive } = sampleHost();
  return {
    ...{ sequence, digest: sampleDigest(`release ${sequence}`), closureSize, archive },
    toplevel: samplePath(`nixos-system-web1-${sequence}`),
    activation: { mode: "boot" },
    ...changes,
  };
}

const [third, fifth] = [stage(3), stage(5)];

function manifest(through: Stage[] | undefined, sequence = 5): Manifest {
  return sampleManifest({
    barrier: { sequence },
    hosts: { web1: sampleHost({ ...(through && { through }) }) },
  });
}

function came(sequence: number, changes: { channel?: string; epoch?: number } = {}): AgentRecord {
  const { channel, toplevel, mode } = sampleRelease();
  const committed = {
    ...{ channel, sequence, digest: sampleDigest(`release ${sequence}`), toplevel, mode },
    ...{ at: "2026-01-01T00:00:00.000Z", previous: null },
    ...changes,
  };
  return { ...EMPTY_RECORD, committed };
}

function passage(of: Manifest, record: AgentRecord) {
  return passageOf(of, "web1", record);
}

describe("a host with barriers before it", () => {
  test.each([
    ["came from before all", came(2), third],
    ["became the first one", came(3), fifth],
    ["became a release between them", came(4), fifth],
    ["is new", EMPTY_RECORD, third],
    ["came from another channel, where numbers mean nothing", came(9, { channel: "beta" }), third],
  ])("%s: passes through the next", (_, record, next) => {
    expect(passage(manifest([third, fifth]), record)).toEqual({ kind: "through", stage: next });
  });

  test.each([
    ["became the last one", came(5)],
    ["became a later release", came(6)],
    ["became any release of a later epoch", came(1, { epoch: 1 })],
  ])("%s: goes on", (_, record) => {
    expect(passage(manifest([third, fifth]), record)).toEqual({ kind: "open" });
  });

  test("where it waits for the barrier's reboot, it is not through", () => {
    const release = sampleRelease({ sequence: 5, toplevel: fifth.toplevel });
    const pendingReboot: AgentRecord["pendingReboot"] = {
      ...{ release, wayBack: false, attempts: 0, bootId: "a", requested: 0 },
      baseline: {
        ...{ profile: null, generation: null, running: null },
        ...{ failedUnits: [], restartedUnits: [] },
      },
    };
    const record = { ...came(5), pendingReboot };
    expect(passage(manifest([third, fifth]), record)).toMatchObject({ kind: "barred" });
    expect(rolloutWaits(manifest([fifth]), "web1", record, new Date())).toMatchObject([
      {
        reason: "BARRIER_AHEAD",
        message: "release 5 comes first, and takes effect with a reboot",
        until: null,
      },
    ]);
    // One that went back before it passes all of them again.
    expect(passage(manifest([third, fifth]), { ...came(2), pendingReboot })).toEqual({
      ...{ kind: "through", stage: third },
    });
    const leaving = { ...record, pendingReboot: { ...pendingReboot, wayBack: true } };
    expect(passage(manifest([third, fifth]), leaving)).toEqual({ kind: "open" });
  });

  test("where the barrier has nothing for it, it is barred if it is known to come from before", () => {
    expect(passage(manifest(undefined), came(4))).toMatchObject({
      kind: "barred",
      message:
        "this host became release 4 last; it has to become release 5 first, which has nothing for it",
    });
    expect(passage(manifest(undefined), came(5))).toEqual({ kind: "open" });
    expect(passage(manifest(undefined), EMPTY_RECORD)).toEqual({ kind: "open" });
  });
});

test("a host that the release does not name is not led through anything", () => {
  expect(passageOf(manifest([third, fifth]), "web9", came(5))).toEqual({ kind: "open" });
});

test("without a barrier every host goes on", () => {
  expect(passage(sampleManifest(), came(1))).toEqual({ kind: "open" });
});

test("a barrier is followed as the release that it is, by its own number and digest", () => {
  const release = sampleRelease({ epoch: 1, sequence: 9 });
  const { activation: _, ...system } = fifth;
  expect(stageRelease(fifth, release)).toEqual({
    ...{ channel: "stable", hostname: "web1", mode: "boot", checks: [] },
    ...system,
  });
  expect(stageRelease(fifth, release)).not.toHaveProperty("epoch");
  expect(stageRelease(stage(5, { epoch: 1 }), release).epoch).toBe(1);
});
