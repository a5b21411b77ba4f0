import { PullError } from "../../core/errors.ts";
import {
  comparePositions,
  describePosition,
  positionOf,
  type Manifest,
} from "../../core/formats/manifest.ts";

/** How an operator wants the next release to be numbered. */
export interface PositionRequest {
  /** Restarts the numbering; without a number, the epoch is one more than the current one. */
  readonly newEpoch?: { readonly reason: string; readonly number?: number | undefined } | undefined;
  /** Instead of one more than the current release's. */
  readonly sequence?: number | undefined;
}

/**
 * The epoch and sequence of the release after `current`, which is null in a new channel. Throws
 * PUBLISH_FAILED if hosts would refuse them.
 */
export function nextPosition(
  current: Manifest | null,
  { newEpoch, sequence: wanted }: PositionRequest = {},
): Pick<Manifest, "epoch" | "sequence"> {
  const epoch = newEpoch
    ? { number: newEpoch.number ?? (current?.epoch?.number ?? 0) + 1, reason: newEpoch.reason }
    : current?.epoch;
  // A new epoch starts at 1 again.
  const before = newEpoch ? 0 : (current?.sequence ?? 0);
  const next = { ...(epoch && { epoch }), sequence: wanted ?? before + 1 };
  expectNewer(next, current);
  return next;
}

/** Throws PUBLISH_FAILED if hosts that follow `current` would refuse a release at this place. */
export function expectNewer(
  next: Pick<Manifest, "epoch" | "sequence">,
  current: Manifest | null,
): void {
  if (!current || comparePositions(positionOf(next), positionOf(current)) > 0) return;
  throw new PullError(
    "PUBLISH_FAILED",
    `sequence: expected more than the current release's ` +
      `${describePosition(positionOf(current))}, found ${describePosition(positionOf(next))}`,
  );
}

/** A release as messages name it. */
export function describeRelease(manifest: Manifest): string {
  return `release ${describePosition(positionOf(manifest))} of ${manifest.channel}`;
}
