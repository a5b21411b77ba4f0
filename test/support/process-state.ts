import { readFile } from "node:fs/promises";
import { expect, vi } from "vitest";

/** Whether a process is there, and not only as a zombie that nobody has waited for. */
export async function isAlive(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return stat !== "" && !stat.includes(") Z ");
}

/** Waits until a process has ended; fails if it lives on. A signal may take a moment to act. */
export async function expectEnd(pid: number): Promise<void> {
  expect(pid).toBeGreaterThan(1);
  const look = async (): Promise<void> => {
    if (await isAlive(pid)) throw new Error(`process ${pid} is alive`);
  };
  await vi.waitFor(look, { timeout: 60_000, interval: 20 });
}
