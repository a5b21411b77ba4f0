import { readIndex } from "../../core/formats/archive-index.ts";
import { bytesInRanges, covers, type ByteRange } from "../../core/formats/byte-ranges.ts";
import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { join } from "node:path";
import { PullError, toPullError } from "../../core/errors.ts";
import {
  comparePositions,
  describePosition,
  entryOf,
  positionOf,
  readManifest,
  type ArchiveReference,
  type ReleasedSystem,
  systemsOf,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import {
  packedAlso,
  packedHosts,
  packedOnly,
  EMPTY_STICK_CONTENTS,
  type PackedHost,
  type StickContents,
} from "../../core/formats/stick-contents.ts";
import type { Clock, Disk, Mirror } from "../../core/ports.ts";
import type { Report } from "../../core/formats/report.ts";
import type { PublicKey } from "../../core/formats/signing-key.ts";
import { mergeNeeds, needOf } from "../../core/transfer/stick-plan.ts";
import { readCompressedIndex } from "../../core/transfer/compressed-index.ts";
import { writeDurably } from "../../effects/files/durable-file.ts";
import { readStickContents } from "../../effects/report/stick-contents-file.ts";
import { ArchiveCopy, type ArchiveOrder } from "./archive-copy.ts";
import { KnownSystems, channelsIn } from "./known-systems.ts";
import { MirrorWriter } from "./mirror-writer.ts";
import { patchArchivesOf, readPatchArchive } from "./patch-archive.ts";
import { pruneOpened, type Pruned } from "./prune-mirror.ts";
import { digestIn, manifestIn } from "./retained-releases.ts";

export interface CopyOptions {
  readonly source: Mirror;
  /** The source's directory, where it is one. */
  readonly sourceDirectory: string | null;
  readonly destination: string;
  /** Null for those of a directory, or `stable` of a server, which cannot be asked. */
  readonly channels: readonly string[] | null;
  /** Only these hosts; null for all that the source was made for. */
  readonly hosts: readonly string[] | null;
  /** What hosts have; each is a host too. */
  readonly reports: readonly Report[];
  /** Whether deltas stand in for the paths that a reported host can make with them. */
  readonly deltas: boolean;
  readonly trust: TrustPolicy;
  /** Whose signatures of store paths count. */
  readonly storeKeys: readonly PublicKey[];
  /** Let a release take the place of a newer one. */
  readonly allowOlder: boolean;
  /** Releases of each channel that are retained in the destination; null prunes nothing. */
  readonly keep: number | null;
  /** Only say what would be copied. */
  readonly dryRun: boolean;
  readonly clock: Clock;
  readonly disk: Disk;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress: (what: string) => void;
}

/** What was done about one channel. */
export interface CopiedChannel {
  readonly channel: string;
  readonly signed: SignedManifest;
  readonly expired: boolean;
  /** False where the destination had this very manifest. */
  readonly isNews: boolean;
  readonly hosts: readonly CopiedHost[];
}

export interface CopiedHost {
  readonly hostname: string;
  /** NARs and deltas that the stick has for it; null for its whole closure. */
  readonly members: number | null;
  /** Why it got everything although it reported. */
  readonly note?: string;
}

export interface CopiedMirror {
  readonly channels: readonly CopiedChannel[];
  /** Hosts that reported, but that the releases do not name. */
  readonly strangers: readonly string[];
  readonly archives: {
    readonly copied: number;
    readonly present: number;
    /** Of those that were copied. */
    readonly bytes: number;
    /** Archives of index patches that were copied beside them. */
    readonly patches: number;
  };
  readonly pruned: Pruned | null;
}

/** One channel's release on its way. */
interface Consignment {
  readonly channel: string;
  readonly envelope: Uint8Array;
  readonly signed: SignedManifest;
  /** Null for all. */
  readonly hosts: readonly string[] | null;
}

/**
 * Copies the releases in force from a mirror into a directory, archives first and each
 * manifest last. Everything is verified on the way, and a manifest takes its place only
 * when all that it was copied with is on disk; so this may end at any moment, and the
 * next copy goes on where it was. Throws SEQUENCE_REPLAYED where the destination has a
 * newer release, the trust errors, the MIRROR_ and ARCHIVE_ errors, DISK_FULL,
 * PUBLISH_LOCKED, ….
 */
export async function copyMirror(options: CopyOptions): Promise<CopiedMirror> {
  const { channels, strangers } = await chooseReleases(options);
  const writer = await MirrorWriter.open(options.destination);
  try {
    for (const consignment of channels) await expectNoNewer(writer, consignment, options);
    const known = await knownSystems(channels, options);
    const order = new OrderBook(options, writer, known);
    const copied: CopiedChannel[] = [];
    for (const consignment of channels) copied.push(await order.add(consignment));
    const { wanted, present } = await order.missing();
    const bytes = wanted.reduce((sum, one) => sum + bytesOf(one), 0);
    let patches = 0;
    if (!options.dryRun) {
      await bringAll(wanted, bytes, writer, options);
      patches = await bringPatches(channels, writer, options);
      for (const [at, consignment] of channels.entries()) {
        await putIntoForce(consignment, copied[at]?.hosts ?? [], writer);
      }
    }
    const { keep, dryRun, clock } = options;
    const pruned =
      keep === null || dryRun ? null : await pruneOpened(writer, { keep, dryRun, clock });
    if (!dryRun) await forgetPackings(writer);
    const archives = { copied: wanted.length, present, bytes, patches };
    return { channels: copied, strangers, archives, pruned };
  } finally {
    await writer.close();
  }
}

/** Reads and verifies the manifests, and settles which hosts are meant. */
async function chooseReleases(
  options: CopyOptions,
): Promise<{ channels: Consignment[]; strangers: string[] }> {
  const { source, sourceDirectory, reports, trust, signal } = options;
  const names =
    options.channels ??
    (reports.length > 0 && options.hosts === null
      ? [...new Set(reports.map(({ channel }) => channel))].sort()
      : sourceDirectory === null
        ? ["stable"]
        : await channelsIn(sourceDirectory));
  if (names.length === 0) {
    // The reason is what reading one says.
    await source.readManifest("stable", { signal });
  }
  const packing =
    sourceDirectory === null ? EMPTY_STICK_CONTENTS : await readStickContents(sourceDirectory);
  const channels: Consignment[] = [];
  for (const channel of names) {
    const answer = await source.readManifest(channel, { signal });
    if (answer.kind !== "read") {
      throw new PullError("MIRROR_STATUS", `${source.address}: "not modified" without being asked`);
    }
    const signed = readManifest(answer.bytes, trust);
    if (signed.manifest.channel !== channel) {
      throw new PullError(
        "CHANNEL_MISMATCH",
        `expected a manifest of channel ${channel}, found one of ${signed.manifest.channel}`,
      );
    }
    const hosts = chooseHosts(signed, packing, options);
    if (hosts?.length === 0 && options.channels === null) continue;
    channels.push({ channel, envelope: answer.bytes, signed, hosts });
  }
  const named = new Set(channels.flatMap(({ signed }) => Object.keys(signed.manifest.hosts)));
  const unknown = (options.hosts ?? []).filter((hostname) => !named.has(hostname));
  if (unknown.length > 0) {
    throw new PullError(
      "HOST_NOT_IN_RELEASE",
      `no release of ${names.join(", ")} names ${unknown.join(", ")}`,
    );
  }
  const strangers = reports
    .filter(({ hostname, channel }) =>
      channels.every((one) => one.channel !== channel || !hasHost(one.signed, hostname)),
    )
    .map(({ hostname }) => hostname);
  return { channels, strangers };
}

function hasHost({ manifest }: SignedManifest, hostname: string): boolean {
  return Object.hasOwn(manifest.hosts, hostname);
}

/** The hosts of a channel for which archives are copied; null for all. */
function chooseHosts(
  signed: SignedManifest,
  packing: StickContents,
  { hosts, reports }: CopyOptions,
): string[] | null {
  const packed = packedHosts(packing, signed.digest);
  if (hosts === null && reports.length === 0) {
    return packed && [...packed.keys()].filter((hostname) => hasHost(signed, hostname));
  }
  const reported = reports.filter(({ channel }) => channel === signed.manifest.channel);
  const names = new Set([...(hosts ?? []), ...reported.map(({ hostname }) => hostname)]);
  return [...names].filter((hostname) => hasHost(signed, hostname)).sort();
}

/** Throws SEQUENCE_REPLAYED or SEQUENCE_CONFLICT where hosts of the destination have gone past this. */
async function expectNoNewer(
  writer: MirrorWriter,
  { channel, signed }: Consignment,
  { source, allowOlder }: CopyOptions,
): Promise<void> {
  const envelope = await writer.readEnvelope(channel);
  if (!envelope) return;
  let current;
  try {
    // Whoever signed it: what may be newer is not replaced.
    current = { position: positionOf(manifestIn(envelope)), digest: digestIn(envelope) };
  } catch {
    return; // Hosts can make nothing of it either.
  }
  const position = positionOf(signed.manifest);
  const order = comparePositions(position, current.position);
  if (order < 0 && !allowOlder) {
    throw new PullError(
      "SEQUENCE_REPLAYED",
      `${writer.directory} has release ${describePosition(current.position)} of ${channel}, newer than ` +
        `release ${describePosition(position)} of ${source.address}; nothing was copied ` +
        "(--allow-older puts the older one in its place)",
    );
  }
  if (order === 0 && signed.digest !== current.digest && !allowOlder) {
    throw new PullError(
      "SEQUENCE_CONFLICT",
      `${writer.directory} has another release ${describePosition(position)} of ${channel} than ` +
        `${source.address}: digest ${current.digest}, not ${signed.digest}; nothing was copied`,
    );
  }
}

/** What reported hosts have can be told as long as a release that names it is known. */
async function knownSystems(
  channels: readonly Consignment[],
  { source, sourceDirectory, reports, trust }: CopyOptions,
): Promise<KnownSystems> {
  const known = new KnownSystems(source);
  if (reports.length === 0) return known;
  for (const { signed } of channels) known.add(Object.values(signed.manifest.hosts));
  if (sourceDirectory !== null) await known.addRetained(sourceDirectory, trust);
  return known;
}

/** Gathers what all hosts need, archive by archive. */
class OrderBook {
  readonly #options: CopyOptions;
  readonly #writer: MirrorWriter;
  readonly #known: KnownSystems;
  readonly #orders = new Map<string, ArchiveOrder>();
  /** What the source has of its archives, where that is not all; asked once. */
  readonly #parts = new Map<string, readonly ByteRange[] | null>();

  constructor(options: CopyOptions, writer: MirrorWriter, known: KnownSystems) {
    this.#options = options;
    this.#writer = writer;
    this.#known = known;
  }

  async add({ channel, signed, hosts }: Consignment): Promise<CopiedChannel> {
    const { clock, onProgress, reports, source } = this.#options;
    const { manifest } = signed;
    const copied: CopiedHost[] = [];
    /** Hosts with the same system and no report of their own are one. */
    const whole = new Map<string, number | null>();
    for (const hostname of hosts ?? Object.keys(manifest.hosts)) {
      const entry = manifest.hosts[hostname];
      if (!entry) continue;
      onProgress(`reading the index of ${hostname}`);
      const report = latest(reports, channel, hostname);
      const systems = systemsOf(entry);
      const key = systems.map(({ archive, toplevel }) => `${archive.sha256} ${toplevel}`).join(" ");
      const same = report ? undefined : whole.get(key);
      if (same !== undefined) {
        copied.push({ hostname, members: same });
        continue;
      }
      const held = report ? await this.#known.heldBy(report, this.#options.signal) : null;
      let members: number | null = null;
      // A host that has to pass through others first needs those too.
      for (const system of systems) {
        const some = await this.#addSystem(system, held);
        members = some === null ? members : (members ?? 0) + some;
      }
      if (!report) whole.set(key, members);
      const isUnknown = report !== undefined && held === null;
      const note = `${source.address} does not know the systems that its report names`;
      copied.push({ hostname, members, ...(isUnknown && { note }) });
    }
    const current = await this.#writer.readEnvelope(channel);
    return {
      ...{ channel, signed, hosts: copied },
      expired: Date.parse(manifest.expiresAt) <= clock.now().getTime(),
      isNews: current === null || digestOrNull(current) !== signed.digest,
    };
  }

  async #addSystem(
    entry: ReleasedSystem,
    held: ReadonlySet<string> | null,
  ): Promise<number | null> {
    const { source, storeKeys, signal, deltas } = this.#options;
    const { archive } = entry;
    const compressed = await readCompressedIndex(source, entry, signal);
    const contents = readIndex(compressed, entry, storeKeys);
    const parts = new Map<string, readonly ByteRange[]>();
    for (const { sha256 } of [archive, ...contents.elsewhere.map((other) => other.archive)]) {
      const ranges = await this.#partsOf(sha256);
      if (ranges) parts.set(sha256, ranges);
    }
    const need = needOf(contents, archive.index.size, { held, deltas, parts });
    for (const one of need.archives) {
      const known = this.#orders.get(one.sha256);
      if (known && known.size !== one.size) {
        throw new PullError(
          "INDEX_INVALID",
          `archive ${one.sha256}: one release says it has ${known.size} bytes, another ${one.size}`,
        );
      }
      const indexes = new Map((known?.indexes ?? []).map((index) => [index.sha256, index]));
      if (one.sha256 === archive.sha256) indexes.set(archive.index.sha256, archive.index);
      this.#orders.set(one.sha256, {
        ...(known ? mergeNeeds(known, one) : one),
        indexes: [...indexes.values()] satisfies ArchiveReference["index"][],
        held: [],
      });
    }
    return need.members;
  }

  async #partsOf(sha256: string): Promise<readonly ByteRange[] | null> {
    let parts = this.#parts.get(sha256);
    if (parts === undefined) {
      parts = (await this.#options.source.heldParts?.(sha256)) ?? null;
      this.#parts.set(sha256, parts);
    }
    return parts;
  }

  /** What the destination lacks, with what it has of it. */
  async missing(): Promise<{ wanted: ArchiveOrder[]; present: number }> {
    const wanted: ArchiveOrder[] = [];
    let present = 0;
    for (const order of this.#orders.values()) {
      const held = await this.#writer.heldParts(order);
      const isHere =
        held === null || (held && order.ranges?.every((range) => covers(held, range)) === true);
      if (isHere) present++;
      else wanted.push({ ...order, held: order.ranges === null ? [] : (held ?? []) });
    }
    return { wanted, present };
  }
}

