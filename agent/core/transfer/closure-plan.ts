import { narMembersOf, type ArchiveContents, type NarMember } from "../formats/archive-index.ts";
import { narFileName, type NarInfo } from "../formats/narinfo.ts";
import { STORE_DIRECTORY, decodeBase32 } from "../formats/store-path.ts";
import { DEFAULT_DELTA_NAR_BYTES, deltaOffers, type Delta } from "./delta.ts";
import { bytesOf, planRuns } from "./fetch-plan.ts";

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

/** A missing path that can be made out of older ones. */
export interface MissingOffer {
  readonly info: NarInfo;
  /** Cheapest first. */
  readonly deltas: readonly Delta[];
}

/** The deltas that there are for missing paths, as far as `limit` (`limits.deltaNarBytes`) allows. */
export function offersFor(
  contents: ArchiveContents,
  missing: ReadonlySet<string>,
  limit: number,
): MissingOffer[] {
  return deltaOffers(contents, limit).flatMap(({ at, entry, deltas }) => {
    const info = contents.narInfos[at];
    return info && missing.has(absolute(entry.path)) ? [{ info, deltas }] : [];
  });
}

/** Chooses, for each missing path, the cheapest delta whose base is held; by absolute path. */
export function chooseDeltas(
  offers: readonly MissingOffer[],
  isHeld: (base: string) => boolean,
): Map<string, PlannedDelta> {
  const chosen = new Map<string, PlannedDelta>();
  for (const { info, deltas } of offers) {
    const delta = deltas.find(({ base }) => isHeld(base));
    if (!delta) continue;
    const path = absolute(info.storePath);
    chosen.set(path, { path, delta, ...uncompressed(info) });
  }
  return chosen;
}

/** What a plan is made of. */
export interface ClosureNeeds {
  /** Paths that are to come, absolute. */
  readonly wanted: ReadonlySet<string>;
  /** Those of them that are valid and have other contents. */
  readonly damaged?: readonly string[];
  readonly deltas: ReadonlyMap<string, PlannedDelta>;
}

/** Plans how the wanted paths of a closure come. */
export function planClosure(
  contents: ArchiveContents,
  { wanted, damaged = [], deltas }: ClosureNeeds,
): FetchPlan {
  const paths = contents.narInfos
    .map((info) => ({
      path: absolute(info.storePath),
      info,
      member: narFileName(info.fileSha256, info.compression),
    }))
    .filter(({ path }) => wanted.has(path))
    .map((it) => ({ ...it, delta: deltas.get(it.path) ?? null }));
  const members = new Set(paths.map(({ member }) => member));
  return {
    contents,
    paths,
    damaged: new Set(damaged),
    nars: new Map(
      narMembersOf(contents)
        .filter(({ name }) => members.has(name))
        .map((member) => [member.name, member]),
    ),
  };
}

/** Bytes that a plan reads from the mirror if nothing of it is here yet; without the index. */
export function downloadBytesOf({ contents, paths, nars }: FetchPlan): number {
  const missing = new Map([...nars.keys()].map((name) => [name, 0]));
  let deltaBytes = 0;
  for (const { delta } of paths) {
    if (!delta) continue;
    missing.delete(delta.member);
    deltaBytes += delta.delta.size;
  }
  return bytesOf(planRuns(contents, missing)) + deltaBytes;
}

/**
 * What a host downloads that holds exactly the closure of another system: the paths that come and
 * the bytes of them. It takes deltas as an agent with the default limits does.
 */
export function downloadAfter(
  contents: ArchiveContents,
  before: Pick<ArchiveContents, "narInfos">,
): { readonly paths: number; readonly bytes: number } {
  const held = new Set(before.narInfos.map(({ storePath }) => absolute(storePath)));
  const paths = contents.narInfos.map(({ storePath }) => absolute(storePath));
  const wanted = new Set(paths.filter((path) => !held.has(path)));
  const deltas = chooseDeltas(offersFor(contents, wanted, DEFAULT_DELTA_NAR_BYTES), (base) =>
    held.has(base),
  );
  const plan = planClosure(contents, { wanted, deltas });
  return { paths: plan.paths.length, bytes: downloadBytesOf(plan) };
}

/** The absolute store path with this base name. */
export function absolute(storePath: string): string {
  return `${STORE_DIRECTORY}/${storePath}`;
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
