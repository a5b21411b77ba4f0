import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { readIndex, type OtherArchive } from "../../core/formats/archive-index.ts";
import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { PullError } from "../../core/errors.ts";
import {
  MANIFEST_FORMAT_VERSION,
  activationOf,
  comparePositions,
  describePosition,
  entryOf,
  positionOf,
  readManifest,
  type Activation,
  type ActivationMode,
  type HostEntry,
  type Manifest,
} from "../../core/formats/manifest.ts";
import type { Compression } from "../../core/formats/narinfo.ts";
import { storePathName } from "../../core/formats/store-path.ts";
import type { Clock } from "../../core/ports.ts";
import type { PublicKey, SecretKey } from "../../core/formats/signing-key.ts";
import { hasZstd } from "../../effects/nix/delta-maker.ts";
import { retainedReleases, withBarrier, type BarrierRequest } from "../channel/barriers.ts";
import {
  PathSigner,
  packArchive,
  packShared,
  readClosure,
  type NarPlace,
  type PackableClosure,
  type PackOptions,
  type PackablePath,
} from "./archive-packer.ts";
import { packDeltas } from "./delta-packer.ts";
import type { HostSpec } from "./host-spec.ts";
import { packIndexPatches } from "./index-patches.ts";
import { MirrorWriter } from "../mirror/mirror-writer.ts";
import { compressPaths } from "./nar-compressor.ts";
import { NarLibrary } from "./nar-library.ts";
import { buildSystems, readPathInfos, type BuildContext } from "./nix-builder.ts";
import {
  archivesIn,
  checkArchives,
  putRelease,
  type PutRelease,
} from "../channel/sign-and-place.ts";
import type { ReleaseSigner } from "../channel/release-signer.ts";
import {
  carriedOn,
  checkWaves,
  rolloutFor,
  type RolloutRequest,
} from "../channel/rollout-request.ts";
import { SecretGuard, type AllowedSecret } from "./secret-guard.ts";
import { parallelMap } from "../../effects/process/parallel-map.ts";
import { readEnvelopeFile } from "../channel/sign-release.ts";

export interface PublishOptions {
  readonly hosts: readonly HostSpec[];
  /** Directory of the mirror. */
  readonly mirror: string;
  readonly channel: string;
  /** Sign the release; none are needed for a draft. */
  readonly signers: readonly ReleaseSigner[];
  /** Each signs every store path. */
  readonly storeKeys: readonly SecretKey[];
  /** Keys beside the signers' own by which the current release is verified. */
  readonly publicKeys: readonly PublicKey[];
  /** The current release again, with a new expiry: no hosts are given then. */
  readonly refresh: boolean;
  /** Restarts the numbering; without a number one more than the current release's. */
  readonly newEpoch?: { readonly reason: string; readonly number?: number | undefined } | undefined;
  /** Write the envelope to this file instead of putting it into force. */
  readonly draft?: string | undefined;
  readonly mode: ActivationMode;
  /** How long hosts may accept the release, milliseconds. */
  readonly expiresInMs: number;
  readonly compression: Compression;
  /** Of the compression program; its own default where absent. */
  readonly level?: number | undefined;
  /** Earlier releases against which deltas are made. */
  readonly deltas: number;
  /** One self-contained archive for each system, whatever others have. */
  readonly whole: boolean;
  /** Instead of one more than the current release's. */
  readonly sequence?: number | undefined;
  /** Hosts that are not named keep their entry of the current release. */
  readonly keepHosts: boolean;
  /** When whose turn comes; a refresh carries the current one on. */
  readonly rollout: RolloutRequest;
  readonly barrier: BarrierRequest;
  /** Where private keys in the closures are no secrets. */
  readonly allowSecrets: readonly AllowedSecret[];
  /** Binary cache kept between publishes; a temporary one where absent. */
  readonly cache?: string | undefined;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress: (progress: PublishProgress) => void;
}

/** What a publish is doing, for a person. */
export type PublishProgress =
  | {
      readonly phase: "build";
      readonly hostnames: readonly string[];
      /** Hosts whose systems are there already. */
      readonly at: number;
      readonly of: number;
    }
  | { readonly phase: "nix"; readonly line: string }
  | { readonly phase: "compress"; readonly done: number; readonly of: number }
  | { readonly phase: "delta"; readonly done: number; readonly of: number }
  | { readonly phase: "pack"; readonly hostname: string; readonly bytes: number }
  | { readonly phase: "warning"; readonly message: string };

