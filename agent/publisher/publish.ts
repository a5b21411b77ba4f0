import { createHash } from "node:crypto";
import { access, constants, mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { readIndex } from "../core/archive-index.ts";
import { encodeEnvelope, unsignedEnvelope, type TrustPolicy } from "../core/envelope.ts";
import { PullError } from "../core/errors.ts";
import {
  MANIFEST_FORMAT_VERSION,
  comparePositions,
  describePosition,
  encodeManifest,
  positionOf,
  readManifest,
  type ActivationMode,
  type HostEntry,
  type Manifest,
} from "../core/manifest.ts";
import type { Compression } from "../core/narinfo.ts";
import type { Clock } from "../core/ports.ts";
import type { PublicKey, SecretKey } from "../core/signing-key.ts";
import { TAR_BLOCK } from "../core/tar-layout.ts";
import { writeDurably } from "../effects/durable-file.ts";
import { packArchive, readClosure } from "./archive-packer.ts";
import type { HostSpec } from "./host-spec.ts";
import { MirrorWriter } from "./mirror-writer.ts";
import { buildSystem, copyToCache, type BuildContext } from "./nix-builder.ts";
import type { ReleaseSigner } from "./release-signer.ts";
import { readEnvelopeFile, signEnvelope } from "./sign-release.ts";

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
  /** Instead of one more than the current release's. */
  readonly sequence?: number | undefined;
  /** Hosts that are not named keep their entry of the current release. */
  readonly keepHosts: boolean;
  /** Binary cache kept between publishes; a temporary one where absent. */
  readonly cache?: string | undefined;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress: (progress: PublishProgress) => void;
}

/** What a publish is doing, for a person. */
export type PublishProgress =
  | { readonly phase: "build"; readonly hostname: string; readonly at: number; readonly of: number }
  | { readonly phase: "nix"; readonly line: string }
  | { readonly phase: "copy"; readonly systems: number }
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

export interface Published {
  readonly channel: string;
  readonly epoch: number;
  readonly sequence: number;
  readonly digest: string;
  readonly createdAt: string;
  readonly expiresAt: string;
  /** The file that was written: the manifest in force, or the draft. */
  readonly manifest: string;
  /** True where the release is not in force yet. */
  readonly draft: boolean;
  readonly signedBy: readonly string[];
  readonly hosts: Readonly<Record<string, PublishedHost>>;
  /** Hosts of the release before that this one no longer names. */
  readonly dropped: readonly string[];
}

/**
 * Builds, copies, packs, signs and writes a release. Until the manifest is renamed
 * into place, at the very end, hosts see the release before. Throws BUILD_FAILED,
 * NOT_A_SYSTEM, PUBLISH_FAILED, PUBLISH_LOCKED, …
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

  const toplevels = await buildAll(options, join(writer.work, "roots"));
  const published = await packAll(writer, options, toplevels, current);

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
      ...(host.mode === mode ? {} : { activation: { mode: host.mode } }),
      ...(spec.machineId !== undefined && { machineId: spec.machineId }),
    };
  }
  const dropped = Object.keys(current?.hosts ?? {}).filter((name) => !(name in entries));
  if (dropped.length > 0) {
    onProgress({
      phase: "warning",
      message: `release ${sequence} no longer names ${dropped.join(", ")}; --keep-hosts keeps them`,
    });
  }
  const createdAt = clock.now();
  const manifest: Manifest = {
    formatVersion: MANIFEST_FORMAT_VERSION,
    channel,
    ...(epoch && { epoch }),
    sequence,
    createdAt: createdAt.toISOString(),
    expiresAt: new Date(createdAt.getTime() + options.expiresInMs).toISOString(),
    defaults: options.refresh && current ? current.defaults : { activation: { mode } },
    hosts: entries,
  };
  await checkArchives(writer, manifest);
  const envelope = await signEnvelope(unsignedEnvelope(encodeManifest(manifest)), signers);
  if (options.signal?.aborted) throw new PullError("INTERRUPTED", "stopped before the release");
  const text = encodeEnvelope(envelope);
  // What hosts will read is read as they read it before they can.
  const written =
    signers.length === 0
      ? null
      : readManifest(Buffer.from(text), {
          publicKeys: signers.map(({ publicKey }) => publicKey),
          threshold: new Set(signers.map(({ publicKey }) => publicKey.text)).size,
        });
  if (options.draft === undefined) await writer.placeManifest(channel, text);
  else await writeDurably(options.draft, text, 0o644);
  return {
    channel,
    epoch: epoch?.number ?? 0,
    sequence,
    digest: createHash("sha256").update(encodeManifest(manifest)).digest("hex"),
    createdAt: manifest.createdAt,
    expiresAt: manifest.expiresAt,
    manifest: options.draft ?? writer.manifestPath(channel),
    draft: options.draft !== undefined,
    signedBy: written?.signedBy ?? [],
    hosts: published,
    dropped,
  };
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

/** The current release's entries, each with the mode that it has there. */
function keptEntries(current: Manifest, newDefault: ActivationMode): Record<string, HostEntry> {
  const oldDefault = current.defaults.activation.mode;
  return Object.fromEntries(
    Object.entries(current.hosts).map(([hostname, entry]) => {
      const mode = entry.activation?.mode ?? oldDefault;
      return [hostname, mode === newDefault ? entry : { ...entry, activation: { mode } }];
    }),
  );
}

