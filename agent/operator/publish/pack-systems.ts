import { platformIn } from "../../effects/systemd/system-contents.ts";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import { storePathName } from "../../core/formats/store-path.ts";
import { parallelMap } from "../../effects/process/parallel-map.ts";
import type { PublishedHost } from "../channel/published-release.ts";
import type { MirrorWriter } from "../mirror/mirror-writer.ts";
import { packArchive, packShared, type PackOptions } from "./archive-packer.ts";
import { packDeltas } from "./delta-packer.ts";
import { NarCache } from "./nar-cache.ts";
import { compressPaths } from "./nar-compressor.ts";
import type { NarLibrary } from "./nar-library.ts";
import { buildContext, readPathInfos } from "./nix-builder.ts";
import {
  readClosure,
  type NarPlace,
  type PackableClosure,
  type PackablePath,
} from "./packable-closure.ts";
import { PathSigner } from "./path-signer.ts";
import type { PublishOptions } from "./publish-options.ts";
import { findReusable, type PackedSystem } from "./reusable-archive.ts";
import { SecretGuard } from "./secret-guard.ts";

/** What all steps of packing need. */
export interface Packing {
  readonly writer: MirrorWriter;
  readonly options: PublishOptions;
  /** What retained releases have. */
  readonly library: NarLibrary;
  /** By hostname. */
  readonly toplevels: ReadonlyMap<string, string>;
}

/** Packs each distinct system once, except those whose archive the mirror has already. */
export async function packSystems(packing: Packing): Promise<Record<string, PublishedHost>> {
  const { writer, options, library, toplevels } = packing;
  const packed = new Map<string, PackedSystem>();
  // Sorted, so that the order in which hosts were given makes no difference.
  const fresh: string[] = [];
  for (const toplevel of [...new Set(toplevels.values())].sort()) {
    const reusable = await findReusable(writer, options, toplevel, library);
    if (reusable) packed.set(toplevel, reusable);
    else fresh.push(toplevel);
  }
  if (fresh.length > 0) {
    for (const [toplevel, system] of await packFresh(packing, fresh)) packed.set(toplevel, system);
  }
  const platforms = new Map<string, string | null>();
  for (const toplevel of packed.keys()) platforms.set(toplevel, await platformIn(toplevel));
  return Object.fromEntries(
    options.hosts.flatMap(({ hostname, activation }) => {
      const toplevel = toplevels.get(hostname) ?? "";
      const found = packed.get(toplevel);
      const mode = activation?.mode ?? options.mode;
      const specialisation = activation?.specialisation ?? null;
      const platform = platforms.get(toplevel) ?? null;
      return found ? [[hostname, { toplevel, mode, specialisation, platform, ...found }]] : [];
    }),
  );
}

/**
 * Compresses the NARs that no retained archive has, and writes an archive for each system. With
 * several systems, one more archive has the paths that they share.
 */
async function packFresh(
  packing: Packing,
  fresh: readonly string[],
): Promise<Map<string, PackedSystem>> {
  const { writer, options } = packing;
  const cache = options.cache ?? join(writer.work, "cache");
  const closures = await prepareClosures(packing, fresh, cache);
  const common = {
    ...{ cache, signer: new PathSigner(options.storeKeys) },
    openArchive: (sha256: string) => writer.openArchive(sha256),
    ageOf: (sha256: string) => packing.library.ageOf(sha256),
  };
  const shared = options.whole ? [] : sharedPaths([...closures.values()]);
  const report = packReporter(options, bytesToPack([...closures.values()], shared, options));
  const onBytes = report("the paths that hosts share");
  const places = await placeShared(writer, shared, { ...common, onBytes });
  const placeOf = (path: PackablePath): NarPlace | null =>
    options.whole ? null : (path.place ?? places.get(path.fileSha256) ?? null);
  const deltas = await packAllDeltas(packing, closures, cache);
  const packed = await parallelMap(
    [...closures],
    async ([toplevel, closure]): Promise<[string, PackedSystem]> => {
      const file = join(writer.work, `${storePathName(toplevel)}.tar`);
      const archive = await packArchive(closure, file, {
        ...{ ...common, placeOf, deltas: deltas(toplevel) },
        onBytes: report(hostOf(packing, toplevel)),
      });
      await writer.placeArchive(file, archive.sha256);
      const { closureSize, paths } = closure;
      return [toplevel, { closureSize, paths: paths.length, archive, reused: false }];
    },
  );
  return new Map(packed);
}