export interface PublishedHost {
  readonly toplevel: string;
  readonly closureSize: number;
  readonly paths: number;
  readonly archive: HostEntry["archive"];
  readonly mode: ActivationMode;
  /** True where the archive was on the mirror already. */
  readonly reused: boolean;
}

export interface Published extends PutRelease {
  readonly channel: string;
  readonly epoch: number;
  readonly sequence: number;
  readonly createdAt: string;
  readonly expiresAt: string;
  /** What was packed; nothing where the systems are those of another release. */
  readonly hosts: Readonly<Record<string, PublishedHost>>;
  /** Hosts of the release before that this one no longer names. */
  readonly dropped: readonly string[];
}

/**
 * Builds, copies, packs, signs and writes a release. Until the manifest is renamed
 * into place, at the very end, hosts see the release before. Throws BUILD_FAILED,
 * NOT_A_SYSTEM, SECRET_IN_CLOSURE, PUBLISH_FAILED, PUBLISH_LOCKED, …
 */
export async function publish(options: PublishOptions): Promise<Published> {
  checkHosts(options);
  if (options.signers.length === 0 && options.draft === undefined) {
    throw new PullError(
      "USAGE",
      "expected a --key or --signer that signs the release, or --unsigned FILE",
    );
  }
  const writer = await MirrorWriter.open(options.mirror);
  try {
    return await publishInto(writer, options);
  } finally {
    await writer.close();
  }
}

async function publishInto(writer: MirrorWriter, options: PublishOptions): Promise<Published> {
  const { channel, signers, mode, clock, onProgress } = options;
  const publicKeys = [...signers.map(({ publicKey }) => publicKey), ...options.publicKeys];
  const current = await readCurrent(writer, options, { publicKeys, threshold: 1 });
  const { epoch, sequence } = nextPosition(options, current);
  const isKept = options.keepHosts || options.refresh;
  checkWaves(options.rollout.waves, {
    ...(isKept && current?.hosts),
    ...Object.fromEntries(options.hosts.map((spec) => [spec.hostname, spec])),
  });

  const toplevels = await buildAll(options, join(writer.work, "roots"));
  const trust = { publicKeys, threshold: 1 };
  const library = await NarLibrary.open(writer, channel, trust, current);
  const packed = await packAll(writer, options, toplevels, library);
  const published = await withIndexPatches(writer, options, packed, library);

  const entries: Record<string, HostEntry> = options.refresh ? { ...current?.hosts } : {};
  const kept = options.keepHosts && current ? keptEntries(current, mode) : {};
  for (const [hostname, entry] of Object.entries(kept)) {
    entries[hostname] = entry;
    if (hostname in published) continue;
    if ((await countSignedPaths(writer, entry, options.storeKeys)) !== null) continue;
    onProgress({
      phase: "warning",
      message: `the archive kept for ${hostname} is not signed by every key that is used now`,
    });
  }
  for (const spec of options.hosts) {
    const host = published[spec.hostname];
    if (!host) continue;
    entries[spec.hostname] = {
      toplevel: host.toplevel,
      closureSize: host.closureSize,
      archive: host.archive,
      ...ownActivation({ mode: host.mode, checks: spec.activation?.checks }, mode),
      ...(spec.machineId !== undefined && { machineId: spec.machineId }),
      ...(spec.groups !== undefined && { groups: [...spec.groups] }),
      ...carriedOn(current ? entryOf(current, spec.hostname) : undefined),
    };
  }
  warnOfPolicy(options, current, entries);
  const dropped = Object.keys(current?.hosts ?? {}).filter((name) => !(name in entries));
  if (dropped.length > 0) {
    onProgress({
      phase: "warning",
      message: `release ${sequence} no longer names ${dropped.join(", ")}; --keep-hosts keeps them`,
    });
  }
  const now = clock.now();
  const createdAt = now.toISOString();
  const frame = { channel, ...(epoch && { epoch }), sequence, createdAt };
  const before = options.refresh ? current?.rollout : undefined;
  const rollout = rolloutFor(options.rollout, frame, before);
  const retained = await retainedReleases(writer, channel, trust);
  const { barrier, hosts } = withBarrier(options.barrier, entries, current, retained);
  const manifest: Manifest = {
    formatVersion: MANIFEST_FORMAT_VERSION,
    ...frame,
    expiresAt: new Date(now.getTime() + options.expiresInMs).toISOString(),
    defaults: options.refresh && current ? current.defaults : { activation: { mode } },
    ...(barrier && { barrier }),
    ...(rollout && { rollout }),
    hosts,
  };
  const put = await putRelease(writer, manifest, options);
  return {
    channel,
    epoch: epoch?.number ?? 0,
    sequence,
    createdAt: manifest.createdAt,
    expiresAt: manifest.expiresAt,
    ...put,
    hosts: published,
    dropped,
  };
}

