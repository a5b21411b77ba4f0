import { join } from "node:path";
import * as z from "zod";
import type { CachedManifest, ManifestCache } from "../../core/ports.ts";
import { readChecked, writeChecked } from "../files/checked-file.ts";

const entrySchema = z.strictObject({
  etag: z.string().optional(),
  lastModified: z.string().optional(),
  /** The envelope as it was read, base64. It is verified again whenever it is used. */
  envelope: z.string(),
});

const cacheSchema = z.record(z.string(), entrySchema);

/**
 * The last manifest of each mirror, so that an unchanged one costs only an answer of HTTP 304. If
 * the file is lost, manifests are read whole once. Nothing in it is trusted without verification.
 */
export class ManifestCacheFile implements ManifestCache {
  readonly #path: string;
  #entries: Map<string, z.infer<typeof entrySchema>> | null = null;
  #dirty = false;

  constructor(stateDirectory: string) {
    this.#path = join(stateDirectory, "manifests.json");
  }

  async get(mirror: string, channel: string): Promise<CachedManifest | null> {
    const entry = (await this.#load()).get(cacheKey(mirror, channel));
    if (!entry) return null;
    return {
      // Seldom wanted: a mirror whose manifest did not change mostly is one that was verified.
      get bytes() {
        return Buffer.from(entry.envelope, "base64");
      },
      validators: { etag: entry.etag, lastModified: entry.lastModified },
    };
  }

  async put(mirror: string, channel: string, manifest: CachedManifest): Promise<void> {
    const { etag, lastModified } = manifest.validators;
    (await this.#load()).set(cacheKey(mirror, channel), {
      ...(etag === undefined ? {} : { etag }),
      ...(lastModified === undefined ? {} : { lastModified }),
      envelope: Buffer.from(manifest.bytes).toString("base64"),
    });
    this.#dirty = true;
  }

  async drop(mirror: string, channel: string): Promise<void> {
    if ((await this.#load()).delete(cacheKey(mirror, channel))) this.#dirty = true;
  }

  /** Writes the file if something changed. Throws the operating system's errors. */
  async save(): Promise<void> {
    if (!this.#dirty || !this.#entries) return;
    await writeChecked(this.#path, Object.fromEntries(this.#entries));
    this.#dirty = false;
  }

  async #load(): Promise<Map<string, z.infer<typeof entrySchema>>> {
    if (!this.#entries) {
      const read = await readChecked(this.#path, cacheSchema);
      this.#entries = new Map(read.kind === "read" ? Object.entries(read.value) : []);
    }
    return this.#entries;
  }
}

function cacheKey(mirror: string, channel: string): string {
  return `${channel} ${mirror}`;
}