/** Hosts are kept from entries whose archive is gone. Throws PUBLISH_FAILED. */
async function checkArchives(writer: MirrorWriter, manifest: Manifest): Promise<void> {
  for (const [hostname, { archive }] of Object.entries(manifest.hosts)) {
    if (await writer.hasArchive(archive)) continue;
    throw new PullError(
      "PUBLISH_FAILED",
      `${hostname}: expected its archive of ${archive.size} bytes at ${writer.archivePath(archive.sha256)}`,
    );
  }
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
  const toplevels = new Map<string, string>();
  for (const [at, spec] of options.hosts.entries()) {
    const { hostname } = spec;
    options.onProgress({ phase: "build", hostname, at: at + 1, of: options.hosts.length });
    const toplevel = await buildSystem(spec, roots, context);
    const program = join(toplevel, "bin/switch-to-configuration");
    await access(program, constants.X_OK).catch((cause: unknown) => {
      throw new PullError(
        "NOT_A_SYSTEM",
        `${hostname}: expected a NixOS toplevel, found ${toplevel} without an executable ` +
          "bin/switch-to-configuration",
        { cause },
      );
    });
    toplevels.set(hostname, toplevel);
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

type Packed = Pick<PublishedHost, "closureSize" | "paths" | "archive" | "reused">;

/** Packs each distinct system once, and none whose archive the mirror has already. */
async function packAll(
  writer: MirrorWriter,
  options: PublishOptions,
  toplevels: ReadonlyMap<string, string>,
  current: Manifest | null,
): Promise<Record<string, PublishedHost>> {
  const packed = new Map<string, Packed>();
  for (const toplevel of new Set(toplevels.values())) {
    const reusable = await findReusable(writer, options, toplevel, current);
    if (reusable) packed.set(toplevel, reusable);
  }
  const fresh = [...new Set(toplevels.values())].filter((toplevel) => !packed.has(toplevel));
  const cache = options.cache ?? join(writer.work, "cache");
  if (fresh.length > 0) {
    options.onProgress({ phase: "copy", systems: fresh.length });
    await mkdir(cache, { recursive: true });
    await copyToCache(fresh, cache, options.compression, buildContext(options));
  }
  for (const toplevel of fresh) {
    const hostname = [...toplevels].find(([, path]) => path === toplevel)?.[0] ?? toplevel;
    let bytes = 0;
    const closure = await readClosure(cache, toplevel);
    const temporary = join(writer.work, "archive.tar");
    const archive = await packArchive(closure, options.storeKeys, cache, temporary, (count) => {
      if (options.signal?.aborted) throw new PullError("INTERRUPTED", "stopped while packing");
      bytes += count;
      options.onProgress({ phase: "pack", hostname, bytes });
    });
    await writer.placeArchive(temporary, archive.sha256);
    const { closureSize, paths } = closure;
    packed.set(toplevel, { closureSize, paths: paths.length, archive, reused: false });
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
 * The archive of the release before, where it holds this very system, whole and signed
 * by these keys: it need not be packed again.
 */
async function findReusable(
  writer: MirrorWriter,
  { storeKeys }: PublishOptions,
  toplevel: string,
  current: Manifest | null,
): Promise<Packed | null> {
  const entry = Object.values(current?.hosts ?? {}).find((host) => host.toplevel === toplevel);
  if (!entry || !(await writer.hasArchive(entry.archive))) return null;
  const paths = await countSignedPaths(writer, entry, storeKeys);
  if (paths === null || !(await writer.isArchiveWhole(entry.archive))) return null;
  const { archive, closureSize } = entry;
  return { closureSize, paths, archive, reused: true };
}

/** Paths of an entry's archive, or null where one lacks a signature by one of the keys. */
async function countSignedPaths(
  writer: MirrorWriter,
  entry: HostEntry,
  storeKeys: readonly SecretKey[],
): Promise<number | null> {
  const path = writer.archivePath(entry.archive.sha256);
  try {
    const compressed = await readAt(path, TAR_BLOCK, entry.archive.index.size);
    const indexes = storeKeys.map(({ publicKey }) => readIndex(compressed, entry, [publicKey]));
    return indexes[0]?.narInfos.length ?? null;
  } catch {
    return null;
  }
}

async function readAt(path: string, position: number, length: number): Promise<Buffer> {
  const file = await open(path, "r");
  try {
    const buffer = Buffer.alloc(length);
    await file.read(buffer, 0, length, position);
    return buffer;
  } finally {
    await file.close();
  }
}