/** Tells what the operator may not think of: what is held stays so, what was paused does not. */
function warnOfPolicy(
  { refresh, onProgress }: PublishOptions,
  current: Manifest | null,
  entries: Readonly<Record<string, HostEntry>>,
): void {
  for (const [hostname, { turn }] of Object.entries(entries)) {
    if (typeof turn !== "object") continue;
    onProgress({ phase: "warning", message: `${hostname} is still held: ${turn.held}` });
  }
  const paused = refresh ? undefined : current?.rollout?.paused;
  if (!paused) return;
  const message = `release ${current?.sequence} was paused (${paused.reason}); this one is not`;
  onProgress({ phase: "warning", message });
}

/** The release that is in force, or null where there is none or it is not to matter. */
async function readCurrent(
  writer: MirrorWriter,
  options: PublishOptions,
  trust: TrustPolicy,
): Promise<Manifest | null> {
  try {
    return (await writer.currentRelease(options.channel, trust))?.manifest ?? null;
  } catch (cause) {
    if (options.sequence !== undefined && !options.refresh && !options.keepHosts) return null;
    throw new PullError(
      "PUBLISH_FAILED",
      `the current release of ${options.channel} cannot be read with these keys ` +
        `(${(cause as Error).message}); give its --public-key, or publish over it with ` +
        "--sequence and without --keep-hosts",
      { cause },
    );
  }
}

/** Where the new release stands. Throws PUBLISH_FAILED where hosts would refuse it. */
function nextPosition(
  options: PublishOptions,
  current: Manifest | null,
): { epoch: Manifest["epoch"]; sequence: number } {
  const { newEpoch } = options;
  if (options.refresh && !current) {
    throw new PullError("PUBLISH_FAILED", `channel ${options.channel} has no release to refresh`);
  }
  const epoch = newEpoch
    ? { number: newEpoch.number ?? (current?.epoch?.number ?? 0) + 1, reason: newEpoch.reason }
    : current?.epoch;
  // A restarted numbering starts at 1 again.
  const before = newEpoch ? 0 : (current?.sequence ?? 0);
  const sequence = options.sequence ?? before + 1;
  const next = positionOf({ epoch, sequence });
  if (current && comparePositions(next, positionOf(current)) <= 0) {
    throw new PullError(
      "PUBLISH_FAILED",
      `sequence: expected more than the current release's ` +
        `${describePosition(positionOf(current))}, found ${describePosition(next)}`,
    );
  }
  return { epoch, sequence };
}

/** The current release's entries, each with the activation that it has there. */
function keptEntries(current: Manifest, newDefault: ActivationMode): Record<string, HostEntry> {
  return Object.fromEntries(
    Object.entries(current.hosts).map(([hostname, entry]) => [
      hostname,
      { ...entry, ...ownActivation(activationOf(current, entry), newDefault) },
    ]),
  );
}

/** What an entry has to say of its activation where the release's default is `byDefault`. */
function ownActivation(
  { mode, checks }: Activation,
  byDefault: ActivationMode,
): Pick<HostEntry, "activation"> {
  if (mode === byDefault && checks === undefined) return {};
  return { activation: { mode, ...(checks && { checks }) } };
}

export interface DraftOptions {
  readonly mirror: string;
  readonly draft: string;
  /** What hosts will demand. */
  readonly trust: TrustPolicy;
  readonly clock: Clock;
}

