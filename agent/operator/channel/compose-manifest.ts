import {
  MANIFEST_FORMAT_VERSION,
  type Manifest,
  type Position,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import { historyAfter } from "../../core/release/release-history.ts";
import type { NextReleaseOptions } from "./open-channel.ts";
import { nextPosition, type PositionRequest } from "./position.ts";

/** Where and when a release stands in its channel, and after which releases. */
export type ReleaseFrame = Pick<
  Manifest,
  "channel" | "epoch" | "sequence" | "createdAt" | "history"
>;

/** What a release says of its hosts, apart from where it stands. */
export type ReleaseContents = Pick<Manifest, "defaults" | "hosts" | "rollout" | "barrier">;

/**
 * The frame of the release after `current`, made now, at none of the `reserved` places. Throws
 * PUBLISH_FAILED.
 */
export function nextFrame(
  { channel, clock }: Pick<NextReleaseOptions, "channel" | "clock">,
  current: SignedManifest | null,
  { reserved, ...request }: PositionRequest & { readonly reserved: readonly Position[] },
): ReleaseFrame {
  return {
    channel,
    ...nextPosition(current?.manifest ?? null, request, reserved),
    createdAt: clock.now().toISOString(),
    history: historyAfter(current),
  };
}

/** The manifest of a release, with an expiry that counts from its creation. */
export function composeManifest(
  frame: ReleaseFrame,
  { defaults, hosts, rollout, barrier }: ReleaseContents,
  { expiresInMs }: Pick<NextReleaseOptions, "expiresInMs">,
): Manifest {
  const { history, ...place } = frame;
  return {
    formatVersion: MANIFEST_FORMAT_VERSION,
    ...place,
    expiresAt: new Date(Date.parse(frame.createdAt) + expiresInMs).toISOString(),
    history,
    defaults,
    ...(barrier && { barrier }),
    ...(rollout && { rollout }),
    hosts,
  };
}
