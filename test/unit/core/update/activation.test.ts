import { describe, expect, test } from "vitest";
import {
  changesRunningSystem,
  planRollback,
  provingMode,
  setsProfile,
} from "../../../../agent/core/update/activation.ts";
import { ACTIVATION_MODES, type ActivationMode } from "../../../../agent/core/formats/manifest.ts";
import { samplePath } from "../../../support/sample-release.ts";

const OLD = samplePath("nixos-system-web1-old");
const RAN = samplePath("nixos-system-web1-ran");

describe("the modes", () => {
  test("that make a system the boot default are switch and boot", () => {
    expect(ACTIVATION_MODES.filter(setsProfile)).toEqual(["switch", "boot"]);
  });

  test("after which a system runs are switch and test", () => {
    expect(ACTIVATION_MODES.filter(changesRunningSystem)).toEqual(["switch", "test"]);
  });

  test("are proven as test, or dryly, before anything becomes the boot default", () => {
    expect(ACTIVATION_MODES.map(provingMode)).toEqual(["test", null, "test", "dry-activate"]);
  });
});

describe("the way back", () => {
  test.each<[string, ActivationMode, string | null, string | null, string[], boolean]>([
    ["a switch, on a host that ran its default", "switch", OLD, OLD, [`switch ${OLD}`], true],
    [
      "a switch, on a host with a boot pending",
      "switch",
      OLD,
      RAN,
      [`boot ${OLD}`, `test ${RAN}`],
      true,
    ],
    ["a switch, where it is not known what ran", "switch", OLD, null, [`switch ${OLD}`], true],
    ["a switch, where there was no profile", "switch", null, RAN, [`test ${RAN}`], true],
    ["a switch, on an empty host", "switch", null, null, [], true],
    ["a boot", "boot", OLD, OLD, [`boot ${OLD}`], true],
    ["a boot, on a host with a boot pending", "boot", OLD, RAN, [`boot ${OLD}`], true],
    ["a boot, on an empty host", "boot", null, null, [], true],
    ["a test", "test", OLD, OLD, [`test ${OLD}`], false],
    ["a test, on a host with a boot pending", "test", OLD, RAN, [`test ${RAN}`], false],
    ["a test, where it is not known what ran", "test", OLD, null, [`test ${OLD}`], false],
    ["a test, on an empty host", "test", null, null, [], false],
    ["a dry activation", "dry-activate", OLD, RAN, [], false],
  ])("from %s", (_, mode, profile, running, runs, restoreProfile) => {
    const plan = planRollback(mode, {
      ...{
        profile,
        running,
        generation: profile === null ? null : 3,
        failedUnits: [],
        restartedUnits: [],
      },
    });
    expect(plan.runs.map((run) => `${run.mode} ${run.toplevel}`)).toEqual(runs);
    expect(plan.restoreProfile).toBe(restoreProfile);
  });
});
