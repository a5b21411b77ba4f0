import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { unpackIndex } from "../core/archive-index.ts";
import {
  MAX_INDEX_PATCHES,
  type ArchiveReference,
  type HostEntry,
  type IndexPatch,
} from "../core/manifest.ts";
import { TAR_BLOCK } from "../core/tar-layout.ts";
import { drain, streamProcess } from "../effects/process-stream.ts";
import { packBlob } from "./blob-archive.ts";
import type { MirrorWriter } from "./mirror-writer.ts";
import type { KnownRelease } from "./nar-library.ts";

/** Name of the one member of an archive of index patches. */
const MEMBER = "index-patches";

/** An index is small enough for the best that zstd has without `--ultra`. */
const LEVEL = 19;

const TIMEOUT_MS = 600_000;

type Entries = Readonly<Record<string, Pick<HostEntry, "archive">>>;

/**
 * Describes the indexes of these hosts by those that they had in the newest `bases`
 * releases. Gives each host's archive with its patches; without any where all hosts
 * together would read more of the longer manifest than they save. The archives'
 * own patches, from an earlier release, are not kept.
 */
export async function packIndexPatches(
  writer: MirrorWriter,
  entries: Entries,
  releases: readonly KnownRelease[],
  signal: AbortSignal | undefined,
): Promise<Map<string, ArchiveReference>> {
  const work = join(writer.work, "index-patches");
  await mkdir(work, { recursive: true });
  try {
    const maker = new PatchMaker(writer, work, signal);
    const made = new Map<string, { archive: ArchiveReference; patches: UnplacedPatch[] }>();
    for (const [hostname, { archive }] of Object.entries(entries)) {
      const patches: UnplacedPatch[] = [];
      for (const { manifest } of releases.slice(0, MAX_INDEX_PATCHES)) {
        const base = manifest.hosts[hostname]?.archive;
        const patch = base && (await maker.make(base, archive));
        if (patch && !patches.some((other) => other.base === patch.base)) patches.push(patch);
      }
      made.set(hostname, { archive: withoutPatches(archive), patches });
    }
    const worth = isWorthIt([...made.values()]);
    const place = worth ? await maker.place() : null;
    const patched = new Map<string, ArchiveReference>();
    for (const [hostname, { archive, patches }] of made) {
      if (!place || patches.length === 0) {
        patched.set(hostname, archive);
        continue;
      }
      const index = {
        ...archive.index,
        json: maker.jsonHash(archive),
        patches: patches.map((patch): IndexPatch => ({ ...patch, archive: place })),
      };
      patched.set(hostname, { ...archive, index });
    }
    return patched;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

type UnplacedPatch = Omit<IndexPatch, "archive">;

function withoutPatches({ sha256, size, index }: ArchiveReference): ArchiveReference {
  return { sha256, size, index: { sha256: index.sha256, size: index.size } };
}

/** Bytes that one patch, and the hash of the result, take in the manifest. */
const MANIFEST_BYTES = 330;

/** Every host reads the whole manifest, and at most one patch in place of its index. */
function isWorthIt(
  hosts: readonly { archive: ArchiveReference; patches: readonly UnplacedPatch[] }[],
): boolean {
  let saved = 0;
  let added = 0;
  for (const { archive, patches } of hosts) {
    const least = Math.min(...patches.map(({ size }) => size));
    if (patches.length > 0) saved += Math.max(0, archive.index.size - least);
    added += patches.length * MANIFEST_BYTES;
  }
  return saved > added * hosts.length;
}

/** Makes each patch once, and one archive of all. */
class PatchMaker {
  readonly #writer: MirrorWriter;
  readonly #work: string;
  readonly #signal: AbortSignal | undefined;
  readonly #patches = new Map<string, UnplacedPatch | null>();
  /** sha256 of the JSON of each index that has a patch, by the index's own hash. */
  readonly #jsonHashes = new Map<string, string>();
  readonly #blob: Buffer[] = [];
  #offset = TAR_BLOCK;

  constructor(writer: MirrorWriter, work: string, signal: AbortSignal | undefined) {
    this.#writer = writer;
    this.#work = work;
    this.#signal = signal;
  }

  /** Null where they are the same index, one cannot be read, or nothing is saved. */
  async make(base: ArchiveReference, target: ArchiveReference): Promise<UnplacedPatch | null> {
    const key = `${base.index.sha256} ${target.index.sha256}`;
    let patch = this.#patches.get(key);
    if (patch === undefined) {
      patch = await this.#make(base, target);
      this.#patches.set(key, patch);
    }
    return patch;
  }

  async #make(base: ArchiveReference, target: ArchiveReference): Promise<UnplacedPatch | null> {
    if (base.index.sha256 === target.index.sha256) return null;
    const [oldFile, newFile, file] = ["old", "new", "patch"].map((name) => join(this.#work, name));
    if (oldFile === undefined || newFile === undefined || file === undefined) return null;
    const old = await this.#json(base).catch(() => null);
    if (!old) return null;
    await writeFile(oldFile, old);
    const json = await this.#json(target);
    await writeFile(newFile, json);
    const args = ["-q", "-q", "-f", `-${LEVEL}`, `--patch-from=${oldFile}`, newFile, "-o", file];
    const options = {
      env: process.env as Record<string, string>,
      timeoutMs: TIMEOUT_MS,
      signal: this.#signal,
    };
    await streamProcess("zstd", args, options, drain);
    const bytes = await readFile(file);
    if (bytes.length >= target.index.size) return null;
    const sha256 = sha256Of(bytes);
    this.#jsonHashes.set(target.index.sha256, sha256Of(json));
    const patch = { base: base.index.sha256, offset: this.#offset, size: bytes.length, sha256 };
    this.#blob.push(bytes);
    this.#offset += bytes.length;
    return patch;
  }

  /** sha256 of an index before compression, once there is a patch that leads to it. */
  jsonHash({ index }: ArchiveReference): string | undefined {
    return this.#jsonHashes.get(index.sha256);
  }

  /** Writes the archive; gives its hash. */
  async place(): Promise<string> {
    const [blob, file] = [join(this.#work, "blob"), join(this.#work, "archive.tar")];
    await writeFile(blob, Buffer.concat(this.#blob));
    const { sha256 } = await packBlob(MEMBER, blob, file);
    await this.#writer.placeArchive(file, sha256);
    return sha256;
  }

  async #json(archive: ArchiveReference): Promise<Buffer> {
    return unpackIndex(await this.#writer.readIndex(archive));
  }
}

function sha256Of(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}
