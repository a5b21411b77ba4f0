import { access, constants, mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { readIndex } from "../core/archive-index.ts";
import { sealEnvelope } from "../core/envelope.ts";
import { PullError } from "../core/errors.ts";
import {
  MANIFEST_FORMAT_VERSION,
  encodeManifest,
  type ActivationMode,
  type HostEntry,
  type Manifest,
} from "../core/manifest.ts";
import type { Compression } from "../core/narinfo.ts";
import type { Clock } from "../core/ports.ts";
import type { SecretKey } from "../core/signing-key.ts";
import { TAR_BLOCK } from "../core/tar-layout.ts";
import { packArchive, readClosure } from "./archive-packer.ts";
import type { HostSpec } from "./host-spec.ts";
import { MirrorWriter } from "./mirror-writer.ts";
import { buildSystem, copyToCache, type BuildContext } from "./nix-builder.ts";

export interface PublishOptions {
  readonly hosts: readonly HostSpec[];
  /** Directory of the mirror. */
  readonly mirror: string;
  readonly channel: string;
  /** Every key signs the release and every store path. */
  readonly keys: readonly SecretKey[];
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
  readonly sequence: number;
  readonly digest: string;
  readonly createdAt: string;
  readonly expiresAt: string;
  readonly manifest: string;
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
  checkHosts(options.hosts);
  const writer = await MirrorWriter.open(options.mirror);
  try {
    return await publishInto(writer, options);
  } finally {
    await writer.close();
  }
}

async function publishInto(writer: MirrorWriter, options: PublishOptions): Promise<Published> {
  const { channel, keys, mode, clock, onProgress } = options;
  const trust = { publicKeys: keys.map(({ publicKey }) => publicKey), threshold: 1 };
  const current = await writer.currentRelease(channel, trust).catch((cause: unknown) => {
    if (options.sequence !== undefined) return null;
    throw new PullError(
      "PUBLISH_FAILED",
      `the current release of ${channel} cannot be read with these keys ` +
        `(${(cause as Error).message}); give --sequence to publish over it`,
      { cause },
    );
  });
  const sequence = options.sequence ?? (current?.manifest.sequence ?? 0) + 1;
  if (current && sequence <= current.manifest.sequence) {
    throw new PullError(
      "PUBLISH_FAILED",
      `sequence: expected more than the current release's ${current.manifest.sequence}, found ${sequence}`,
    );
  }

  const toplevels = await buildAll(options, join(writer.work, "roots"));
  const published = await packAll(writer, options, toplevels, current?.manifest ?? null);

  const entries = options.keepHosts && current ? keptEntries(current.manifest, mode) : {};
  for (const spec of options.hosts) {
    const host = published[spec.hostname];
    if (!host) continue;
    entries[spec.hostname] = {
      toplevel: host.toplevel,
      closureSize: host.closureSize,
      archive: host.archive,
      ...(host.mode === mode ? {} : { activation: { mode: host.mode } }),
    };
  }
  const dropped = Object.keys(current?.manifest.hosts ?? {}).filter((name) => !(name in entries));
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
    sequence,
    createdAt: createdAt.toISOString(),
    expiresAt: new Date(createdAt.getTime() + options.expiresInMs).toISOString(),
    defaults: { activation: { mode } },
    hosts: entries,
  };
  const envelope = sealEnvelope(encodeManifest(manifest), keys);
  if (options.signal?.aborted) throw new PullError("INTERRUPTED", "stopped before the release");
  await writer.placeManifest(channel, envelope);
  // What was written is read back as a host would read it.
  const written = await writer.currentRelease(channel, { ...trust, threshold: keys.length });
  return {
    channel,
    sequence,
    digest: written?.digest ?? "",
    createdAt: manifest.createdAt,
    expiresAt: manifest.expiresAt,
    manifest: writer.manifestPath(channel),
    signedBy: written?.signedBy ?? [],
    hosts: published,
    dropped,
  };
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

function checkHosts(hosts: readonly HostSpec[]): void {
  if (hosts.length === 0) throw new PullError("USAGE", "expected at least one host");
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
    const archive = await packArchive(closure, options.keys, cache, temporary, (count) => {
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
 * The archive of the release before, where it holds this very system, signed by these
 * keys: it need not be packed again.
 */
async function findReusable(
  writer: MirrorWriter,
  { keys }: PublishOptions,
  toplevel: string,
  current: Manifest | null,
): Promise<Packed | null> {
  const entry = Object.values(current?.hosts ?? {}).find((host) => host.toplevel === toplevel);
  if (!entry || !(await writer.hasArchive(entry.archive))) return null;
  const { archive, closureSize } = entry;
  try {
    const compressed = await readAt(
      writer.archivePath(archive.sha256),
      TAR_BLOCK,
      archive.index.size,
    );
    const indexes = keys.map(({ publicKey }) => readIndex(compressed, entry, [publicKey]));
    return { closureSize, paths: indexes[0]?.narInfos.length ?? 0, archive, reused: true };
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
