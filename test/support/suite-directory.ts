import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { removeTree } from "./temporary.ts";

/** A directory for a whole file of tests; called at the file's top level. */
export function suiteDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "nixos-pull-suite-"));
  afterAll(async () => {
    await removeTree(directory);
  });
  return directory;
}
