import { z } from "zod";
import { PullError } from "./errors.ts";
import { channelSchema, sha256Schema, type SignedManifest } from "./manifest.ts";

/**
 * What a host remembers of the releases it accepted, so that no mirror can take it
 * back (TUF specification, section 5.4.4: version numbers only grow).
 */
export const trustMemorySchema = z.strictObject({
  channel: channelSchema,
  /** Highest sequence number ever accepted. */
  sequence: z.int().positive(),
  /** The payload digest that came with it. */
  digest: sha256Schema,
  /** That release's `createdAt`: a floor for the clock. */
  createdAt: z.iso.datetime(),
});
export type TrustMemory = z.infer<typeof trustMemorySchema>;

/** One memory for each channel that this host ever followed. */
export const trustMemoriesSchema = z.array(trustMemorySchema);
export type TrustMemories = z.infer<typeof trustMemoriesSchema>;

/** The memory of one channel, or null where the host never followed it. */
export function memoryOf(memories: TrustMemories, channel: string): TrustMemory | null {
  return memories.find((memory) => memory.channel === channel) ?? null;
}

/** Puts memories from several places together: the highest sequence of each channel counts. */
export function mergeMemories(memories: TrustMemories): TrustMemories {
  const best = new Map<string, TrustMemory>();
  for (const memory of memories) {
    const known = best.get(memory.channel);
    if (!known || memory.sequence > known.sequence) best.set(memory.channel, memory);
  }
  return [...best.values()];
}

/** How far a manifest's creation may lie in this host's future before its clock is doubted. */
export const CLOCK_TOLERANCE_MS = 15 * 60 * 1000;

/**
 * Decides whether a verified manifest may be followed here and gives the memory to
 * keep if it is. Throws CHANNEL_MISMATCH, CLOCK_IMPLAUSIBLE, SEQUENCE_REPLAYED,
 * SEQUENCE_CONFLICT or MANIFEST_EXPIRED.
 */
export function acceptManifest(
  signed: SignedManifest,
  context: { channel: string; memories: TrustMemories; now: Date },
): TrustMemory {
  const { manifest, digest } = signed;
  const memory = memoryOf(context.memories, context.channel);
  if (manifest.channel !== context.channel) {
    throw new PullError(
      "CHANNEL_MISMATCH",
      `expected a manifest of channel ${context.channel}, found one of ${manifest.channel}`,
    );
  }
  if (memory && manifest.sequence < memory.sequence) {
    throw new PullError(
      "SEQUENCE_REPLAYED",
      `expected sequence ${memory.sequence} or higher, found ${manifest.sequence}`,
    );
  }
  if (memory?.sequence === manifest.sequence && memory.digest !== digest) {
    throw new PullError(
      "SEQUENCE_CONFLICT",
      `sequence ${manifest.sequence} was accepted with digest ${memory.digest}, found ${digest}`,
    );
  }
  const now = context.now.getTime();
  if (memory && Date.parse(memory.createdAt) > now + CLOCK_TOLERANCE_MS) {
    throw new PullError(
      "CLOCK_IMPLAUSIBLE",
      `release ${memory.sequence} was accepted before and is of ${memory.createdAt}, ` +
        `this host's clock says ${context.now.toISOString()}`,
    );
  }
  if (Date.parse(manifest.createdAt) > now + CLOCK_TOLERANCE_MS) {
    throw new PullError(
      "CLOCK_IMPLAUSIBLE",
      `release ${manifest.sequence} was created at ${manifest.createdAt}, ` +
        `this host's clock says ${context.now.toISOString()}`,
    );
  }
  if (Date.parse(manifest.expiresAt) <= now) {
    throw new PullError(
      "MANIFEST_EXPIRED",
      `release ${manifest.sequence} expired at ${manifest.expiresAt}, ` +
        `this host's clock says ${context.now.toISOString()}`,
    );
  }
  return {
    channel: manifest.channel,
    sequence: manifest.sequence,
    digest,
    createdAt: manifest.createdAt,
  };
}