/**
 * Puts a draft into force: verifies it as hosts will, and that every archive is on the
 * mirror, then replaces the manifest by rename. Throws the trust errors, PUBLISH_FAILED,
 * PUBLISH_LOCKED.
 */
export async function publishDraft(options: DraftOptions): Promise<Published> {
  const { bytes } = await readEnvelopeFile(options.draft);
  const { manifest, digest, signedBy } = readManifest(bytes, options.trust);
  const { channel, expiresAt, createdAt, sequence } = manifest;
  if (Date.parse(expiresAt) <= options.clock.now().getTime()) {
    throw new PullError("MANIFEST_EXPIRED", `${options.draft}: it expired at ${expiresAt}`);
  }
  const writer = await MirrorWriter.open(options.mirror);
  try {
    // One that these keys did not sign is one that no host follows either.
    const current = await writer.currentRelease(channel, options.trust).catch((error: unknown) => {
      if (error instanceof PullError) return null;
      throw error;
    });
    const position = positionOf(manifest);
    if (
      current &&
      current.digest !== digest &&
      comparePositions(position, positionOf(current.manifest)) <= 0
    ) {
      throw new PullError(
        "PUBLISH_FAILED",
        `sequence: expected more than the current release's ` +
          `${describePosition(positionOf(current.manifest))}, found ${describePosition(position)}`,
      );
    }
    await checkArchives(writer, manifest);
    await writer.shelf.keep(manifest, bytes.toString("utf8"));
    await writer.placeManifest(channel, bytes.toString("utf8"));
    const dropped = Object.keys(current?.manifest.hosts ?? {}).filter(
      (name) => !(name in manifest.hosts),
    );
    return {
      channel,
      epoch: position.epoch,
      sequence,
      digest,
      createdAt,
      expiresAt,
      manifest: writer.manifestPath(channel),
      draft: false,
      signedBy,
      hosts: {},
      dropped,
    };
  } finally {
    await writer.close();
  }
}

function checkHosts({ hosts, refresh, storeKeys }: PublishOptions): void {
  if (refresh && hosts.length > 0) {
    throw new PullError("USAGE", "expected no hosts with --refresh: it changes no system");
  }
  if (!refresh && hosts.length === 0) throw new PullError("USAGE", "expected at least one host");
  if (!refresh && storeKeys.length === 0) {
    throw new PullError("USAGE", "expected --store-key or --key: store paths have to be signed");
  }
  const seen = new Set<string>();
  for (const { hostname } of hosts) {
    if (seen.has(hostname)) throw new PullError("USAGE", `host ${hostname} is named twice`);
    seen.add(hostname);
  }
}

/** Builds every host's system; gives toplevels by hostname. */
async function buildAll(options: PublishOptions, roots: string): Promise<Map<string, string>> {
  const context = buildContext(options);
  const of = options.hosts.length;
  const toplevels = await buildSystems(options.hosts, roots, context, (hostnames, at) => {
    options.onProgress({ phase: "build", hostnames, at, of });
  });
  for (const [hostname, toplevel] of toplevels) {
    const program = join(toplevel, "bin/switch-to-configuration");
    await access(program, constants.X_OK).catch((cause: unknown) => {
      throw new PullError(
        "NOT_A_SYSTEM",
        `${hostname}: expected a NixOS toplevel, found ${toplevel} without an executable ` +
          "bin/switch-to-configuration",
        { cause },
      );
    });
  }
  return toplevels;
}

function buildContext({ signal, onProgress }: PublishOptions): BuildContext {
  return {
    signal,
    onLine: (line) => {
      onProgress({ phase: "nix", line });
    },
  };
}

/** A host that is behind by so many releases reads no whole index, deltas or not. */
const MIN_INDEX_BASES = 1;

async function withIndexPatches(
  writer: MirrorWriter,
  { deltas, signal }: PublishOptions,
  published: Readonly<Record<string, PublishedHost>>,
  { releases }: NarLibrary,
): Promise<Record<string, PublishedHost>> {
  const bases = releases.slice(0, Math.max(deltas, MIN_INDEX_BASES));
  if (bases.length === 0 || !(await hasZstd())) return { ...published };
  const archives = await packIndexPatches(writer, published, bases, signal);
  return Object.fromEntries(
    Object.entries(published).map(([hostname, host]) => [
      hostname,
      { ...host, archive: archives.get(hostname) ?? host.archive },
    ]),
  );
}

