import { readEnvelopeParts, type EnvelopeParts } from "../../core/formats/envelope-reader.ts";
import { PullError } from "../../core/errors.ts";
import { manifestFile } from "../mirror/mirror-reader.ts";
import type { MirrorWriter } from "../mirror/mirror-writer.ts";
import { MAX_MANIFEST_BYTES } from "../mirror/retained-releases.ts";
import type { SeenDifference } from "./seen-difference.ts";

/** Names that the signatures of an envelope claim, each once. */
export function claimedSigners({ signatures }: Pick<EnvelopeParts, "signatures">): string[] {
  return [...new Set(signatures.map(({ keyid }) => keyid ?? "unnamed"))];
}

/**
 * Names that the signatures of the release in force claim, also of keys that are not known here;
 * null if there is no release that can be read. For messages only: nothing is verified.
 */
export async function signersInForce(
  { root }: Pick<MirrorWriter, "root">,
  channel: string,
): Promise<string[] | null> {
  const file = manifestFile(channel);
  try {
    if (!(await root.statFile(file))) return null;
    return claimedSigners(readEnvelopeParts(await root.readFile(file, MAX_MANIFEST_BYTES)));
  } catch (error) {
    if (error instanceof PullError) return null;
    throw error;
  }
}

/** A difference that says too whose signatures go and come. */
export function withSigners(
  difference: SeenDifference,
  before: readonly string[] | null,
  after: readonly string[],
): SeenDifference {
  const names = (signers: readonly string[]): string => [...signers].sort().join(", ") || "nobody";
  if (before === null || names(before) === names(after)) return difference;
  const change = { what: "signed by", before: names(before), after: names(after) };
  return { ...difference, release: [...difference.release, change] };
}

/** Warns if a release has fewer signatures than the one that it replaces. */
export function warnOfFewer(
  before: readonly string[],
  after: readonly string[],
  mirror: string,
  onWarning: (message: string) => void,
): void {
  const count = new Set(after).size;
  if (count >= before.length) return;
  onWarning(
    `ONLY ${count} SIGNED THIS RELEASE (${after.join(", ")}); the release before has signatures of ` +
      `${before.length} (${before.join(", ")}). Hosts with a threshold of ${count + 1} or more will ` +
      `refuse it; add signatures with: nixos-pull sign ${mirror} --key FILE`,
  );
}