/** A host's newest report in a channel. */
function latest(reports: readonly Report[], channel: string, hostname: string): Report | undefined {
  return reports
    .filter((report) => report.channel === channel && report.hostname === hostname)
    .sort((a, b) => Date.parse(b.at) - Date.parse(a.at))[0];
}

function digestOrNull(envelope: Uint8Array): string | null {
  try {
    return digestIn(envelope);
  } catch {
    return null;
  }
}

/** Bytes of the archive that are copied. */
function bytesOf({ size, ranges }: ArchiveOrder): number {
  return ranges === null ? size : bytesInRanges(ranges);
}

/** Left free for manifests and directories. */
const ROOM_TO_SPARE = 1024 * 1024;

async function bringAll(
  orders: readonly ArchiveOrder[],
  total: number,
  writer: MirrorWriter,
  { source, disk, signal, onProgress }: CopyOptions,
): Promise<void> {
  let done = 0;
  const copy = new ArchiveCopy(source, writer, {
    signal,
    onBytes: (count) => {
      done += count;
      const percent = total === 0 ? 100 : Math.min(100, Math.floor((100 * done) / total));
      onProgress(`copying ${orders.length} archives: ${percent}%`);
    },
  });
  await copy.prepare(orders);
  done = await copy.resumable(orders);
  const needed = Math.max(0, total - done) + (orders.length > 0 ? ROOM_TO_SPARE : 0);
  const { free } = await disk.freeSpace(writer.directory);
  if (free < needed) {
    throw new PullError(
      "DISK_FULL",
      `${writer.directory}: expected ${needed} bytes free, found ${free}; nothing was copied`,
    );
  }
  for (const order of orders) await copy.bring(order);
}

