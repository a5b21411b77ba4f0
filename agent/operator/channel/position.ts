import { PullError } from "../../core/errors.ts";
import {
  comparePositions,
  describePosition,
  positionOf,
  type Manifest,
  type Position,
} from "../../core/formats/manifest.ts";

/** How an operator wants the next release to be numbered. */
export interface PositionRequest {
  /** Restarts the numbering; without a number, the epoch is one more than the current one. */
  readonly newEpoch?: { readonly reason: string; readonly number?: number | undefined } | undefined;
  /** Instead of one more than the current release's. */
  readonly sequence?: number | undefined;
}

/** The last of some places, and of the current release's. */
function lastOf(current: Manifest | null, reserved: readonly Position[]): Position {
  const places = [...reserved, ...(current ? [positionOf(current)] : [])];
  return places.reduce((last, place) => (comparePositions(place, last) > 0 ? place : last), {
    epoch: 0,
    sequence: 0,
  });
}

/**
 * The epoch and sequence of the release after `current`, which is null in a new channel. Numbers
 * in `reserved` belong to drafts, whether they ever come into force or not. Throws PUBLISH_FAILED
 * if hosts would refuse what is asked for, or it is reserved.
 */
export function nextPosition(
  current: Manifest | null,
  { newEpoch, sequence: wanted }: PositionRequest = {},
  reserved: readonly Position[] = [],
): Pick<Manifest, "epoch" | "sequence"> {
  const epoch = newEpoch
    ? { number: newEpoch.number ?? lastOf(current, reserved).epoch + 1, reason: newEpoch.reason }
    : current?.epoch;
  const number = epoch?.number ?? 0;
  // Drafts of a later epoch may never come into force, and reserve nothing here.
  const here = reserved.filter((place) => place.epoch === number);
  const isSameEpoch = current !== null && positionOf(current).epoch === number;
  // A new epoch starts at 1 again.
  const before = lastOf(isSameEpoch ? current : null, here).sequence;
  const next = { ...(epoch && { epoch }), sequence: wanted ?? before + 1 };
  expectNewer(next, current);
  if (next.sequence <= before) {
    throw new PullError(
      "PUBLISH_FAILED",
      `sequence: expected more than ${before}, which a draft may have, found ${next.sequence}`,
    );
  }
  expectRoomAfter(next);
  return next;
}

/** How many numbers have to be left after a release. */
const ROOM = 1_000_000;

/**
 * Throws PUBLISH_FAILED if a release has one of the last numbers there are: nothing could come
 * after it.
 */
export function expectRoomAfter({ sequence }: Pick<Manifest, "sequence">): void {
  if (sequence <= Number.MAX_SAFE_INTEGER - ROOM) return;
  throw new PullError(
    "PUBLISH_FAILED",
    `sequence: expected at most ${Number.MAX_SAFE_INTEGER - ROOM}, so that numbers are left, found ` +
      `${sequence}; \`publish --new-epoch REASON\` begins at 1 again`,
  );
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
