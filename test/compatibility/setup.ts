import { mkdtemp, readFile, readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";
import type { TestProject } from "vitest/node";
import { buildAgent } from "../../scripts/build.mjs";
import { removeTree } from "../support/temporary.ts";
import { buildLaterVersion } from "./support/later-version.mjs";
import { createPair, type Pair, type Version } from "./support/world.ts";

/** What every file of the suite is given. */
export interface CompatibilityContext {
  /** Each version in the hands of each other, in both directions. */
  readonly pairs: readonly Pair[];
  /** Versions as they were released, oldest first. */
  readonly released: readonly Version[];
  /** These sources with more keys and one more state. */
  readonly later: Version;
}

declare module "vitest" {
  export interface ProvidedContext {
    compatibility: CompatibilityContext;
  }
}

/** Where frozen versions lie. */
export const RELEASED = fileURLToPath(new URL("released", import.meta.url));

/** Unpacks each released bundle, builds the later version, and makes hosts for all pairs. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const directory = await mkdtemp(join(tmpdir(), "nixos-pull-compatibility-"));
  const released: Version[] = [];
  for (const name of (await readdir(RELEASED).catch(() => [])).sort()) {
    const bundle = join(directory, `nixos-pull-${name}.cjs`);
    const packed = await readFile(join(RELEASED, name, "nixos-pull.cjs.br"));
    await writeFile(bundle, brotliDecompressSync(packed));
    released.push({ name, bundle });
  }
  // Before the first freeze, these sources are the old version.
  if (released.length === 0) {
    released.push({
      name: "0.1.0",
      bundle: await buildAgent(join(directory, "nixos-pull-old.cjs")),
    });
  }
  const later = {
    name: "later",
    bundle: await buildLaterVersion(join(directory, "nixos-pull-later.cjs")),
  };
  const pairs = await Promise.all(
    released.flatMap((old) => [
      createPair(directory, [old, later, later]),
      createPair(directory, [later, old, later]),
    ]),
  );
  project.provide("compatibility", { pairs, released, later });
  return () => removeTree(directory);
}
