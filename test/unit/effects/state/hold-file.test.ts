import { readFile, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Hold } from "../../../../agent/core/schedule/hold.ts";
import {
  readConfirmation,
  writeConfirmation,
} from "../../../../agent/effects/state/confirmation-file.ts";
import { readHold, removeHold, writeHold } from "../../../../agent/effects/state/hold-file.ts";
import { sampleRelease } from "../../../support/sample-release.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const HOLD: Hold = { at: "2026-02-01T12:00:00.000Z", until: null, reason: "the fair" };

test("a hold is kept for its owner alone, replaced, and ended once", async () => {
  const state = await temporaryDirectory();
  expect(await readHold(state)).toEqual({ kind: "none" });
  await writeHold(state, HOLD);
  expect(await readHold(state)).toEqual({ kind: "held", hold: HOLD });
  expect((await stat(join(state, "hold.json"))).mode & 0o777).toBe(0o600);
  const other = { ...HOLD, until: "2026-02-02T00:00:00.000Z", reason: null };
  await writeHold(state, other);
  expect(await readHold(state)).toEqual({ kind: "held", hold: other });
  expect(await removeHold(state)).toBe(true);
  expect(await removeHold(state)).toBe(false);
  expect(await readHold(state)).toEqual({ kind: "none" });
});

test("a hold is damaged wherever its file is cut off", async () => {
  const state = await temporaryDirectory();
  const file = join(state, "hold.json");
  await writeHold(state, HOLD);
  const whole = await readFile(file);
  // Without its last byte, a newline, it still says everything.
  for (let length = 0; length < whole.length - 1; length++) {
    await writeFile(file, whole);
    await truncate(file, length);
    expect((await readHold(state)).kind, `${length} bytes`).toBe("damaged");
  }
});

test("what is no hold is damaged, however right its checksum", async () => {
  const state = await temporaryDirectory();
  await writeHold(state, { ...HOLD, until: "soon" });
  expect((await readHold(state)).kind).toBe("damaged");
});

test("a confirmation is kept; one that is damaged confirms nothing", async () => {
  const state = await temporaryDirectory();
  expect(await readConfirmation(state)).toBeNull();
  const { sequence, digest, toplevel, mode } = sampleRelease();
  const confirmation = { at: HOLD.at, sequence, digest, toplevel, mode };
  await writeConfirmation(state, confirmation);
  expect(await readConfirmation(state)).toEqual(confirmation);
  await truncate(join(state, "confirmation.json"), 30);
  expect(await readConfirmation(state)).toBeNull();
});