/**
 * Brings the archives of index patches, and gives how many. A host reads an index whole where
 * its patch is not there, so what cannot be had is left out. So are those of hosts that
 * reported: they read their index from a stick, where it costs nothing.
 */
async function bringPatches(
  channels: readonly Consignment[],
  writer: MirrorWriter,
  { source, reports, signal, onProgress }: CopyOptions,
): Promise<number> {
  if (reports.length > 0) return 0;
  const systems = channels.flatMap(({ signed: { manifest }, hosts }) =>
    (hosts ?? Object.keys(manifest.hosts)).flatMap((hostname) => {
      const entry = entryOf(manifest, hostname);
      return entry ? systemsOf(entry) : [];
    }),
  );
  const isHere = (sha256: string): Promise<boolean> =>
    readPatchArchive(writer.asMirror(), sha256, signal).then(
      () => true,
      () => false,
    );
  let brought = 0;
  for (const sha256 of patchArchivesOf(systems)) {
    if (await isHere(sha256)) continue;
    let bytes: Buffer;
    try {
      bytes = await readPatchArchive(source, sha256, signal);
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      if (code === "INTERRUPTED") throw thrown;
      onProgress(`index patches were not copied: ${message}`);
      continue;
    }
    const file = join(writer.work, "patches.tar");
    await writeDurably(file, bytes, 0o644);
    await writer.placeArchive(file, sha256);
    brought++;
  }
  return brought;
}

