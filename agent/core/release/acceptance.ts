import * as z from "zod";
import { PullError } from "../errors.ts";
import { unknownKeys } from "../formats/compatibility.ts";
import { ancestryOf, type Ancestry } from "./release-history.ts";
import {
  channelSchema,
  comparePositions,
  describePosition,
  positionOf,
  sha256Schema,
  type Position,
  type SignedFrame,
} from "../formats/manifest.ts";

/**
 * What a host remembers of the releases it accepted, so that no mirror can take it
 * back (TUF specification, section 5.4.4: version numbers only grow).
 */
export const trustMemorySchema = z.strictObject({
  channel: channelSchema,
  /** Highest epoch ever accepted; absent for 0. */
  epoch: z.int().positive().optional(),
  /** Highest sequence number ever accepted in that epoch. */
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

/** The memory of one channel; null if the host never followed it. */
export function memoryOf(memories: TrustMemories, channel: string): TrustMemory | null {
  return memories.find((memory) => memory.channel === channel) ?? null;
}

/** The position of the remembered release. */
export function rememberedPosition(memory: TrustMemory): Position {
  return { epoch: memory.epoch ?? 0, sequence: memory.sequence };
}

/**
 * Merges memories from several files: the highest position of each channel counts, and what
 * another version remembers of the channel stays.
 */
export function mergeMemories(memories: TrustMemories): TrustMemories {
  const best = new Map<string, TrustMemory>();
  for (const memory of memories) {
    const known = best.get(memory.channel) ?? memory;
    const isHigher = comparePositions(rememberedPosition(memory), rememberedPosition(known)) > 0;
    const [higher, other] = isHigher ? [memory, known] : [known, memory];
    best.set(memory.channel, withUnknown(higher, other));
  }
  return [...best.values()];
}

const MEMORY_KEYS: ReadonlySet<string> = new Set(Object.keys(trustMemorySchema.shape));

/** A memory with what another version remembers of the channel beside it. */
function withUnknown(memory: TrustMemory, before: TrustMemory): TrustMemory {
  const unknown = { ...unknownKeys(before, MEMORY_KEYS), ...unknownKeys(memory, MEMORY_KEYS) };
  return { ...memory, ...unknown };
}

/** How wrong this host's clock may be before it is doubted. */
export const CLOCK_TOLERANCE_MS = 15 * 60 * 1000;

/**
 * How many restarts of the numbering a host believes at once. People restart it rarely; without
 * a bound, one mistake could use up all epochs.
 */
export const MAX_EPOCH_STEP = 100;

/** `ignore` is for sites without time: expiry is not enforced there, the order still is. */
export type ClockPolicy = "strict" | "ignore";

export interface AcceptanceContext {
  readonly channel: string;
  readonly memories: TrustMemories;
  readonly now: Date;
  readonly clock?: ClockPolicy | undefined;
  /** When this agent was built: its clock cannot be before that. */
  readonly builtAt?: Date | null | undefined;
}

/**
 * Decides whether a verified manifest may be followed here and gives the memory to
 * keep if it is. Throws CHANNEL_MISMATCH, SEQUENCE_REPLAYED, SEQUENCE_CONFLICT,
 * SEQUENCE_FORKED, EPOCH_IMPLAUSIBLE, CLOCK_BEHIND, CLOCK_IMPLAUSIBLE, MIRROR_STALE or MANIFEST_EXPIRED.
 */
export function acceptManifest(signed: SignedFrame, context: AcceptanceContext): TrustMemory {
  const { manifest } = signed;
  const memory = memoryOf(context.memories, context.channel);
  if (manifest.channel !== context.channel) {
    throw new PullError(
      "CHANNEL_MISMATCH",
      `expected a manifest of channel ${context.channel}, found one of ${manifest.channel}`,
    );
  }
  checkOrder(signed, memory);
  if (context.clock !== "ignore") checkClock(signed, memory, context);
  return memoryOfManifest(signed);
}

/** What a host remembers of a manifest that it accepted. */
export function memoryOfManifest({ manifest, digest }: SignedFrame): TrustMemory {
  const { epoch } = positionOf(manifest);
  return {
    channel: manifest.channel,
    ...(epoch > 0 && { epoch }),
    sequence: manifest.sequence,
    digest,
    createdAt: manifest.createdAt,
  };
}

/**
 * Never back: by epoch, then by sequence (TUF specification, section 5.4.4). Never aside: a
 * release of the same epoch has to come after the one that was accepted.
 */
function checkOrder({ manifest, digest }: SignedFrame, memory: TrustMemory | null): void {
  const found = positionOf(manifest);
  const known = memory ? rememberedPosition(memory) : { epoch: 0, sequence: 0 };
  const order = comparePositions(found, known);
  if (order < 0) {
    throw new PullError(
      "SEQUENCE_REPLAYED",
      `expected sequence ${describePosition(known)} or higher, found ${describePosition(found)}`,
    );
  }
  if (memory && order === 0 && memory.digest !== digest) {
    throw new PullError(
      "SEQUENCE_CONFLICT",
      `sequence ${describePosition(found)} was accepted with digest ${memory.digest}, found ${digest}`,
    );
  }
  if (memory && order > 0 && found.epoch === known.epoch) {
    const ancestry = ancestryOf(manifest, { ...known, digest: memory.digest });
    if (ancestry.kind === "other") throw forked({ found, known, memory, ancestry });
  }
  if (found.epoch > known.epoch + MAX_EPOCH_STEP) {
    throw new PullError(
      "EPOCH_IMPLAUSIBLE",
      `expected an epoch of at most ${known.epoch + MAX_EPOCH_STEP}, found ${found.epoch}`,
    );
  }
}

function forked({
  found,
  known,
  memory,
  ancestry,
}: {
  found: Position;
  known: Position;
  memory: TrustMemory;
  ancestry: Ancestry & { kind: "other" };
}): PullError {
  return new PullError(
    "SEQUENCE_FORKED",
    `release ${describePosition(known)} was accepted with digest ${memory.digest}; expected ` +
      `release ${describePosition(found)} to come after it, found that it comes after ` +
      (ancestry.found === null
        ? "none of that number"
        : `one of that number with digest ${ancestry.found}`) +
      ": the publisher worked from a mirror that was set back, and a new epoch ends that",
  );
}

function checkClock(
  { manifest, digest }: SignedFrame,
  memory: TrustMemory | null,
  { now: clock, builtAt }: AcceptanceContext,
): void {
  const now = clock.getTime();
  const says = `this host's clock says ${clock.toISOString()}`;
  const seen = memory ? Date.parse(memory.createdAt) : -Infinity;
  const built = builtAt?.getTime() ?? -Infinity;
  const floor = Math.max(seen, built);
  if (now < floor - CLOCK_TOLERANCE_MS) {
    throw new PullError(
      "CLOCK_BEHIND",
      `expected ${new Date(floor).toISOString()} or later, since ` +
        (seen >= built ? "a release of that time was accepted" : "this agent was built then") +
        `; ${says}`,
    );
  }
  const position = describePosition(positionOf(manifest));
  if (Date.parse(manifest.createdAt) > now + CLOCK_TOLERANCE_MS) {
    throw new PullError(
      "CLOCK_IMPLAUSIBLE",
      `release ${position} was created at ${manifest.createdAt}, ${says}`,
    );
  }
  if (Date.parse(manifest.expiresAt) > now) return;
  // A release that was accepted in time is not wrong. But the mirror, or somebody between, may
  // be holding newer ones back (TUF: freeze attack).
  const stale = memory?.digest === digest;
  throw new PullError(
    stale ? "MIRROR_STALE" : "MANIFEST_EXPIRED",
    `release ${position} expired at ${manifest.expiresAt}, ${says}` +
      (stale ? "; this host stays what it is" : ""),
  );
}
