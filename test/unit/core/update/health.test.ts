import { describe, expect, test } from "vitest";
import {
  judgeBootDefault,
  judgeBootedSystem,
  judgeRunningSystem,
  RestartWatch,
  newlyFailedUnits,
} from "../../../../agent/core/update/health.ts";
import type { ActivationMode } from "../../../../agent/core/formats/manifest.ts";
import { samplePath, sampleRelease } from "../../../support/sample-release.ts";

const NEW = sampleRelease().toplevel;
const OLD = samplePath("nixos-system-web1-old");

const WRONG_PROFILE = `the system profile: expected ${NEW}, found ${OLD}`;
const NO_PROFILE = `the system profile: expected ${NEW}, found nothing`;
const WRONG_SYSTEM = `the running system: expected ${NEW}, found ${OLD}`;
const WRONG_BOOT = `after the boot: expected ${NEW} to run, found ${OLD}`;

test.each<[ActivationMode, string | null, string | null, string | null, string | null]>([
  ["switch", NEW, NEW, null, null],
  ["switch", NEW, null, null, null],
  ["switch", NEW, OLD, null, WRONG_SYSTEM],
  ["switch", OLD, NEW, WRONG_PROFILE, null],
  ["switch", null, NEW, NO_PROFILE, null],
  ["switch", OLD, OLD, WRONG_PROFILE, WRONG_SYSTEM],
  ["boot", NEW, OLD, null, null],
  ["boot", NEW, null, null, null],
  ["boot", OLD, NEW, WRONG_PROFILE, null],
  ["boot", null, OLD, NO_PROFILE, null],
  ["test", OLD, NEW, null, null],
  ["test", null, NEW, null, null],
  ["test", NEW, OLD, null, WRONG_SYSTEM],
  ["test", null, null, null, null],
  ["dry-activate", OLD, OLD, null, null],
  ["dry-activate", null, null, null, null],
])(
  "after %s a host with profile %s that runs %s has the boot default: %j, the system: %j",
  (mode, profile, running, bootDefault, system) => {
    const release = sampleRelease({ mode });
    expect(judgeBootDefault(release, { profile, running })).toBe(bootDefault);
    expect(judgeRunningSystem(release, { profile, running })).toBe(system);
  },
);

test.each<ActivationMode>(["switch", "boot", "test", "dry-activate"])(
  "after a boot for %s the release runs, whatever the profile, or it is not known what does",
  (mode) => {
    const release = sampleRelease({ mode });
    for (const profile of [NEW, OLD, null]) {
      expect(judgeBootedSystem(release, { profile, running: NEW })).toBeNull();
      expect(judgeBootedSystem(release, { profile, running: null })).toBeNull();
      expect(judgeBootedSystem(release, { profile, running: OLD })).toBe(WRONG_BOOT);
    }
  },
);

describe("newly failed units", () => {
  test.each([
    [[], [], []],
    [["a.service"], [], []],
    [["a.service"], ["a.service"], []],
    [[], ["b.service", "a.service"], ["a.service", "b.service"]],
    [["b.service"], ["c.service", "b.service", "a.service"], ["a.service", "c.service"]],
    [["a.service"], ["a@1.service"], ["a@1.service"]],
  ])("where %j had failed and %j are failed are %j", (before, failed, expected) => {
    expect(newlyFailedUnits({ failedUnits: before }, failed)).toEqual(expected);
  });

  test("are found without a change to what was given", () => {
    const failed = Object.freeze(["b.service", "a.service"]);
    expect(newlyFailedUnits({ failedUnits: [] }, failed)).toEqual(["a.service", "b.service"]);
  });
});

describe("services that are started again and again", () => {
  const watch = (known: string[] = []) =>
    new RestartWatch({ failedUnits: known, restartedUnits: [] });
  const counts = (loop: number) => new Map([["loop.service", loop]]);

  test("are named until they stood still for long enough", () => {
    const loop = watch();
    expect(loop.look(counts(3), 0, 10_000)).toEqual([]);
    expect(loop.look(counts(4), 5_000, 10_000)).toEqual(["loop.service"]);
    expect(loop.look(counts(4), 14_999, 10_000)).toEqual(["loop.service"]);
    expect(loop.look(counts(4), 15_000, 10_000)).toEqual([]);
  });

  test("are named where they were never seen before, too", () => {
    const loop = watch();
    loop.look(new Map(), 0, 10_000);
    expect(loop.look(counts(1), 1_000, 10_000)).toEqual(["loop.service"]);
  });

  test("are no fault of the new system where they did so, or had failed, before it", () => {
    const old = new RestartWatch({ failedUnits: [], restartedUnits: ["loop.service"] });
    for (const loop of [watch(["loop.service"]), old]) {
      loop.look(counts(3), 0, 10_000);
      expect(loop.look(counts(4), 1_000, 10_000)).toEqual([]);
    }
  });

  test("count anew after a start by hand, which is none of theirs", () => {
    const loop = watch();
    loop.look(counts(3), 0, 10_000);
    expect(loop.look(new Map(), 1_000, 10_000)).toEqual([]);
    expect(loop.look(counts(1), 2_000, 10_000)).toEqual(["loop.service"]);
  });
});
