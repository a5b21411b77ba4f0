import { access, mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { isNotFound, writeDurably } from "../files/durable-file.ts";

/** The index in use, and the one before it: a host that goes back has one to build upon too. */
const KEPT = 2;

const FILE = /^([0-9a-f]{64})\.json$/;

/**
 * Indexes of closures that this host imported, decompressed, each under the hash that a
 * manifest gave of it: what patches are applied to. Whatever is lost or torn here costs
 * reading one index whole, since the result of a patch has a signed hash.
 */
export class IndexCache {
  readonly #directory: string;

  constructor(stateDirectory: string) {
    this.#directory = join(stateDirectory, "indexes");
  }

  /** The file of an index, or null. */
  async find(sha256: string): Promise<string | null> {
    const path = join(this.#directory, `${sha256}.json`);
    return access(path).then(
      () => path,
      () => null,
    );
  }

  /** Keeps an index, and of the older ones the newest. */
  async keep(sha256: string, json: Uint8Array): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const path = join(this.#directory, `${sha256}.json`);
    await writeDurably(path, json);
    const others: { path: string; age: number }[] = [];
    for (const name of await readdir(this.#directory)) {
      const other = join(this.#directory, name);
      if (other === path) continue;
      const found = await stat(other).catch((error: unknown) => {
        if (isNotFound(error)) return null;
        throw error;
      });
      // A name of another form is what a kill left behind.
      if (found) others.push({ path: other, age: FILE.test(name) ? found.mtimeMs : 0 });
    }
    others.sort((a, b) => b.age - a.age);
    for (const [at, { path: other, age }] of others.entries()) {
      if (at >= KEPT - 1 || age === 0) await rm(other, { force: true });
    }
  }
}
