import { PullError } from "../../core/errors.ts";
import { unverifiedPayload } from "../../core/formats/envelope.ts";
import { comparePositions, describePosition, positionOf } from "../../core/formats/manifest.ts";
import { placeUnverified } from "../../core/formats/manifest-reader.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import { ancestryOf, describeKnown } from "../../core/release/release-history.ts";
import type { ChosenRelease } from "./choose-releases.ts";
import type { CopyOptions } from "./copy-options.ts";

/**
 * Looks at the manifest that a destination has, before it is replaced. `place` names the destination
 * in messages. Gives the digest of the release that is there, null if there is none that can be
 * told. Throws SEQUENCE_REPLAYED, SEQUENCE_CONFLICT or SEQUENCE_FORKED if hosts of the destination
 * would refuse the new one.
 */
export function expectNoNewer(
  { place, envelope }: { readonly place: string; readonly envelope: Uint8Array | null },
  { channel, signed }: ChosenRelease,
  { source, allowOlder }: Pick<CopyOptions, "source" | "allowOlder">,
): string | null {
  if (!envelope) return null;
  // Decoded once: it may be as long as a manifest can be.
  let digest: string | null = null;
  let current;
  try {
    // Whoever signed it: a manifest that may be newer is not replaced.
    const { payload } = unverifiedPayload(envelope);
    digest = sha256Hex(payload);
    current = { position: positionOf(placeUnverified(payload)), digest };
  } catch {
    return digest; // Hosts cannot read it either.
  }
  const position = positionOf(signed.manifest);
  const order = comparePositions(position, current.position);
  if (order < 0 && !allowOlder) {
    throw new PullError(
      "SEQUENCE_REPLAYED",
      `${place} has release ${describePosition(current.position)} of ${channel}, newer than ` +
        `release ${describePosition(position)} of ${source.address}; nothing was copied ` +
        "(--allow-older replaces it by the older one)",
    );
  }
  if (order === 0 && signed.digest !== current.digest && !allowOlder) {
    throw new PullError(
      "SEQUENCE_CONFLICT",
      `${place} has another release ${describePosition(position)} of ${channel} than ` +
        `${source.address}: digest ${current.digest}, not ${signed.digest}; nothing was copied`,
    );
  }
  const known = { ...current.position, digest: current.digest };
  const isForked =
    position.epoch === known.epoch && ancestryOf(signed.manifest, known).kind === "other";
  if (isForked && !allowOlder) {
    throw new PullError(
      "SEQUENCE_FORKED",
      `${place} has ${describeKnown(known)} of ${channel}; release ` +
        `${describePosition(position)} of ${source.address} does not come after it, and hosts ` +
        "that have the former refuse the latter; nothing was copied",
    );
  }
  return current.digest;
}
