import { createHash, type Hash } from "node:crypto";
import {
  endOfIndex,
  readIndex,
  type ArchiveContents,
  type NarMember,
  type OtherArchive,
} from "../../core/formats/archive-index.ts";
import type { ByteRange } from "../../core/formats/byte-ranges.ts";
import type { Delta } from "../../core/transfer/delta.ts";
import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { PullError, toPullError, type ErrorCode } from "../../core/errors.ts";
import { planRuns, type Run } from "../../core/transfer/fetch-plan.ts";
import {
  entryOf,
  readManifest,
  releaseFor,
  systemsOf,
  type ReleasedSystem,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import {
  EMPTY_STICK_CONTENTS,
  packedHosts,
  type StickContents,
} from "../../core/formats/stick-contents.ts";
import type { Mirror } from "../../core/ports.ts";
import type { PublicKey } from "../../core/formats/signing-key.ts";
import { membersWithin } from "../../core/transfer/stick-plan.ts";
import { TAR_BLOCK, paddedSize } from "../../core/formats/tar-layout.ts";
import { readCompressedIndex } from "../../core/transfer/compressed-index.ts";
import { ByteReader } from "../../core/transfer/byte-reader.ts";
import { readRun } from "../../core/transfer/run-reader.ts";
import { patchArchivesOf, readPatchArchive } from "./patch-archive.ts";
import { verifyMembers, verifyNar } from "./verify-members.ts";

/** What was found out about one host's archive. */
export interface VerifiedHost {
  readonly hostname: string;
  readonly toplevel: string;
  readonly archive: string;
  readonly paths: number | null;
  /** True where the stick was packed without this host. */
  readonly leftOut?: boolean;
  /** NARs that it has to have already, where the stick was packed for what it has. */
  readonly missing?: number;
  /** Absent where everything is right. */
  readonly code?: ErrorCode;
  readonly message?: string;
}

export interface VerifiedMirror {
  readonly signed: SignedManifest;
  readonly expired: boolean;
  readonly hosts: readonly VerifiedHost[];
}

/**
 * Verifies a mirror as a host would, and more: the manifest's signatures and form, and
 * every byte of every archive that it names (or of one host's). Throws for the manifest;
 * what is wrong with archives is in the result. `onHost` hears of each host begun.
 */
export async function verifyMirror(
  mirror: Mirror,
  options: {
    channel: string;
    trust: TrustPolicy;
    /** Whose signatures of store paths count. */
    storeKeys: readonly PublicKey[];
    hostname?: string | undefined;
    /** What a stick was packed with; a host that is asked for by name has to be there. */
    packing?: StickContents | undefined;
    now: Date;
    signal?: AbortSignal | undefined;
    onHost: (hostname: string) => void;
  },
): Promise<VerifiedMirror> {
  const answer = await mirror.readManifest(options.channel, { signal: options.signal });
  if (answer.kind !== "read") {
    throw new PullError("MIRROR_STATUS", `${mirror.address}: "not modified" without being asked`);
  }
  const signed = readManifest(answer.bytes, options.trust);
  if (signed.manifest.channel !== options.channel) {
    throw new PullError(
      "CHANNEL_MISMATCH",
      `expected a manifest of channel ${options.channel}, found one of ${signed.manifest.channel}`,
    );
  }
  const names =
    options.hostname === undefined ? Object.keys(signed.manifest.hosts) : [options.hostname];
  const packed = packedHosts(options.packing ?? EMPTY_STICK_CONTENTS, signed.digest);
  const parts = new PartsOf(mirror);
  const verified = new Map<string, VerifiedArchive>();
  const entries: { hostname: string; system: ReleasedSystem; own: VerifiedArchive }[] = [];
  /** One for each system of a host. */
  const results = new Map<string, VerifiedHost[]>();
  for (const hostname of names) {
    const release = releaseFor(signed, hostname);
    if (options.hostname === undefined && packed?.has(hostname) === false) {
      const { toplevel, archive } = release;
      const nothing = { paths: null, leftOut: true };
      results.set(hostname, [{ hostname, toplevel, archive: archive.sha256, ...nothing }]);
      continue;
    }
    // Holds its place in the order.
    results.set(hostname, []);
    options.onHost(hostname);
    // Hosts with the same system share an archive; it is read once.
    const entry = entryOf(signed.manifest, hostname);
    for (const system of entry ? systemsOf(entry) : [release]) {
      const key = `${system.archive.sha256} ${system.toplevel}`;
      const own = verified.get(key) ?? (await verifyArchive(mirror, system, parts, options));
      verified.set(key, own);
      entries.push({ hostname, system, own });
    }
  }
  // The other archives are read once as well, for all hosts that have NARs in them.
  const others = otherArchives(entries.flatMap(({ own }) => own.elsewhere));
  const faults = new Map<string, PullError>();
  for (const { archive, nars, deltas } of others.values()) {
    options.onHost(`archive ${archive.sha256.slice(0, 12)}…`);
    const isPart = (await parts.of(archive.sha256)) !== null;
    const fault = await (isPart
      ? faultOf(() =>
          verifyMembers(archive.sha256, nars, deltas, (range) =>
            mirror.readArchive(archive.sha256, range, options.signal),
          ),
        )
      : verifyOther(mirror, archive, nars, options.signal));
    if (fault) faults.set(archive.sha256, fault);
  }
  for (const sha256 of patchArchivesOf(entries.map(({ system }) => system))) {
    options.onHost(`index patches ${sha256.slice(0, 12)}…`);
    const fault = await faultOf(async () => {
      await readPatchArchive(mirror, sha256, options.signal);
    });
    // Where there is none, indexes are read whole.
    if (fault && fault.code !== "MIRROR_NOT_FOUND") faults.set(sha256, fault);
  }
  const found = new Map<string, number>();
  for (const { hostname, own } of entries) {
    found.set(hostname, (found.get(hostname) ?? 0) + own.members);
  }
  for (const { hostname, system, own } of entries) {
    const { facts, elsewhere, missing } = own;
    const named = [...elsewhere.map(({ archive }) => archive.sha256), ...patchArchivesOf([system])];
    const bad = named.find((sha256) => faults.has(sha256));
    const fault =
      facts.code === undefined
        ? ((bad === undefined ? undefined : faults.get(bad)) ??
          lossOf(packed?.get(hostname)?.members ?? null, found.get(hostname) ?? 0, missing))
        : undefined;
    const { code, message } = fault ?? facts;
    results.get(hostname)?.push({
      ...{ hostname, ...facts },
      ...(missing > 0 && { missing }),
      ...(fault && { paths: null }),
      ...(code && { code }),
      ...(message !== undefined && { message }),
    });
  }
  const hosts = [...results.values()].flat();
  const expired = Date.parse(signed.manifest.expiresAt) <= options.now.getTime();
  return { signed, expired, hosts };
}

/** Whether less is there than was packed; `packed` is null for everything. */
function lossOf(packed: number | null, found: number, missing: number): PullError | undefined {
  if (packed === null ? missing === 0 : found >= packed) return undefined;
  return new PullError(
    "ARCHIVE_PARTIAL",
    packed === null
      ? `${missing} NARs of its closure are not here, and nothing says that they were left out`
      : `expected ${packed} NARs and deltas, which were packed for it, found ${found}`,
  );
}

/** Which bytes of each archive a mirror has; null for all, and where it cannot be told. */
class PartsOf {
  readonly #mirror: Mirror;
  readonly #known = new Map<string, readonly ByteRange[] | null>();

  constructor(mirror: Mirror) {
    this.#mirror = mirror;
  }

  async of(sha256: string): Promise<readonly ByteRange[] | null> {
    let parts = this.#known.get(sha256);
    if (parts === undefined) {
      // What is wrong with it is found when it is read.
      parts = await (this.#mirror.heldParts?.(sha256) ?? Promise.resolve(null)).catch(() => null);
      this.#known.set(sha256, parts);
    }
    return parts;
  }
}

/** What was found out about a host's own archive, and which others it names. */
interface VerifiedArchive {
  readonly facts: Omit<VerifiedHost, "hostname">;
  /** Of the others, what is to be looked at there. */
  readonly elsewhere: readonly Elsewhere[];
  /** NARs and deltas of the closure that are here, and NARs that are not. */
  readonly members: number;
  readonly missing: number;
}

interface Elsewhere {
  readonly archive: OtherArchive;
  readonly nars: readonly NarMember[];
  readonly deltas: readonly Delta[];
}

async function verifyArchive(
  mirror: Mirror,
  system: ReleasedSystem,
  parts: PartsOf,
  { storeKeys, signal }: { storeKeys: readonly PublicKey[]; signal?: AbortSignal | undefined },
): Promise<VerifiedArchive> {
  const { archive, toplevel } = system;
  const facts = { toplevel, archive: archive.sha256 };
  try {
    const own = await parts.of(archive.sha256);
    const contents = await (own === null
      ? verifyWhole(mirror, system, storeKeys, signal)
      : readThinIndex(mirror, system, storeKeys, signal));
    const held = new Map<string, readonly ByteRange[] | null>([[archive.sha256, own]]);
    for (const { archive: other } of contents.elsewhere) {
      held.set(other.sha256, await parts.of(other.sha256));
    }
    const { nars, deltas, count, missing } = membersWithin(contents, held);
    const { sha256 } = archive;
    if (own !== null) {
      await verifyMembers(sha256, nars.get(sha256) ?? [], deltas.get(sha256) ?? [], (range) =>
        mirror.readArchive(sha256, range, signal),
      );
    }
    return {
      facts: { ...facts, paths: contents.narInfos.length },
      elsewhere: contents.elsewhere.map(({ archive: other }) => ({
        archive: other,
        nars: nars.get(other.sha256) ?? [],
        deltas: deltas.get(other.sha256) ?? [],
      })),
      ...{ members: count, missing },
    };
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    if (code === "INTERRUPTED") throw thrown;
    const nothing = { elsewhere: [], members: 0, missing: 0 };
    return { facts: { ...facts, paths: null, code, message }, ...nothing };
  }
}

async function readThinIndex(
  mirror: Mirror,
  system: ReleasedSystem,
  storeKeys: readonly PublicKey[],
  signal: AbortSignal | undefined,
): Promise<ArchiveContents> {
  return readIndex(await readCompressedIndex(mirror, system, signal), system, storeKeys);
}

/** Reads a host's archive from its first byte to its last; gives its index. */
async function verifyWhole(
  mirror: Mirror,
  system: ReleasedSystem,
  storeKeys: readonly PublicKey[],
  signal: AbortSignal | undefined,
): Promise<ArchiveContents> {
  const { archive } = system;
  const hash = createHash("sha256");
  const whole = mirror.readArchive(archive.sha256, { from: 0, to: archive.size }, signal);
  const reader = new ByteReader(hashing(whole, hash));
  try {
    await reader.skip(TAR_BLOCK);
    const compressed = await reader.take(archive.index.size);
    const contents = readIndex(compressed, system, storeKeys);
    await reader.skip(endOfIndex(archive.index.size) - TAR_BLOCK - archive.index.size);
    const own = { ...contents, elsewhere: [] };
    const everything = new Map(contents.members.map(({ name }) => [name, 0]));
    const runs = planRuns(own, everything, Infinity);
    for (const run of runs) {
      await readRun(run, contents, reader.pieces(run.to - run.from), verifyNar);
    }
    // Where the archive has no NARs of its own.
    if (runs.length === 0) await reader.skip(archive.size - endOfIndex(archive.index.size));
    expectHash(hash, archive.sha256);
    return contents;
  } finally {
    await reader.close();
  }
}

/** What any host has in each other archive, by offset, each once. */
function otherArchives(
  elsewhere: readonly Elsewhere[],
): Map<string, { archive: OtherArchive; nars: NarMember[]; deltas: Delta[] }> {
  const others = new Map<
    string,
    { archive: OtherArchive; nars: Map<string, NarMember>; deltas: Map<string, Delta> }
  >();
  for (const { archive, nars, deltas } of elsewhere) {
    const key = `${archive.sha256} ${archive.size}`;
    const other = others.get(key) ?? { archive, nars: new Map(), deltas: new Map() };
    for (const nar of nars) other.nars.set(`${nar.headerOffset} ${nar.name}`, nar);
    for (const delta of deltas) other.deltas.set(`${delta.offset} ${delta.sha256}`, delta);
    others.set(key, other);
  }
  return new Map(
    [...others].map(([key, { archive, nars, deltas }]) => [
      key,
      {
        archive,
        nars: [...nars.values()].sort((a, b) => a.headerOffset - b.headerOffset),
        deltas: [...deltas.values()],
      },
    ]),
  );
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

/** Verifies an archive that hosts share: its hash, and every NAR that one of them names. */
async function verifyOther(
  mirror: Mirror,
  archive: OtherArchive,
  nars: readonly NarMember[],
  signal: AbortSignal | undefined,
): Promise<PullError | null> {
  const { sha256, size } = archive;
  const hash = createHash("sha256");
  const source = mirror.readArchive(sha256, { from: 0, to: size }, signal);
  const reader = new ByteReader(hashing(source, hash));
  const run: Run = {
    ...{ archive: sha256, from: 0, to: size },
    members: nars.map((member) => ({ member, wanted: true, have: 0 })),
  };
  return faultOf(async () => {
    try {
      const last = nars.at(-1);
      const end = last ? last.headerOffset + TAR_BLOCK + paddedSize(last.size) : 0;
      await readRun(run, { sha256: "", size: 0 }, reader.pieces(end), verifyNar);
      await reader.skip(size - end);
      expectHash(hash, sha256);
    } finally {
      await reader.close();
    }
  });
}

function expectHash(hash: Hash, sha256: string): void {
  const found = hash.digest("hex");
  if (found === sha256) return;
  throw new PullError("ARCHIVE_CORRUPT", `archive: expected sha256 ${sha256}, found ${found}`);
}

async function* hashing(
  source: AsyncIterable<Uint8Array>,
  hash: { update(data: Uint8Array): unknown },
): AsyncGenerator<Uint8Array> {
  for await (const piece of source) {
    hash.update(piece);
    yield piece;
  }
}