/** The list of contents, then the manifest: from then on hosts see the release. */
async function putIntoForce(
  { channel, envelope, signed, hosts }: Consignment,
  copied: readonly CopiedHost[],
  writer: MirrorWriter,
): Promise<void> {
  const { manifest, digest } = signed;
  const current = await writer.readEnvelope(channel);
  const isHere = current !== null && digestOrNull(current) === digest;
  const isPart = hosts !== null || copied.some(({ members }) => members !== null);
  const packed = new Map<string, PackedHost>(
    copied.map(({ hostname, members }) => [hostname, { members }]),
  );
  const list = await writer.stickContents();
  const next = packedAlso(list, digest, isPart ? packed : null, isHere);
  if (JSON.stringify(next) !== JSON.stringify(list)) await writer.writeStickContents(next);
  await writer.retained.keep(manifest, envelope);
  if (current?.equals(envelope)) return;
  await writer.placeManifest(channel, envelope);
}

/** Forgets how releases were packed that are no longer there. */
async function forgetPackings(writer: MirrorWriter): Promise<void> {
  const list = await writer.stickContents();
  if (Object.keys(list.releases).length === 0) return;
  const digests = new Set<string>();
  for (const channel of await channelsIn(writer.directory)) {
    const envelope = await writer.readEnvelope(channel);
    const digest = envelope && digestOrNull(envelope);
    if (digest !== null) digests.add(digest);
    for (const shelved of await writer.retained.releases(channel)) {
      const known = digestOrNull(shelved.envelope);
      if (known !== null) digests.add(known);
    }
  }
  const next = packedOnly(list, digests);
  if (JSON.stringify(next) !== JSON.stringify(list)) await writer.writeStickContents(next);
}
