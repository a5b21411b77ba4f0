import type { ArchiveContents, IndexedPath, OtherArchive } from "../formats/archive-index.ts";
import { STORE_DIRECTORY } from "../formats/store-path.ts";

/** A way to a path by way of an older one: bytes of another archive, and what they are based on. */
export interface Delta {
  /** Absolute path of what the host has to have. */
  readonly base: string;
  /** Hashes to be replaced in the base's NAR before the delta is applied to it. */
  readonly replacements: ReadonlyMap<string, string>;
  readonly archive: OtherArchive;
  /** From the start of the archive. */
  readonly offset: number;
  readonly size: number;
  readonly sha256: string;
}

/** The part of an indexed path that tells where it came from. */
export type PathHistory = Pick<IndexedPath, "path" | "references" | "was">;

/** Base name of a path's counterpart in base release `base`, or null. */
export function counterpartOf(
  { path, was }: Pick<PathHistory, "path" | "was">,
  base: number,
): string | null {
  const text = was?.[base] ?? "";
  if (text === "") return null;
  return text.includes("-") ? text : text + path.slice(32);
}

/** As `was` has it: the hash alone if the names are the same. */
export function encodeCounterpart(path: string, counterpart: string): string {
  return counterpart.slice(32) === path.slice(32) ? counterpart.slice(0, 32) : counterpart;
}

/** What the hashes of the old path and of its references have become: both sides must agree. */
export function replacementsFor(
  index: { readonly paths: readonly PathHistory[] },
  entry: PathHistory,
  base: number,
): Map<string, string> {
  const replacements = new Map<string, string>();
  const references = entry.references.flatMap((position) => index.paths[position] ?? []);
  for (const one of [entry, ...references]) {
    const old = counterpartOf(one, base);
    if (old !== null) replacements.set(old.slice(0, 32), one.path.slice(0, 32));
  }
  return replacements;
}

/** Every delta for a path of the index, cheapest first. */
export function deltasOf({ index }: ArchiveContents, entry: IndexedPath): Delta[] {
  return (entry.deltas ?? [])
    .flatMap(({ base, archive, offset, size, sha256 }): Delta[] => {
      const counterpart = counterpartOf(entry, base);
      const other = index.archives?.[archive];
      if (counterpart === null || !other) return [];
      const replacements = replacementsFor(index, entry, base);
      const path = `${STORE_DIRECTORY}/${counterpart}`;
      return [{ base: path, replacements, archive: other, offset, size, sha256 }];
    })
    .sort((a, b) => a.size - b.size);
}

/** Larger deltas are never used: an agent holds them in memory. */
export const MAX_DELTA_BYTES = 4 * 1024 * 1024;

/** A path that can be made out of an older one, and by which deltas, cheapest first. */
export interface DeltaOffer {
  /** Position in the index. */
  readonly at: number;
  readonly entry: IndexedPath;
  readonly deltas: readonly Delta[];
}

/** Longest NAR that agents make by a delta, unless they are set up otherwise (`limits.deltaNarBytes`). */
export const DEFAULT_DELTA_NAR_BYTES = 128 * 1024 ** 2;

/** The paths for which an agent would use a delta if it has a base; `limit` is `limits.deltaNarBytes`. */
export function deltaOffers(contents: ArchiveContents, limit: number): DeltaOffer[] {
  /** Paths of the same contents come together, by one NAR. */
  const users = new Map<string, number>();
  for (const { fileSha256 } of contents.narInfos) {
    users.set(fileSha256, (users.get(fileSha256) ?? 0) + 1);
  }
  return [...contents.index.paths.entries()].flatMap(([at, entry]): DeltaOffer[] => {
    if (entry.narSize > limit || (users.get(entry.nar.sha256) ?? 0) > 1) return [];
    const deltas = deltasOf(contents, entry).filter(
      ({ size }) => size < entry.nar.size && size <= MAX_DELTA_BYTES,
    );
    return deltas.length > 0 ? [{ at, entry, deltas }] : [];
  });
}

/** Names of Nix's usual outputs beside `out` (nixpkgs manual, "Multiple-output packages"). */
const OUTPUTS =
  /-(bin|dev|lib|man|doc|devdoc|info|static|debug|data|dist|modules|nss|terminfo|getent|su|mount|login|swap|scripts|xmodule|py|tools|out)$/;

/**
 * What two versions of one thing have in common: the name without its version, and the
 * output. A version begins, as for Nix, after a dash before a digit (Nix manual,
 * `builtins.parseDrvName`).
 */
export function nameKey(storePathName: string): string {
  const name = storePathName.slice(33);
  const output = OUTPUTS.exec(name)?.[0] ?? "";
  const rest = name.slice(0, name.length - output.length);
  const version = /-[0-9]/.exec(rest);
  return `${version ? rest.slice(0, version.index) : rest}${output}`;
}

/**
 * For each path that the old closure lacks, the old path that it came from: one of the
 * same name, or else of the same name but for the version; of several, the one of the
 * most similar size. Paths that are still there are nobody's past, unless nothing else is.
 */
export function findCounterparts(
  paths: readonly { path: string; narSize: number }[],
  old: readonly { path: string; narSize: number }[],
): Map<string, string> {
  const present = new Set(paths.map(({ path }) => path));
  const byName = new Map<string, { path: string; narSize: number }[]>();
  for (const one of old) {
    if (present.has(one.path)) continue;
    for (const key of [`=${one.path.slice(33)}`, nameKey(one.path)]) {
      byName.set(key, [...(byName.get(key) ?? []), one]);
    }
  }
  const held = new Set(old.map(({ path }) => path));
  const found = new Map<string, string>();
  for (const { path, narSize } of paths) {
    if (held.has(path)) continue;
    const candidates = byName.get(`=${path.slice(33)}`) ?? byName.get(nameKey(path)) ?? [];
    const [best] = candidates.toSorted(
      (a, b) => Math.abs(a.narSize - narSize) - Math.abs(b.narSize - narSize),
    );
    if (best) found.set(path, best.path);
  }
  return found;
}
