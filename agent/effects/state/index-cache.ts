import { access, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MAX_VERIFIED_BYTES } from "../../core/formats/verified-signatures.ts";
import type { IndexCache } from "../../core/ports.ts";
import { writeDurably } from "../files/durable-file.ts";
import { ifMissing } from "../files/missing-file.ts";
import { makeDirectory } from "../files/make-directory.ts";
import { readRegularFile } from "../files/regular-file.ts";

/** The index in use and the one before it: after a rollback there is one to patch, too. */
const KEPT = 2;

/** The signatures of the last index's paths that were found right. */
const VERIFIED = "verified-signatures";

const FILE = /^([0-9a-f]{64})\.json$/;

/**
 * Indexes as files in the state directory. If one is lost or torn, the next index is read
 * whole: the result of a patch has a signed hash.
 */
export class IndexFiles implements IndexCache {
  readonly #directory: string;

  constructor(stateDirectory: string) {
    this.#directory = join(stateDirectory, "indexes");
  }

  async find(sha256: string): Promise<string | null> {
    const path = join(this.#directory, `${sha256}.json`);
    return access(path).then(
      () => path,
      () => null,
    );
  }

  async verified(): Promise<Buffer | null> {
    const path = join(this.#directory, VERIFIED);
    const options = { code: "STATE_CORRUPT", maxBytes: MAX_VERIFIED_BYTES } as const;
    return readRegularFile(path, options).catch(() => null);
  }

  async keep(
    sha256: string,
    { json, verified }: { json: Uint8Array; verified: Uint8Array },
  ): Promise<void> {
    await makeDirectory(this.#directory, 0o700);
    // Not durably: whatever is torn is no more than checked again.
    await writeFile(join(this.#directory, VERIFIED), verified, { mode: 0o600 });
    const path = join(this.#directory, `${sha256}.json`);
    await writeDurably(path, json);
    const others: { path: string; age: number }[] = [];
    for (const name of await readdir(this.#directory)) {
      const other = join(this.#directory, name);
      if (other === path || name === VERIFIED) continue;
      const found = await ifMissing(stat(other), null);
      // A kill leaves names of another form behind.
      if (found) others.push({ path: other, age: FILE.test(name) ? found.mtimeMs : 0 });
    }
    others.sort((a, b) => b.age - a.age);
    for (const [at, { path: other, age }] of others.entries()) {
      if (at >= KEPT - 1 || age === 0) await rm(other, { force: true });
    }
  }
}