type Packed = Pick<PublishedHost, "closureSize" | "paths" | "archive" | "reused">;

/** Packs each distinct system once, and none whose archive the mirror has already. */
async function packAll(
  writer: MirrorWriter,
  options: PublishOptions,
  toplevels: ReadonlyMap<string, string>,
  library: NarLibrary,
): Promise<Record<string, PublishedHost>> {
  const packed = new Map<string, Packed>();
  for (const toplevel of new Set(toplevels.values())) {
    const reusable = await findReusable(writer, options, toplevel, library);
    if (reusable) packed.set(toplevel, reusable);
  }
  // In an order that does not depend on how the hosts were given.
  const fresh = [...new Set(toplevels.values())].filter((it) => !packed.has(it)).sort();
  for (const [toplevel, closure] of await packFresh(writer, options, fresh, toplevels, library)) {
    packed.set(toplevel, closure);
  }
  return Object.fromEntries(
    options.hosts.flatMap(({ hostname, activation }) => {
      const toplevel = toplevels.get(hostname) ?? "";
      const found = packed.get(toplevel);
      const mode = activation?.mode ?? options.mode;
      return found ? [[hostname, { toplevel, mode, ...found }]] : [];
    }),
  );
}

/**
 * Compresses what no retained archive has, and writes an archive for each system; with
 * several, one more for the paths that they share.
 */
async function packFresh(
  writer: MirrorWriter,
  options: PublishOptions,
  fresh: readonly string[],
  toplevels: ReadonlyMap<string, string>,
  library: NarLibrary,
): Promise<Map<string, Packed>> {
  if (fresh.length === 0) return new Map();
  const { compression, signal, onProgress } = options;
  const cache = options.cache ?? join(writer.work, "cache");
  const infos = await readPathInfos(fresh, buildContext(options));
  const known = new Map<string, PackablePath>();
  for (const info of infos.values()) {
    const found = await library.find(info, compression);
    if (found) known.set(info.storePath, found);
  }
  const missing = [...infos.values()].filter(({ storePath }) => !known.has(storePath));
  const guard = new SecretGuard(options.allowSecrets, (message) => {
    onProgress({ phase: "warning", message });
  });
  onProgress({ phase: "compress", done: 0, of: missing.length });
  await compressPaths(missing, cache, options, {
    signal,
    onPath: (done) => {
      onProgress({ phase: "compress", done, of: missing.length });
    },
    permits: (storePath, found) => guard.permits(storePath, found),
  });
  guard.check();
  const closures = new Map<string, PackableClosure>();
  for (const toplevel of fresh) {
    closures.set(toplevel, await readClosure(cache, toplevel, known));
  }

  const signer = new PathSigner(options.storeKeys);
  const archivePath = (sha256: string): string => writer.archivePath(sha256);
  let bytes = 0;
  const packing = (what: string) => ({
    signer,
    cache,
    archivePath,
    ageOf: (sha256: string) => library.ageOf(sha256),
    onBytes: (count: number) => {
      if (signal?.aborted) throw new PullError("INTERRUPTED", "stopped while packing");
      bytes += count;
      onProgress({ phase: "pack", hostname: what, bytes });
    },
  });
  const places = new Map<string, NarPlace>();
  const shared = options.whole ? [] : sharedPaths([...closures.values()]);
  if (shared.length > 0) {
    const file = join(writer.work, "shared.tar");
    const { archive, offsets } = await packShared(shared, file, packing("what hosts share"));
    await writer.placeArchive(file, archive.sha256);
    for (const [sha256, offset] of offsets) places.set(sha256, { archive, offset });
  }
  const placeOf = (path: PackablePath): NarPlace | null =>
    options.whole ? null : (path.place ?? places.get(path.fileSha256) ?? null);
  const hostOf = (toplevel: string): string =>
    [...toplevels].find(([, path]) => path === toplevel)?.[0] ?? toplevel;
  const deltas = await packAllDeltas(writer, options, library, closures, hostOf, cache);
  const packed = await parallelMap(
    [...closures],
    async ([toplevel, closure]): Promise<[string, Packed]> => {
      const file = join(writer.work, `${storePathName(toplevel)}.tar`);
      const options = { ...packing(hostOf(toplevel)), placeOf, deltas: deltas(toplevel) };
      const archive = await packArchive(closure, file, options);
      await writer.placeArchive(file, archive.sha256);
      const { closureSize, paths } = closure;
      return [toplevel, { closureSize, paths: paths.length, archive, reused: false }];
    },
  );
  return new Map(packed);
}

