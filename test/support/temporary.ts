import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { runProcess } from "../../agent/effects/process/subprocess.ts";

/** A directory that is removed when the test ends. */
export async function temporaryDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "nixos-pull-test-"));
  onTestFinished(async () => {
    await removeTree(directory);
  });
  return directory;
}

/** Removes a tree in which Nix made directories read-only. */
export async function removeTree(directory: string): Promise<void> {
  await runProcess("chmod", ["-R", "u+w", directory], {
    env: { PATH: process.env["PATH"] ?? "" },
    timeoutMs: 60_000,
  });
  await rm(directory, { recursive: true, force: true });
}
