import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { isSwitchLocked } from "../../../../agent/effects/systemd/switch-lock.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

/** A process that holds a lock until it is told to end. */
async function holder(file: string): Promise<() => Promise<void>> {
  const child = spawn("flock", [file, "sh", "-c", "echo held; read -r line"]);
  onTestFinished(() => void child.kill());
  await once(child.stdout, "data");
  return async () => {
    child.stdin.end();
    await once(child, "close");
  };
}

test("a lock is seen while it is held, and not before or after", async () => {
  const file = join(await temporaryDirectory(), "lock");
  expect(await isSwitchLocked(file)).toBe(false);
  await writeFile(file, "");
  expect(await isSwitchLocked(file)).toBe(false);
  const letGo = await holder(file);
  expect(await isSwitchLocked(file)).toBe(true);
  await letGo();
  expect(await isSwitchLocked(file)).toBe(false);
});

test("who waits for a lock does not hold it, and another kind of lock is none", async () => {
  const directory = await temporaryDirectory();
  const [file, locks] = [join(directory, "lock"), join(directory, "locks")];
  await writeFile(file, "");
  const { ino } = (await import("node:fs")).statSync(file);
  await writeFile(
    locks,
    [
      `1: POSIX  ADVISORY  WRITE 7 00:19:${ino} 0 EOF`,
      `1: -> FLOCK  ADVISORY  WRITE 8 00:19:${ino} 0 EOF`,
      "",
    ].join("\n"),
  );
  expect(await isSwitchLocked(file, locks)).toBe(false);
});

test("without a list of locks nothing is known to be held", async () => {
  const file = join(await temporaryDirectory(), "lock");
  await writeFile(file, "");
  expect(await isSwitchLocked(file, join(file, "nowhere"))).toBe(false);
});