/** A host that gets this system; messages name it. */
function hostOf({ toplevels }: Packing, toplevel: string): string {
  return [...toplevels].find(([, path]) => path === toplevel)?.[0] ?? toplevel;
}

/** Bytes of the NARs that are written into new archives. */
function bytesToPack(
  closures: readonly PackableClosure[],
  shared: readonly PackablePath[],
  { whole }: Pick<PublishOptions, "whole">,
): number {
  const apart = new Set(shared.map(({ fileSha256 }) => fileSha256));
  const sizesOf = (paths: readonly PackablePath[]): number =>
    [...new Map(paths.map((it) => [it.fileSha256, it.fileSize])).values()].reduce(
      (sum, size) => sum + size,
      0,
    );
  return closures.reduce(
    (sum, { paths }) =>
      sum + sizesOf(paths.filter((it) => whole || (!it.place && !apart.has(it.fileSha256)))),
    sizesOf(shared),
  );
}

/** Tells progress in bytes over all archives, and ends packing if a signal came. */
function packReporter(
  { signal, onProgress }: PublishOptions,
  ofBytes: number,
): (hostname: string) => (count: number) => void {
  let bytes = 0;
  return (hostname) => (count) => {
    if (signal?.aborted) throw new PullError("INTERRUPTED", "stopped while packing");
    bytes += count;
    onProgress({ phase: "pack", hostname, bytes, ofBytes });
  };
}

/**
 * Brings the NARs of these systems that the mirror does not have into the cache, and gives the
 * closures by toplevel. Throws SECRET_IN_CLOSURE, PUBLISH_FAILED, TOOL_MISSING, INTERRUPTED.
 */
async function prepareClosures(
  { options, library }: Packing,
  fresh: readonly string[],
  cache: string,
): Promise<Map<string, PackableClosure>> {
  const { compression, signal, onProgress } = options;
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
  const ofBytes = missing.reduce((sum, { narSize }) => sum + narSize, 0);
  const onPath = (done: number, bytes: number): void => {
    onProgress({ phase: "compress", done, of: missing.length, bytes, ofBytes });
  };
  onPath(0, 0);
  const narCache = await NarCache.open(cache, { kept: options.cache !== undefined });
  const compressed = await compressPaths(missing, narCache, options, {
    ...{ signal, onPath },
    permits: (storePath, found) => guard.permits(storePath, found),
  });
  guard.check();
  for (const info of compressed) known.set(info.storePath, info);
  const closures = new Map<string, PackableClosure>();
  for (const toplevel of fresh) {
    closures.set(toplevel, await readClosure(cache, toplevel, known));
  }
  return closures;
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

/** Packs what systems share; gives each NAR's place by the sha256 of its file. */
async function placeShared(
  writer: MirrorWriter,
  shared: readonly PackablePath[],
  options: Omit<PackOptions, "placeOf">,
): Promise<Map<string, NarPlace>> {
  if (shared.length === 0) return new Map();
  const file = join(writer.work, "shared.tar");
  const { archive, offsets } = await packShared(shared, file, options);
  await writer.placeArchive(file, archive.sha256);
  return new Map([...offsets].map(([sha256, offset]) => [sha256, { archive, offset }]));
}

/** Makes the deltas of a release, if any are wanted; gives them by toplevel. */
async function packAllDeltas(
  packing: Packing,
  closures: ReadonlyMap<string, PackableClosure>,
  cache: string,
): Promise<(toplevel: string) => PackOptions["deltas"]> {
  const { writer, options, library } = packing;
  const none = (): undefined => undefined;
  const releases = library.releases.slice(0, options.deltas);
  if (releases.length === 0) return none;
  const file = join(writer.work, "deltas.tar");
  const compared = [...closures].map(([toplevel, closure]) => {
    const hostname = hostOf(packing, toplevel);
    return [toplevel, { closure, hostname }] as const;
  });
  const { archive, closures: made } = await packDeltas(new Map(compared), releases, file, {
    ...{ library, cache, work: join(writer.work, "deltas"), signal: options.signal },
    openArchive: (sha256) => writer.openArchive(sha256),
    onDelta: (done, of) => {
      options.onProgress({ phase: "delta", done, of });
    },
  });
  if (!archive) return none;
  await writer.placeArchive(file, archive.sha256);
  return (toplevel) => {
    const found = made.get(toplevel);
    return found && { ...found, archive };
  };
}
