import { createHash, type Hash } from "node:crypto";
import {
  endOfIndex,
  readIndex,
  type ArchiveContents,
  type NarMember,
  type OtherArchive,
} from "../core/archive-index.ts";
import type { TrustPolicy } from "../core/envelope.ts";
import { PullError, toPullError, type ErrorCode } from "../core/errors.ts";
import { planRuns, type Run } from "../core/fetch-plan.ts";
import {
  entryOf,
  readManifest,
  releaseFor,
  systemsOf,
  type ReleasedSystem,
  type SignedManifest,
} from "../core/manifest.ts";
import type { Mirror } from "../core/ports.ts";
import type { PublicKey } from "../core/signing-key.ts";
import { TAR_BLOCK, paddedSize } from "../core/tar-layout.ts";
import { ByteReader } from "../effects/byte-reader.ts";
import { readRun } from "../effects/staging.ts";

/** What was found out about one host's archive. */
export interface VerifiedHost {
  readonly hostname: string;
  readonly toplevel: string;
  readonly archive: string;
  readonly paths: number | null;
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
  const verified = new Map<string, VerifiedArchive>();
  const entries: { hostname: string; own: VerifiedArchive }[] = [];
  for (const hostname of names) {
    options.onHost(hostname);
    const entry = entryOf(signed.manifest, hostname);
    for (const system of entry ? systemsOf(entry) : [releaseFor(signed, hostname)]) {
      // Hosts with the same system share an archive; it is read once.
      const key = `${system.archive.sha256} ${system.toplevel}`;
      const own = verified.get(key) ?? (await verifyArchive(mirror, system, options));
      verified.set(key, own);
      entries.push({ hostname, own });
    }
  }
  // The other archives are read once as well, for all hosts that have NARs in them.
  const others = otherArchives(entries.flatMap(({ own }) => own.elsewhere));
  const faults = new Map<string, PullError>();
  for (const { archive, nars } of others.values()) {
    options.onHost(`archive ${archive.sha256.slice(0, 12)}…`);
    const fault = await verifyOther(mirror, archive, nars, options.signal);
    if (fault) faults.set(archive.sha256, fault);
  }
  const hosts = entries.map(({ hostname, own: { facts, elsewhere } }): VerifiedHost => {
    const bad = elsewhere.find(({ archive }) => faults.has(archive.sha256));
    const fault = bad && faults.get(bad.archive.sha256);
    if (facts.code !== undefined || !fault) return { hostname, ...facts };
    const { code, message } = fault;
    return { hostname, ...facts, paths: null, code, message };
  });
  return { signed, expired: Date.parse(signed.manifest.expiresAt) <= options.now.getTime(), hosts };
}

/** What was found out about a host's own archive, and which others it names. */
interface VerifiedArchive {
  readonly facts: Omit<VerifiedHost, "hostname">;
  readonly elsewhere: ArchiveContents["elsewhere"];
}

async function verifyArchive(
  mirror: Mirror,
  system: ReleasedSystem,
  { storeKeys, signal }: { storeKeys: readonly PublicKey[]; signal?: AbortSignal | undefined },
): Promise<VerifiedArchive> {
  const { archive, toplevel } = system;
  const facts = { toplevel, archive: archive.sha256 };
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
    return { facts: { ...facts, paths: contents.narInfos.length }, elsewhere: contents.elsewhere };
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    if (code === "INTERRUPTED") throw thrown;
    return { facts: { ...facts, paths: null, code, message }, elsewhere: [] };
  } finally {
    await reader.close();
  }
}

/** The NARs that any host has in each other archive, by offset, each once. */
function otherArchives(
  elsewhere: ArchiveContents["elsewhere"],
): Map<string, { archive: OtherArchive; nars: NarMember[] }> {
  const others = new Map<string, { archive: OtherArchive; nars: Map<string, NarMember> }>();
  for (const { archive, nars } of elsewhere) {
    const key = `${archive.sha256} ${archive.size}`;
    const other = others.get(key) ?? { archive, nars: new Map<string, NarMember>() };
    for (const nar of nars) other.nars.set(`${nar.headerOffset} ${nar.name}`, nar);
    others.set(key, other);
  }
  return new Map(
    [...others].map(([key, { archive, nars }]) => [
      key,
      {
        archive,
        nars: [...nars.values()].sort((a, b) => a.headerOffset - b.headerOffset),
      },
    ]),
  );
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
  try {
    const last = nars.at(-1);
    const end = last ? last.headerOffset + TAR_BLOCK + paddedSize(last.size) : 0;
    await readRun(run, { sha256: "", size: 0 }, reader.pieces(end), verifyNar);
    await reader.skip(size - end);
    expectHash(hash, sha256);
    return null;
  } catch (thrown) {
    const error = toPullError(thrown);
    if (error.code === "INTERRUPTED") throw error;
    return error;
  } finally {
    await reader.close();
  }
}

async function verifyNar(
  member: NarMember,
  _have: number,
  pieces: AsyncIterable<Uint8Array>,
): Promise<void> {
  const hash = createHash("sha256");
  for await (const piece of pieces) hash.update(piece);
  const found = hash.digest("hex");
  if (found === member.body.sha256) return;
  throw new PullError(
    "ARCHIVE_CORRUPT",
    `${member.name} (${member.body.storePath}): expected sha256 ${member.body.sha256}, found ${found}`,
  );
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
