import type { ReleasedSystem, SignedManifest } from "../../core/formats/manifest.ts";
import {
  packageChanges,
  type PackageChange,
  type SizedPath,
} from "../../core/release/package-difference.ts";
import {
  differenceOf,
  type HostDifference,
  type ReleaseDifference,
} from "../../core/release/release-difference.ts";
import { knownRelease, type KnownRelease } from "../../core/release/release-history.ts";
import { readContents, type ArchiveSource } from "../mirror/read-contents.ts";

/** A release, whoever signed it. */
export type SeenRelease = Pick<SignedManifest, "manifest" | "digest">;

/** What changes for one host, with its packages. */
export interface SeenHost extends HostDifference {
  /** Null if the system stays, is new, or the indexes of both are not at hand. */
  readonly packages: readonly PackageChange[] | null;
}

/** What a release changes, as a person sees it before a signature. */
export interface SeenDifference extends Omit<ReleaseDifference, "hosts"> {
  /** The release that it is a difference from; null for none, when everything is shown. */
  readonly from: KnownRelease | null;
  readonly hosts: readonly SeenHost[];
}

/**
 * The difference between two releases, with the packages that change on each host as far as
 * `source` has the indexes of both systems. Without a release before, everything is shown.
 */
export async function seeDifference(
  before: SeenRelease | null,
  after: Pick<SeenRelease, "manifest">,
  source: ArchiveSource | null,
): Promise<SeenDifference> {
  const difference = differenceOf(before?.manifest ?? null, after.manifest);
  // Many hosts may have one system, so that each pair is compared once.
  const compared = new Map<string, readonly PackageChange[] | null>();
  const hosts: SeenHost[] = [];
  for (const host of difference.hosts) {
    const { before: old, after: next } = host;
    if (!source || !old || !next || old.toplevel === next.toplevel) {
      hosts.push({ ...host, packages: null });
      continue;
    }
    const pair = `${old.toplevel} ${next.toplevel}`;
    const known = compared.get(pair);
    const packages = known === undefined ? await packagesBetween(source, old, next) : known;
    compared.set(pair, packages);
    hosts.push({ ...host, packages });
  }
  return { ...difference, from: before && knownRelease(before), hosts };
}

async function packagesBetween(
  source: ArchiveSource,
  before: ReleasedSystem,
  after: ReleasedSystem,
): Promise<readonly PackageChange[] | null> {
  const [old, next] = [await pathsOf(source, before), await pathsOf(source, after)];
  return old && next ? packageChanges(old, next) : null;
}

async function pathsOf(
  source: ArchiveSource,
  system: ReleasedSystem,
): Promise<readonly SizedPath[] | null> {
  return (await readContents(source, system))?.narInfos ?? null;
}
