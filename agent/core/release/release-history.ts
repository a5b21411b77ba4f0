import {
  comparePositions,
  describePosition,
  positionOf,
  type Manifest,
  type NamedRelease,
  type Position,
  type SignedFrame,
  type SignedManifest,
} from "../formats/manifest.ts";

/**
 * How many releases before it a manifest names, without a gap: more than a year of daily
 * refreshes. So whoever followed the channel within that time can tell whether a newer release
 * comes after the one that he knows, or whether the publisher forgot it.
 */
export const HISTORY_LENGTH = 400;

/** A release by its place and the digest of its payload. */
export interface KnownRelease extends Position {
  readonly digest: string;
}

/** A signed manifest by its place and digest. */
export function knownRelease({
  manifest,
  digest,
}: Pick<SignedFrame, "manifest" | "digest">): KnownRelease {
  return { ...positionOf(manifest), digest };
}

/** A place as a manifest has it: without an epoch if that is 0. */
export function placeOf({
  epoch = 0,
  sequence,
}: {
  epoch?: number | undefined;
  sequence: number;
}): Position {
  return { epoch, sequence };
}

/** The history of the release after `current`, which is null if the channel has none. */
export function historyAfter(current: SignedManifest | null): Manifest["history"] {
  if (!current) return { since: { sequence: 1 }, releases: [] };
  const { history } = current.manifest;
  const all = [...history.releases, named(knownRelease(current))];
  const releases = all.slice(-HISTORY_LENGTH);
  const [oldest] = releases;
  if (!oldest || releases.length === all.length) return { since: history.since, releases };
  const { epoch, sequence } = oldest;
  return { since: { ...(epoch !== undefined && { epoch }), sequence }, releases };
}

function named({ epoch, sequence, digest }: KnownRelease): NamedRelease {
  return { ...(epoch > 0 && { epoch }), sequence, digest };
}

/**
 * What a manifest says of an earlier release: `named` with this digest, `other` if another one
 * or none had its number, `unknown` if it is older than what the manifest names, or not earlier.
 */
export type Ancestry =
  | { readonly kind: "named" }
  | { readonly kind: "unknown" }
  | { readonly kind: "other"; readonly found: string | null };

/** Whether the release of `manifest` comes after the release `known`. */
export function ancestryOf(
  manifest: Pick<Manifest, "epoch" | "sequence" | "history">,
  known: KnownRelease,
): Ancestry {
  const { since, releases } = manifest.history;
  const isCovered =
    comparePositions(placeOf(since), known) <= 0 &&
    comparePositions(known, positionOf(manifest)) < 0;
  if (!isCovered) return { kind: "unknown" };
  const found = releases.find((release) => comparePositions(placeOf(release), known) === 0);
  if (found?.digest === known.digest) return { kind: "named" };
  return { kind: "other", found: found?.digest ?? null };
}

/** `release 7 with digest ab12…`, for messages about two releases that do not fit together. */
export function describeKnown(known: KnownRelease): string {
  return `release ${describePosition(known)} with digest ${known.digest}`;
}
