import {
  endOfIndex,
  readIndex,
  type ArchiveContents,
  type NarMember,
  type OtherArchive,
} from "../../core/formats/archive-index.ts";
import type { ByteRange } from "../../core/formats/byte-ranges.ts";
import { PullError, toPullError, type ErrorCode } from "../../core/errors.ts";
import type { ReleasedSystem } from "../../core/formats/manifest.ts";
import { Sha256 } from "../../core/formats/sha256.ts";
import type { PublicKey } from "../../core/formats/signing-key.ts";
import { TAR_BLOCK, paddedSize } from "../../core/formats/tar-layout.ts";
import type { Mirror } from "../../core/ports.ts";
import { ByteReader } from "../../core/transfer/byte-reader.ts";
import { readCompressedIndex } from "../../core/transfer/compressed-index.ts";
import type { Delta } from "../../core/transfer/delta.ts";
import { planRuns, type Run } from "../../core/transfer/fetch-plan.ts";
import { readRun } from "../../core/transfer/run-reader.ts";
import { membersWithin } from "../../core/transfer/stick-plan.ts";
import { readPatchArchive } from "./patch-archive.ts";
import { verifyMembers, verifyNar } from "./verify-members.ts";

/** What was found out about the archive of a system. */
export interface VerifiedArchive {
  /** Store paths of the closure, or null if the archive is bad. */
  readonly paths: number | null;
  /** What is wrong with it; absent if nothing is. */
  readonly fault?: { readonly code: ErrorCode; readonly message: string };
  /** What it needs of other archives, which is still to be verified. */
  readonly elsewhere: readonly Elsewhere[];
  /** NARs and deltas of the closure that the mirror has. */
  readonly members: number;
  /** NARs of the closure that the mirror does not have. */
  readonly missing: number;
}

/** NARs and deltas in another archive. */
export interface Elsewhere {
  readonly archive: OtherArchive;
  readonly nars: readonly NarMember[];
  readonly deltas: readonly Delta[];
}

/** Verifies a mirror's archives, each once, however many hosts use it. */
export class ArchiveVerifier {
  readonly #mirror: Mirror;
  readonly #storeKeys: readonly PublicKey[];
  readonly #signal: AbortSignal | undefined;
  readonly #parts = new Map<string, readonly ByteRange[] | null>();
  readonly #systems = new Map<string, Promise<VerifiedArchive>>();

  constructor(
    mirror: Mirror,
    options: { storeKeys: readonly PublicKey[]; signal?: AbortSignal | undefined },
  ) {
    this.#mirror = mirror;
    this.#storeKeys = options.storeKeys;
    this.#signal = options.signal;
  }

  /** Verifies the archive of a system. Throws INTERRUPTED only. */
  verifySystem(system: ReleasedSystem): Promise<VerifiedArchive> {
    const key = `${system.archive.sha256} ${system.toplevel}`;
    const known = this.#systems.get(key) ?? this.#verifySystem(system);
    this.#systems.set(key, known);
    return known;
  }

