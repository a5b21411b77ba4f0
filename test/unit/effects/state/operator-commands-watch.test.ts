import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { writeConfirmation } from "../../../../agent/effects/state/confirmation-file.ts";
import { removeHold, writeHold } from "../../../../agent/effects/state/hold-file.ts";
import { DirectoryCommandsWatch } from "../../../../agent/effects/state/operator-commands-watch.ts";
import { sampleRelease } from "../../../support/sample-release.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const AT = "2026-02-01T12:00:00.000Z";
const HOLD = { at: AT, until: null, reason: null };
const HOUR_MS = 3_600_000;

/** A watch that only the kernel wakes, unless it is told otherwise. */
async function watched(options: ConstructorParameters<typeof DirectoryCommandsWatch>[1] = {}) {
  const directory = await temporaryDirectory();
  const watch = new DirectoryCommandsWatch(directory, { lookEveryMs: HOUR_MS, ...options });
  await watch.look();
  const stop = new AbortController();
  onTestFinished(() => {
    stop.abort();
  });
  return { directory, watch, stop, news: () => watch.untilNews(stop.signal) };
}

const DEAF: ConstructorParameters<typeof DirectoryCommandsWatch>[1] = {
  lookEveryMs: 20,
  watchDirectory: () => {
    throw new Error("ENOSPC: no inotify watch is left");
  },
};

describe("orders are heard", () => {
  test.each([
    ["by the kernel's word", {}],
    ["where the kernel gives none, by looking", DEAF],
  ])("%s: a hold, its end, a confirmation", async (_, options) => {
    const { directory, watch, news } = await watched(options);
    let waiting = news();
    await writeHold(directory, HOLD);
    expect(await waiting).toBe(true);
    await watch.look();
    waiting = news();
    await removeHold(directory);
    expect(await waiting).toBe(true);
    await watch.look();
    waiting = news();
    const { sequence, digest, toplevel, mode } = sampleRelease();
    await writeConfirmation(directory, { at: AT, sequence, digest, toplevel, mode });
    expect(await waiting).toBe(true);
  });

  test("where they came before anybody waited", async () => {
    const { directory, news } = await watched();
    await writeHold(directory, HOLD);
    expect(await news()).toBe(true);
    // It stays news until it is looked at.
    expect(await news()).toBe(true);
  });
});

test("other files of the state directory are no orders, and a stop ends the wait", async () => {
  const { directory, watch, stop, news } = await watched({ lookEveryMs: 20 });
  await writeHold(directory, HOLD);
  await watch.look();
  const waiting = news();
  for (let at = 0; at < 20; at++) await writeFile(join(directory, "state.json"), String(at));
  stop.abort();
  expect(await waiting).toBe(false);
});

test("a state directory that goes away is waited for", async () => {
  const { directory, stop, news } = await watched({ lookEveryMs: 20 });
  await rm(directory, { recursive: true });
  const waiting = news();
  stop.abort();
  expect(await waiting).toBe(false);
});
