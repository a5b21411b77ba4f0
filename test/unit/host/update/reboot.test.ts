import { join } from "node:path";
import { Agent } from "undici";
import { describe, expect, onTestFinished, test } from "vitest";
import { Journal, type JournalTools } from "../../../../agent/host/update/journal.ts";
import {
  rebootIfDue,
  releaseRebootSlot,
  type RebootTools,
} from "../../../../agent/host/update/reboot.ts";
import { EMPTY_RECORD, type AgentRecord } from "../../../../agent/core/update/record.ts";
import { PullError } from "../../../../agent/core/errors.ts";
import type { RebootLock } from "../../../../agent/core/ports.ts";
import { parseSettings } from "../../../../agent/core/settings.ts";
import { fleetLock } from "../../../../agent/effects/host/fleet-lock.ts";
import { systemTimers } from "../../../../agent/effects/host/clock.ts";
import { writeHold } from "../../../../agent/effects/state/hold-file.ts";
import { operatorCommandFilesIn } from "../../../../agent/effects/state/operator-command-files.ts";
import { History } from "../../../../agent/effects/state/history.ts";
import { StateFile } from "../../../../agent/effects/state/state-file.ts";
import { lockServer } from "../../../support/lock-server.ts";
import { recordingLog } from "../../../support/recording-log.ts";
import { samplePath, sampleRelease } from "../../../support/sample-release.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";
import { testKey } from "../../../support/test-key.ts";

const NIGHT = "2026-02-01T02:30:00.000Z";
const NOON = "2026-02-01T12:00:00.000Z";
const OLD = samplePath("nixos-system-web1-old");
const WINDOW = { cron: "0 2 * * *", duration: "2h" };
const NOON_WINDOW = { cron: "0 12 * * *", duration: "2h" };

interface Circumstances {
  readonly wayBack?: boolean;
  readonly hold?: boolean;
  /** Whether it has taken a slot of the FleetLock server before. */
  readonly holdsSlot?: boolean;
  readonly lock?: RebootLock;
  /** What somebody does while the host announces its reboot. */
  readonly meanwhile?: (stateDirectory: string) => Promise<void>;
}

/** How often a host with a pending reboot is rebooted at a time. */
async function rebootsAt(
  now: string,
  changes: { reboot: object; maintenance?: object },
  { wayBack = false, hold = false, holdsSlot = false, lock, meanwhile }: Circumstances = {},
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
  const state = new StateFile(paths, { history, log, machineId: async () => null });
  await state.prepare();
  if (hold) await writeHold(paths.state, { at: NIGHT, until: null, reason: null });
  let reboots = 0;
  const services = {
    rebootBlockers: async () => [],
    warnUsers: async () => undefined,
    reboot: async () => {
      reboots++;
    },
  };
  const clock = { now: () => new Date(now) };
  // A reboot has to do with nothing else of the agent's tools.
  const commands = operatorCommandFilesIn(paths.state);
  const store = { profileToplevel: async () => sampleRelease().toplevel };
  const parts = { settings, log, history, state, clock, services, commands, store } as object;
  const rebootLock = lock
    ? { ...lock, take: () => lock.take().then(() => meanwhile?.(paths.state)) }
    : null;
  const tools = { ...parts, timers: systemTimers, rebootLock } as RebootTools & JournalTools;
  const baseline = {
    profile: OLD,
    generation: 1,
    running: OLD,
    failedUnits: [],
    restartedUnits: [],
  };
  const record: AgentRecord = {
    ...EMPTY_RECORD,
    holdsRebootSlot: holdsSlot,
    pendingReboot: {
      ...{ release: sampleRelease(), wayBack, baseline, attempts: 0 },
      ...{ bootId: "this boot", requested: 0 },
    },
  };
  const journal = new Journal(record, tools);
  const pass = { journal, tools, signal: undefined };
  await releaseRebootSlot(pass);
  expect(await rebootIfDue(pass)).toBeNull();
  // Only who is about to reboot holds a slot.
  expect(journal.record.holdsRebootSlot).toBe(lock !== undefined && reboots > 0);
  expect(journal.record.pendingReboot?.requested).toBe(reboots);
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

describe("a slot of a FleetLock server", () => {
  /** A lock at a real server, and what that was asked. */
  async function slotAt() {
    const { asked, url } = await lockServer();
    const dispatcher = new Agent();
    onTestFinished(() => dispatcher.destroy());
    const lock = fleetLock({ url, group: "web", id: "web1" }, () => Promise.resolve(dispatcher));
    return { lock, operations: () => asked.map((it) => it.url?.replace("/v1/", "")) };
  }
  const NOW = { reboot: { policy: "now" } };

  test("is kept by a host that reboots now", async () => {
    const { lock, operations } = await slotAt();
    expect(await rebootsAt(NOON, NOW, { lock, holdsSlot: true })).toBe(1);
    expect(operations()).toEqual(["pre-reboot"]);
  });

  test.each<[string, object, boolean]>([
    ["is held", NOW, true],
    ["is outside of its window", { reboot: { policy: "window", window: WINDOW } }, false],
    ["reboots no more by itself", { reboot: { policy: "never" } }, false],
  ])("that was taken before is given back by a host that %s", async (_, rules, hold) => {
    const { lock, operations } = await slotAt();
    const settings = rules as { reboot: object };
    expect(await rebootsAt(NOON, settings, { lock, hold, holdsSlot: true })).toBe(0);
    expect(operations()).toEqual(["steady-state"]);
  });

  test("is given back by a host that is held while it announces its reboot", async () => {
    const { lock, operations } = await slotAt();
    const meanwhile = (state: string): Promise<void> =>
      writeHold(state, { at: NOON, until: null, reason: "not now" });
    expect(await rebootsAt(NOON, NOW, { lock, meanwhile })).toBe(0);
    expect(operations()).toEqual(["pre-reboot", "steady-state"]);
  });

  test("is told of the way back and not asked, and no policy keeps the host from it", async () => {
    const refusal = new PullError("REBOOT_REFUSED", "no slot");
    const lock: RebootLock = {
      take: () => Promise.reject(refusal),
      release: () => Promise.resolve(),
    };
    const never = { reboot: { policy: "never" } };
    expect(await rebootsAt(NOON, never, { lock, wayBack: true })).toBe(1);
    expect(await rebootsAt(NOON, never, { lock })).toBe(0);
  });

  test("is kept on the way back from a failed system, whatever the host waits for", async () => {
    const { lock, operations } = await slotAt();
    const held = { lock, hold: true, wayBack: true, holdsSlot: true };
    expect(await rebootsAt(NOON, NOW, held)).toBe(1);
    expect(operations()).toEqual(["pre-reboot"]);
  });
});
