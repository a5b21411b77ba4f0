import {
  MAX_SUPPORTED,
  positionOf,
  type ManifestFrame,
  type SupportedRelease,
} from "../formats/manifest.ts";

/** How long a release stays in place for agents that lack what the next one requires. */
export const DEFAULT_SUPPORT_MS = 365 * 86_400_000;

/** An earlier release of a channel that could be named on the way out. */
export interface EarlierRelease {
  readonly manifest: Pick<ManifestFrame, "epoch" | "sequence" | "requires">;
  readonly digest: string;
}

/** What the way out of a new release is made of. */
export interface SupportRequest {
  /** What the new release requires. */
  readonly requires: readonly string[];
  /** The releases before it, the newest first. */
  readonly earlier: readonly EarlierRelease[];
  /** What the release before named already. */
  readonly carried: readonly SupportedRelease[];
  /** When the new one was created. */
  readonly createdAt: string;
  /** For how long from then on; if absent, what was named already keeps its time. */
  readonly supportMs: number | undefined;
}

/**
 * The older releases that a new one names for agents that lack what it requires: the newest for
 * each lesser set of features. So a host on its way out takes no more steps than it has to.
 */
export function supportedBy(request: SupportRequest): SupportedRelease[] {
  const { requires, earlier, carried, createdAt, supportMs } = request;
  const from = Date.parse(createdAt);
  const found: SupportedRelease[] = [];
  const sets: (readonly string[])[] = [requires];
  for (const { manifest, digest } of earlier) {
    if (found.length >= MAX_SUPPORTED) break;
    const own = manifest.requires ?? [];
    // Whoever can follow it can follow a newer one.
    if (sets.some((set) => set.every((feature) => own.includes(feature)))) continue;
    sets.push(own);
    const known = carried.find((release) => release.digest === digest);
    const until =
      supportMs === undefined && known
        ? known.until
        : new Date(from + (supportMs ?? DEFAULT_SUPPORT_MS)).toISOString();
    if (Date.parse(until) <= from) continue;
    const { epoch, sequence } = positionOf(manifest);
    const requirement = own.length > 0 && { requires: [...own] };
    found.push({ ...(epoch > 0 && { epoch }), sequence, digest, ...requirement, until });
  }
  return found;
}