  /**
   * Verifies an archive that systems share: its hash, and every NAR that one of them needs; of an
   * archive that is here in part, the NARs and deltas. Gives what is wrong, or null.
   */
  async verifyShared({ archive, nars, deltas }: Elsewhere): Promise<PullError | null> {
    const isPart = (await this.#partsOf(archive.sha256)) !== null;
    return faultOf(() =>
      isPart
        ? this.#verifyPart(archive.sha256, nars, deltas)
        : this.#verifyWholeShared(archive, nars),
    );
  }

  /** Verifies an archive of index patches. Gives what is wrong, or null. */
  async verifyPatches(sha256: string): Promise<PullError | null> {
    const fault = await faultOf(async () => {
      await readPatchArchive(this.#mirror, sha256, this.#signal);
    });
    // Hosts read the whole index if there are no patches.
    return fault?.code === "MIRROR_NOT_FOUND" ? null : fault;
  }

  async #verifySystem(system: ReleasedSystem): Promise<VerifiedArchive> {
    const { sha256 } = system.archive;
    try {
      const own = await this.#partsOf(sha256);
      const contents = await (own === null ? this.#readWhole(system) : this.#readThinIndex(system));
      const held = new Map<string, readonly ByteRange[] | null>([[sha256, own]]);
      for (const { archive } of contents.elsewhere) {
        held.set(archive.sha256, await this.#partsOf(archive.sha256));
      }
      const { nars, deltas, count, missing } = membersWithin(contents, held);
      if (own !== null) {
        await this.#verifyPart(sha256, nars.get(sha256) ?? [], deltas.get(sha256) ?? []);
      }
      const elsewhere = contents.elsewhere.map(({ archive }) => ({
        archive,
        nars: nars.get(archive.sha256) ?? [],
        deltas: deltas.get(archive.sha256) ?? [],
      }));
      return { paths: contents.narInfos.length, elsewhere, members: count, missing };
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      if (code === "INTERRUPTED") throw thrown;
      return { paths: null, fault: { code, message }, elsewhere: [], members: 0, missing: 0 };
    }
  }

  /** Which bytes of an archive the mirror has; null for all, and if that cannot be told. */
  async #partsOf(sha256: string): Promise<readonly ByteRange[] | null> {
    let parts = this.#parts.get(sha256);
    if (parts === undefined) {
      // A damaged archive is found out when it is read.
      parts = await (this.#mirror.heldParts?.(sha256) ?? Promise.resolve(null)).catch(() => null);
      this.#parts.set(sha256, parts);
    }
    return parts;
  }

  #verifyPart(sha256: string, nars: readonly NarMember[], deltas: readonly Delta[]): Promise<void> {
    return verifyMembers({ sha256, nars, deltas }, (range) =>
      this.#mirror.readArchive(sha256, range, this.#signal),
    );
  }

  async #readThinIndex(system: ReleasedSystem): Promise<ArchiveContents> {
    const compressed = await readCompressedIndex(this.#mirror, system, this.#signal);
    return readIndex(compressed, system, this.#storeKeys);
  }

  /** Reads a system's archive from its first byte to its last; gives its index. */
  async #readWhole(system: ReleasedSystem): Promise<ArchiveContents> {
    const { archive } = system;
    return this.#hashed(archive, async (reader) => {
      await reader.skip(TAR_BLOCK);
      const compressed = await reader.take(archive.index.size);
      const contents = readIndex(compressed, system, this.#storeKeys);
      await reader.skip(endOfIndex(archive.index.size) - TAR_BLOCK - archive.index.size);
      const own = { ...contents, elsewhere: [] };
      const everything = new Map(contents.members.map(({ name }) => [name, 0]));
      const runs = planRuns(own, everything, Infinity);
      for (const run of runs) {
        await readRun(run, contents, reader.pieces(run.to - run.from), verifyNar);
      }
      // An archive without NARs of its own has no runs.
      if (runs.length === 0) await reader.skip(archive.size - endOfIndex(archive.index.size));
      return contents;
    });
  }

  async #verifyWholeShared(archive: OtherArchive, nars: readonly NarMember[]): Promise<void> {
    const { sha256, size } = archive;
    const run: Run = {
      ...{ archive: sha256, from: 0, to: size },
      members: nars.map((member) => ({ member, wanted: true, have: 0 })),
    };
    const last = nars.at(-1);
    const end = last ? last.headerOffset + TAR_BLOCK + paddedSize(last.size) : 0;
    await this.#hashed(archive, async (reader) => {
      await readRun(run, { sha256: "", size: 0 }, reader.pieces(end), verifyNar);
      await reader.skip(size - end);
    });
  }

  /** Lets `read` take every byte of an archive, and then compares the archive's hash. */
  async #hashed<T>(
    { sha256, size }: OtherArchive,
    read: (reader: ByteReader) => Promise<T>,
  ): Promise<T> {
    const hash = new Sha256();
    const whole = this.#mirror.readArchive(sha256, { from: 0, to: size }, this.#signal);
    const reader = new ByteReader(hash.pass(whole));
    try {
      const result = await read(reader);
      const found = hash.hex();
      if (found === sha256) return result;
      throw new PullError("ARCHIVE_CORRUPT", `archive: expected sha256 ${sha256}, found ${found}`);
    } finally {
      await reader.close();
    }
  }
}

async function faultOf(verify: () => Promise<void>): Promise<PullError | null> {
  try {
    await verify();
    return null;
  } catch (thrown) {
    const error = toPullError(thrown);
    if (error.code === "INTERRUPTED") throw error;
    return error;
  }
}

/** What any system needs of each other archive: each NAR once, by offset, and each delta once. */
export function mergeElsewhere(all: readonly Elsewhere[]): Elsewhere[] {
  const others = new Map<
    string,
    { archive: OtherArchive; nars: Map<string, NarMember>; deltas: Map<string, Delta> }
  >();
  for (const { archive, nars, deltas } of all) {
    // Two releases may disagree about the size: then both claims are verified.
    const key = `${archive.sha256} ${archive.size}`;
    const other = others.get(key) ?? { archive, nars: new Map(), deltas: new Map() };
    for (const nar of nars) other.nars.set(`${nar.headerOffset} ${nar.name}`, nar);
    for (const delta of deltas) other.deltas.set(`${delta.offset} ${delta.sha256}`, delta);
    others.set(key, other);
  }
  return [...others.values()].map(({ archive, nars, deltas }) => ({
    archive,
    nars: [...nars.values()].sort((a, b) => a.headerOffset - b.headerOffset),
    deltas: [...deltas.values()],
  }));
}
