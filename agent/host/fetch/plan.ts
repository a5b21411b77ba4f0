import {
  narMembersOf,
  type ArchiveContents,
  type NarMember,
} from "../../core/formats/archive-index.ts";
import { narFileName, type NarInfo } from "../../core/formats/narinfo.ts";
import { STORE_DIRECTORY, decodeBase32 } from "../../core/formats/store-path.ts";
import { deltaOffers, type Delta } from "../../core/transfer/delta.ts";
import type { FetchTools } from "./tools.ts";

/** A path that is to be made out of an older one. */
export interface PlannedDelta {
  /** Absolute store path. */
  readonly path: string;
  readonly delta: Delta;
  /** The NAR member that it spares: no other path has the same. */
  readonly member: string;
  /** The path as it will be imported: its NAR uncompressed, the signatures as they are. */
  readonly narInfo: NarInfo;
  /** Name of that NAR in staging. */
  readonly file: string;
}

/** A path that the store lacks. */
export interface MissingPath {
  /** Absolute store path. */
  readonly path: string;
  readonly info: NarInfo;
  /** Name of its NAR member; paths of the same contents share one. */
  readonly member: string;
  readonly delta: PlannedDelta | null;
}

/** What a release's closure takes on this host; made before anything is downloaded. */
export interface FetchPlan {
  readonly contents: ArchiveContents;
  /** In topological order, dependencies first. */
  readonly paths: readonly MissingPath[];
  /** Those of them that are valid, but do not have their contents: they are mended, not imported. */
  readonly damaged: ReadonlySet<string>;
  /** Their NAR members by name, in the order of the archives. */
  readonly nars: ReadonlyMap<string, NarMember>;
}

/** Paths that are brought in together. */
export interface Portion {
  readonly deltas: readonly PlannedDelta[];
  /** Names of the NAR members of the others. */
  readonly nars: ReadonlySet<string>;
}

/** What a plan is made for, if that is not what the store says that it lacks. */
export interface PlanRequest {
  /** Valid paths that come again, because they are damaged. */
  readonly damaged?: readonly string[];
  /** The only paths that are wanted. */
  readonly only?: ReadonlySet<string>;
}

/** Asks the store what it lacks, and chooses how each missing path comes. Throws as the store. */
export async function planFetch(
  contents: ArchiveContents,
  tools: Pick<FetchTools, "settings" | "store" | "deltas" | "log">,
  { damaged = [], only }: PlanRequest = {},
): Promise<FetchPlan> {
  const paths = contents.narInfos.map((info) => ({
    path: absolute(info.storePath),
    info,
    member: narFileName(info.fileSha256, info.compression),
  }));
  const invalid = new Set(await tools.store.invalidPaths(paths.map(({ path }) => path)));
  const deltas = await chooseDeltas(contents, { invalid, damaged }, tools);
  const wanted = new Set([...invalid, ...damaged].filter((path) => !only || only.has(path)));
  const missing = paths
    .filter(({ path }) => wanted.has(path))
    .map((it) => ({ ...it, delta: deltas.get(it.path) ?? null }));
  const members = new Set(missing.map(({ member }) => member));
  return {
    contents,
    paths: missing,
    damaged: new Set(damaged),
    nars: new Map(
      narMembersOf(contents)
        .filter(({ name }) => members.has(name))
        .map((member) => [member.name, member]),
    ),
  };
}

/** The absolute store path with this base name. */
export function absolute(storePath: string): string {
  return `${STORE_DIRECTORY}/${storePath}`;
}

/**
 * Chooses, for each missing path, the cheapest delta whose base the store holds. There are
 * none if limits forbid it, or if this host cannot apply them.
 */
async function chooseDeltas(
  contents: ArchiveContents,
  { invalid, damaged }: { invalid: ReadonlySet<string>; damaged: readonly string[] },
  {
    settings,
    store,
    deltas: maker,
    log,
  }: Pick<FetchTools, "settings" | "store" | "deltas" | "log">,
): Promise<Map<string, PlannedDelta>> {
  const chosen = new Map<string, PlannedDelta>();
  const offers = deltaOffers(contents, settings.limits.deltaNarBytes).flatMap(
    ({ at, entry, deltas }) => {
      const info = contents.narInfos[at];
      return info && invalid.has(absolute(entry.path)) ? [{ info, deltas }] : [];
    },
  );
  if (offers.length === 0) return chosen;
  if (!(await maker.canMake())) {
    log.info(`zstd is not on PATH: ${offers.length} paths are downloaded whole`);
    return chosen;
  }
  const bases = new Set(offers.flatMap(({ deltas }) => deltas.map(({ base }) => base)));
  const absent = new Set([...(await store.invalidPaths([...bases])), ...damaged]);
  for (const { info, deltas } of offers) {
    const delta = deltas.find(({ base }) => !absent.has(base));
    if (!delta) continue;
    const path = absolute(info.storePath);
    chosen.set(path, { path, delta, ...uncompressed(info) });
  }
  return chosen;
}

/** The form in which a delta gives the NAR of a path. */
function uncompressed(info: NarInfo): Pick<PlannedDelta, "member" | "narInfo" | "file"> {
  const digits = info.narHash.slice("sha256:".length);
  const fileSha256 = decodeBase32(digits, 32)?.toString("hex") ?? "";
  return {
    member: narFileName(info.fileSha256, info.compression),
    narInfo: { ...info, compression: "none", fileSha256, fileSize: info.narSize },
    file: narFileName(fileSha256, "none"),
  };
}

/**
 * Divides what is missing into portions of about so many bytes, so that deltas and whole
 * NARs come in the order in which they can be imported. Without deltas there is one portion,
 * read in the order of the archives.
 */
export function portionsOf({ paths, nars }: FetchPlan, bytes: number): Portion[] {
  if (paths.every(({ delta }) => delta === null)) {
    return [{ deltas: [], nars: new Set(nars.keys()) }];
  }
  const portions: { deltas: PlannedDelta[]; nars: Set<string> }[] = [];
  let size = Infinity;
  for (const { info, member, delta } of paths) {
    const added = delta ? info.narSize : info.fileSize;
    if (size + added > bytes) {
      portions.push({ deltas: [], nars: new Set() });
      size = 0;
    }
    size += added;
    if (delta) portions.at(-1)?.deltas.push(delta);
    else portions.at(-1)?.nars.add(member);
  }
  return portions;
}
