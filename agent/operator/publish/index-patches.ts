import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { unpackIndex } from "../../core/formats/archive-index.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import {
  MAX_INDEX_PATCHES,
  type ArchiveReference,
  type HostEntry,
  type IndexPatch,
} from "../../core/formats/manifest.ts";
import { TAR_BLOCK } from "../../core/formats/tar-layout.ts";
import { drain, streamProcess } from "../../effects/process/subprocess.ts";
import { packBlob } from "./blob-archive.ts";
import type { MirrorWriter } from "../mirror/mirror-writer.ts";
import type { KnownRelease } from "./nar-library.ts";
import { parallelMap } from "../../effects/process/parallel-map.ts";
import { makeDirectory } from "../../effects/files/make-directory.ts";

/** Name of the one member of an archive of index patches. */
const MEMBER = "index-patches";

/**
 * The highest level without `--ultra`, for the index of a server. The time that it takes grows faster
 * than the index: of one of 5,000 paths it makes 58 kB in 1.9 s, and level 9 makes 64 kB in 0.06 s.
 */
const SMALL_INDEX = { maxBytes: 256 * 1024, level: 19 };
const LEVEL = 9;

const TIMEOUT_MS = 600_000;

type Entries = Readonly<Record<string, Pick<HostEntry, "archive">>>;

/**
 * Makes patches that lead from the indexes that these hosts had in the newest `releases` to their
 * new ones. Gives each host's archive with its patches. No archive gets any if hosts would spend
 * more on the longer manifest than they save. Patches from an earlier release are dropped.
 */
export async function packIndexPatches(
  writer: MirrorWriter,
  entries: Entries,
  releases: readonly KnownRelease[],
  signal: AbortSignal | undefined,
): Promise<Map<string, ArchiveReference>> {
  const work = join(writer.work, "index-patches");
  await makeDirectory(work);
  try {
    const maker = new PatchMaker(writer, work, signal);
    const made = await parallelMap(Object.entries(entries), async ([hostname, { archive }]) => {
      const patches: MadePatch[] = [];
      for (const { manifest } of releases.slice(0, MAX_INDEX_PATCHES)) {
        const base = manifest.hosts[hostname]?.archive;
        const patch = base && (await maker.make(base, archive));
        if (patch && !patches.some((other) => other.base === patch.base)) patches.push(patch);
      }
      return { hostname, archive: withoutPatches(archive), patches };
    });
    if (!isWorthIt(made)) return new Map(made.map(({ hostname, archive }) => [hostname, archive]));
    const places = await placePatches(
      writer,
      work,
      new Set(made.flatMap(({ patches }) => patches)),
    );
    return new Map(
      made.map(({ hostname, archive, patches }) => {
        const [first] = patches;
        if (!first) return [hostname, archive];
        const placed = patches.flatMap((patch) => places.get(patch) ?? []);
        const index = { ...archive.index, json: first.jsonSha256, patches: placed };
        return [hostname, { ...archive, index }];
      }),
    );
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** A patch that lies in no archive yet. */
interface MadePatch extends Omit<IndexPatch, "archive" | "offset"> {
  readonly bytes: Buffer;
  /** Of the index that it leads to, before compression. */
  readonly jsonSha256: string;
}

function withoutPatches({ sha256, size, index }: ArchiveReference): ArchiveReference {
  return { sha256, size, index: { sha256: index.sha256, size: index.size } };
}

/** Bytes that one patch, and the hash of the result, take in the manifest. */
const MANIFEST_BYTES = 330;

/** Whether patches save more than they cost: every host reads the whole manifest, but one patch. */
function isWorthIt(
  hosts: readonly { archive: ArchiveReference; patches: readonly MadePatch[] }[],
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

/** Puts patches into an archive, in this order; gives what the manifest says of each. */
async function placePatches(
  writer: MirrorWriter,
  work: string,
  patches: ReadonlySet<MadePatch>,
): Promise<Map<MadePatch, IndexPatch>> {
  const [blob, file] = [join(work, "blob"), join(work, "archive.tar")];
  await writeFile(blob, Buffer.concat([...patches].map(({ bytes }) => bytes)));
  const { sha256: archive } = await packBlob(MEMBER, blob, file);
  await writer.placeArchive(file, archive);
  const places = new Map<MadePatch, IndexPatch>();
  let offset = TAR_BLOCK;
  for (const patch of patches) {
    const { base, size, sha256 } = patch;
    places.set(patch, { base, offset, size, sha256, archive });
    offset += size;
  }
  return places;
}

/** Makes each patch once, however many hosts it serves. */
class PatchMaker {
  readonly #writer: MirrorWriter;
  readonly #work: string;
  readonly #signal: AbortSignal | undefined;
  readonly #patches = new Map<string, Promise<MadePatch | null>>();

  constructor(writer: MirrorWriter, work: string, signal: AbortSignal | undefined) {
    this.#writer = writer;
    this.#work = work;
    this.#signal = signal;
  }

  /** Null if both are the same index, one cannot be read, or a patch saves nothing. */
  make(base: ArchiveReference, target: ArchiveReference): Promise<MadePatch | null> {
    const key = `${base.index.sha256} ${target.index.sha256}`;
    const patch = this.#patches.get(key) ?? this.#make(base, target, String(this.#patches.size));
    this.#patches.set(key, patch);
    return patch;
  }

  async #make(
    base: ArchiveReference,
    target: ArchiveReference,
    name: string,
  ): Promise<MadePatch | null> {
    if (base.index.sha256 === target.index.sha256) return null;
    const old = await this.#json(base).catch(() => null);
    if (!old) return null;
    const json = await this.#json(target);
    const files = ["old", "new", "patch"].map((kind) => join(this.#work, `${name}.${kind}`));
    const [oldFile = "", newFile = "", file = ""] = files;
    await writeFile(oldFile, old);
    await writeFile(newFile, json);
    const level = json.length <= SMALL_INDEX.maxBytes ? SMALL_INDEX.level : LEVEL;
    const args = ["-q", "-q", "-f", `-${level}`, `--patch-from=${oldFile}`, newFile, "-o", file];
    const options = {
      env: process.env as Record<string, string>,
      timeoutMs: TIMEOUT_MS,
      signal: this.#signal,
    };
    await streamProcess("zstd", args, options, drain);
    const bytes = await readFile(file);
    for (const used of files) await rm(used, { force: true });
    if (bytes.length >= target.index.size) return null;
    const [sha256, jsonSha256] = [sha256Hex(bytes), sha256Hex(json)];
    return { base: base.index.sha256, size: bytes.length, sha256, bytes, jsonSha256 };
  }

  async #json(archive: ArchiveReference): Promise<Buffer> {
    return unpackIndex(await this.#writer.readIndex(archive));
  }
}
