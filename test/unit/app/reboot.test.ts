import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { AgentTools } from "../../../agent/app/agent.ts";
import { rebootIfDue } from "../../../agent/app/reboot.ts";
import { ReleaseRun } from "../../../agent/app/release-run.ts";
import { EMPTY_RECORD, type AgentRecord } from "../../../agent/core/machine.ts";
import { parseSettings } from "../../../agent/core/settings.ts";
import { writeHold } from "../../../agent/effects/hold-file.ts";
import { History } from "../../../agent/effects/history.ts";
import { StateFile } from "../../../agent/effects/state-file.ts";
import { recordingLog } from "../../support/recording-log.ts";
import { samplePath, sampleRelease } from "../../support/sample-release.ts";
import { temporaryDirectory } from "../../support/temporary.ts";
import { testKey } from "../../support/test-key.ts";

const NIGHT = "2026-02-01T02:30:00.000Z";
const NOON = "2026-02-01T12:00:00.000Z";
const OLD = samplePath("nixos-system-web1-old");
const WINDOW = { cron: "0 2 * * *", duration: "2h" };
const NOON_WINDOW = { cron: "0 12 * * *", duration: "2h" };

/** How often a host with a pending reboot is rebooted at a time. */
async function rebootsAt(
  now: string,
  changes: { reboot: object; maintenance?: object },
  { wayBack = false, hold = false } = {},
): Promise<number> {
  const directory = await temporaryDirectory();
  const paths = { state: join(directory, "state"), runtime: join(directory, "run") };
  const settings = parseSettings(
    {
      ...{ mirrors: ["file:///mnt"], publicKeys: [testKey("fleet-1").publicKey.text], paths },
      ...changes,
      reboot: { grace: "0s", ...changes.reboot },
    },
    "web1",
  );
  const log = recordingLog();
  const history = new History(paths.state);
  const state = new StateFile(paths, history, log);
  await state.prepare();
  if (hold) await writeHold(paths.state, { at: NIGHT, until: null, reason: null });
  let reboots = 0;
  const services = {
    reboot: async () => {
      reboots++;
    },
  };
  const clock = { now: () => new Date(now) };
  // A reboot has to do with nothing else of the agent's tools.
  const tools = { settings, log, history, state, clock, services, rebootLock: null } as unknown;
  const baseline = {
    profile: OLD,
    generation: 1,
    running: OLD,
    failedUnits: [],
    restartedUnits: [],
  };
  const record: AgentRecord = {
    ...EMPTY_RECORD,
    pendingReboot: {
      ...{ release: sampleRelease(), wayBack, baseline, attempts: 0 },
      ...{ bootId: "this boot", requested: 0 },
    },
  };
  const run = new ReleaseRun(tools as AgentTools, record, undefined);
  expect(await rebootIfDue(run, tools as AgentTools, undefined)).toBeNull();
  expect(run.record.pendingReboot?.requested).toBe(reboots);
  return reboots;
}

describe("a pending reboot", () => {
  test.each<[string, string, object, object | undefined, number]>([
    ["never comes by itself", NIGHT, { policy: "never" }, undefined, 0],
    ["comes at once", NOON, { policy: "now" }, { windows: [WINDOW] }, 1],
    ["comes in its window", NIGHT, { policy: "window", window: WINDOW }, undefined, 1],
    ["waits for its window", NOON, { policy: "window", window: WINDOW }, undefined, 0],
    ["comes in a maintenance window", NIGHT, { policy: "window" }, { windows: [WINDOW] }, 1],
    ["waits for a maintenance window", NOON, { policy: "window" }, { windows: [WINDOW] }, 0],
    [
      "has its own window before those of maintenance",
      ...([NOON, { policy: "window", window: WINDOW }, { windows: [NOON_WINDOW] }, 0] as const),
    ],
  ])("%s", async (_, now, reboot, maintenance, times) => {
    expect(await rebootsAt(now, { reboot, ...(maintenance && { maintenance }) })).toBe(times);
  });

  test("does not come while the host is held", async () => {
    expect(await rebootsAt(NOON, { reboot: { policy: "now" } }, { hold: true })).toBe(0);
  });

  test("that leaves a failed system waits for nothing", async () => {
    const rules = { reboot: { policy: "window", window: WINDOW } };
    expect(await rebootsAt(NOON, rules, { wayBack: true, hold: true })).toBe(1);
  });
});
