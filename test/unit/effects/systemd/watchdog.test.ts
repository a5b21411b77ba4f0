import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Activity } from "../../../../agent/effects/process/activity.ts";
import { watchdogOf } from "../../../../agent/effects/systemd/watchdog.ts";
import { recordingLog } from "../../../support/recording-log.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const MINUTE_MS = 60_000;
/** 20 minutes: a beat every five, and ten of silence at most. */
const ENVIRONMENT = { NOTIFY_SOCKET: "/run/systemd/notify", WATCHDOG_USEC: "1200000000" };

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function started(environment: Record<string, string> = ENVIRONMENT) {
  const activity = new Activity(() => Date.now());
  const log = recordingLog();
  let beats = 0;
  const notify = async (): Promise<void> => {
    beats += 1;
    // What tells the service manager is no sign of life itself.
    await activity.during(1, async () => undefined);
  };
  const options = { stateDirectory: "/nowhere", log, environment, activity, notify };
  const watchdog = watchdogOf(options);
  const end = watchdog.start();
  const takeBeats = (): number => {
    const taken = beats;
    beats = 0;
    return taken;
  };
  return { activity, watchdog, log, end, takeBeats };
}

describe("the service manager is told that the service lives", () => {
  test("as long as there are signs of that, and again once there are", async () => {
    const { activity, log, end, takeBeats } = started();
    expect(takeBeats()).toBe(1);
    await vi.advanceTimersByTimeAsync(60 * MINUTE_MS);
    expect(takeBeats()).toBe(2);
    expect(log.lines.map(({ level, fields }) => [level, fields["code"]])).toEqual([
      ["error", "AGENT_HUNG"],
    ]);
    activity.sign();
    await vi.advanceTimersByTimeAsync(5 * MINUTE_MS);
    expect(takeBeats()).toBe(1);
    end();
    activity.sign();
    await vi.advanceTimersByTimeAsync(60 * MINUTE_MS);
    expect(takeBeats()).toBe(0);
  });

  test("all through a silent wait that has an end, and not for long after it", async () => {
    const { activity, takeBeats } = started();
    void activity.during(100 * MINUTE_MS, () => new Promise(() => undefined));
    await vi.advanceTimersByTimeAsync(110 * MINUTE_MS);
    expect(takeBeats()).toBe(23);
    await vi.advanceTimersByTimeAsync(110 * MINUTE_MS);
    expect(takeBeats()).toBe(0);
  });

  test("while pieces come, however slowly, and not while only others are at work", async () => {
    const { activity, takeBeats } = started();
    const source = async function* () {
      for (let piece = 0; piece < 10; piece++) {
        await new Promise((resolve) => setTimeout(resolve, 9 * MINUTE_MS));
        yield piece;
      }
    };
    const read = async (): Promise<void> => {
      for await (const _ of activity.pieces(source(), MINUTE_MS));
    };
    const reading = read();
    await vi.advanceTimersByTimeAsync(90 * MINUTE_MS);
    await reading;
    expect(takeBeats()).toBe(19);
    const beside = activity.beside(read);
    await vi.advanceTimersByTimeAsync(90 * MINUTE_MS);
    await beside;
    expect(takeBeats()).toBe(2);
  });

  test.each([
    ["no service manager", { WATCHDOG_USEC: "1200000000" }],
    ["one without a watchdog", { NOTIFY_SOCKET: "/run/systemd/notify" }],
    ["one that watches another process", { ...ENVIRONMENT, WATCHDOG_PID: "1" }],
  ])("not if there is %s", async (_, environment) => {
    const { takeBeats } = started(environment);
    await vi.advanceTimersByTimeAsync(60 * MINUTE_MS);
    expect(takeBeats()).toBe(0);
  });
});

test("a hang of an earlier service is told once; other ends are none", async () => {
  const stateDirectory = await temporaryDirectory();
  const watchdog = watchdogOf({ stateDirectory, log: recordingLog(), environment: {} });
  for (const result of ["success", "watchdog", "oom-kill"]) {
    await writeFile(join(stateDirectory, `ended-${result}`), "");
  }
  expect(await watchdog.takeHang()).toBeInstanceOf(Date);
  expect(await watchdog.takeHang()).toBeNull();
  await writeFile(join(stateDirectory, "ended-signal"), "");
  expect(await watchdog.takeHang()).toBeNull();
});