/** Makes the deltas of a release, if any are wanted; gives them by toplevel. */
async function packAllDeltas(
  writer: MirrorWriter,
  options: PublishOptions,
  library: NarLibrary,
  closures: ReadonlyMap<string, PackableClosure>,
  hostOf: (toplevel: string) => string,
  cache: string,
): Promise<(toplevel: string) => PackOptions["deltas"]> {
  const none = (): undefined => undefined;
  const releases = library.releases.slice(0, options.deltas);
  if (releases.length === 0) return none;
  const temporary = join(writer.work, "deltas.tar");
  const { archive, closures: made } = await packDeltas(
    new Map(
      [...closures].map(([toplevel, closure]) => [
        toplevel,
        { closure, hostname: hostOf(toplevel) },
      ]),
    ),
    releases,
    temporary,
    {
      ...{ library, cache, work: join(writer.work, "deltas"), signal: options.signal },
      archivePath: (sha256) => writer.archivePath(sha256),
      onDelta: (done, of) => {
        options.onProgress({ phase: "delta", done, of });
      },
    },
  );
  if (!archive) return none;
  await writer.placeArchive(temporary, archive.sha256);
  return (toplevel) => {
    const found = made.get(toplevel);
    return found && { ...found, archive };
  };
}

/** Paths of several closures whose NARs no archive has yet, dependencies first, each NAR once. */
function sharedPaths(closures: readonly PackableClosure[]): PackablePath[] {
  const users = new Map<string, number>();
  for (const { paths } of closures) {
    for (const sha256 of new Set(paths.map(({ fileSha256 }) => fileSha256))) {
      users.set(sha256, (users.get(sha256) ?? 0) + 1);
    }
  }
  const shared = new Map<string, PackablePath>();
  for (const path of closures.flatMap(({ paths }) => paths)) {
    if (path.place || (users.get(path.fileSha256) ?? 0) < 2) continue;
    if (!shared.has(path.storePath)) shared.set(path.storePath, path);
  }
  return [...shared.values()];
}

/**
 * The archive of a retained release, where it holds this very system, whole and signed
 * by these keys: it need not be packed again.
 */
async function findReusable(
  writer: MirrorWriter,
  { storeKeys, whole }: PublishOptions,
  toplevel: string,
  library: NarLibrary,
): Promise<Packed | null> {
  for (const { manifest, hosts } of library.releases) {
    for (const [hostname, contents] of hosts) {
      const entry = manifest.hosts[hostname];
      if (entry?.toplevel !== toplevel || (whole && contents.elsewhere.length > 0)) continue;
      const paths = await countSignedPaths(writer, entry, storeKeys);
      const { archive, closureSize } = entry;
      const archives = [archive, ...archivesIn(contents)];
      if (paths === null || !(await areWhole(writer, archives))) continue;
      return { closureSize, paths, archive, reused: true };
    }
  }
  return null;
}

async function areWhole(writer: MirrorWriter, archives: readonly OtherArchive[]): Promise<boolean> {
  for (const archive of archives) {
    if (!(await writer.hasArchive(archive)) || !(await writer.isArchiveWhole(archive))) {
      return false;
    }
  }
  return true;
}

/** Paths of an entry's archive, or null where one lacks a signature by one of the keys. */
async function countSignedPaths(
  writer: MirrorWriter,
  entry: HostEntry,
  storeKeys: readonly SecretKey[],
): Promise<number | null> {
  try {
    const compressed = await writer.readIndex(entry.archive);
    const indexes = storeKeys.map(({ publicKey }) => readIndex(compressed, entry, [publicKey]));
    return indexes[0]?.narInfos.length ?? null;
  } catch {
    return null;
  }
}
