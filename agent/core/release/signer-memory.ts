import * as z from "zod";
import { PullError } from "../errors.ts";
import {
  channelSchema,
  comparePositions,
  describePosition,
  namedReleaseSchema,
  positionOf,
  type NamedRelease,
  type Position,
  type SignedManifest,
} from "../formats/manifest.ts";
import {
  HISTORY_LENGTH,
  ancestryOf,
  describeKnown,
  knownRelease,
  placeOf,
  type KnownRelease,
} from "./release-history.ts";

/**
 * What the side that signs remembers of the releases that it signed, apart from any mirror: a
 * mirror that is set back must not make it sign old systems under new numbers, and nobody signs
 * two releases of one number.
 */

/** Releases that were signed and may never come into force; the oldest are forgotten. */
const MAX_SIGNED = 200;

const channelMemorySchema = z.strictObject({
  channel: channelSchema,
  /** The newest release that is known to have come into force. */
  inForce: namedReleaseSchema.nullable(),
  /** Those signed after it, the oldest first: drafts, and what a publish was cut off at. */
  signed: z.array(namedReleaseSchema).max(MAX_SIGNED),
});
export type ChannelMemory = z.infer<typeof channelMemorySchema>;

/** The file: a memory for each channel. */
export const signerMemorySchema = z.strictObject({
  /** A later version's memory is read as far as it is known. */
  formatVersion: z.int().positive(),
  channels: z.array(channelMemorySchema).max(1_000),
});
export type SignerMemory = z.infer<typeof signerMemorySchema>;

export const NO_SIGNER_MEMORY: SignerMemory = { formatVersion: 1, channels: [] };

/** A verified release, as far as memories look at it. */
export type RememberedRelease = Pick<SignedManifest, "manifest" | "digest">;

/** What is remembered of a channel. */
export function channelMemory({ channels }: SignerMemory, channel: string): ChannelMemory {
  return channels.find((it) => it.channel === channel) ?? { channel, inForce: null, signed: [] };
}

function withChannel(memory: SignerMemory, changed: ChannelMemory): SignerMemory {
  const others = memory.channels.filter(({ channel }) => channel !== changed.channel);
  return { ...memory, channels: [...others, changed].sort(byName) };
}

function byName(one: ChannelMemory, other: ChannelMemory): number {
  return one.channel < other.channel ? -1 : 1;
}

/** The memory once a release came into force. An older one than is remembered changes nothing. */
export function rememberInForce(memory: SignerMemory, release: RememberedRelease): SignerMemory {
  const before = channelMemory(memory, release.manifest.channel);
  const known = knownRelease(release);
  if (before.inForce && comparePositions(known, placeOf(before.inForce)) < 0) return memory;
  const signed = before.signed.filter((it) => comparePositions(placeOf(it), known) > 0);
  return withChannel(memory, { ...before, inForce: named(known), signed });
}

/**
 * The memory once a release was signed or drafted, before anybody else can see it. What it says of
 * the releases before it is only a claim. It counts for a release that was signed here before, so
 * that whoever signs drafts far from any mirror learns which of them came into force.
 */
export function rememberSigned(memory: SignerMemory, release: RememberedRelease): SignerMemory {
  const { channel, history } = release.manifest;
  const before = channelMemory(memory, channel);
  const known = knownRelease(release);
  if (knows(before, known)) return memory;
  const claimed = history.releases.at(-1) ?? null;
  const inForce =
    claimed && knowsRelease(before, claimed) ? laterOf(before.inForce, claimed) : before.inForce;
  const signed = stillSigned([...before.signed, named(known)], inForce);
  return withChannel(memory, { ...before, inForce, signed });
}

function laterOf(one: NamedRelease | null, other: NamedRelease | null): NamedRelease | null {
  if (!one || !other) return one ?? other;
  return comparePositions(placeOf(other), placeOf(one)) > 0 ? other : one;
}

/**
 * Two memories in one: the newer release in force, and all that was signed after it. Throws
 * RELEASE_FORKED if they contradict each other.
 */
export function mergeMemories(
  one: SignerMemory,
  other: SignerMemory,
  names: { readonly one: string; readonly other: string },
): SignerMemory {
  const formatVersion = Math.max(one.formatVersion, other.formatVersion);
  let merged: SignerMemory = { ...other, ...one, formatVersion };
  for (const theirs of other.channels) {
    const ours = channelMemory(one, theirs.channel);
    const [a, b] = [ours.inForce, theirs.inForce];
    if (a && b && a.digest !== b.digest && comparePositions(placeOf(a), placeOf(b)) === 0) {
      throw new PullError(
        "RELEASE_FORKED",
        `${names.one} knows ${describeKnown(knownOf(a))} of ${theirs.channel}, ${names.other} ` +
          `knows ${describeKnown(knownOf(b))}: they are memories of two fleets, or two releases ` +
          "were signed under one number. Find out which is right, and give it with --memory",
      );
    }
    const inForce = laterOf(a, b);
    const added = theirs.signed.filter((it) => !knowsRelease(ours, it));
    merged = withChannel(merged, {
      ...{ ...theirs, ...ours, inForce },
      signed: stillSigned([...ours.signed, ...added], inForce),
    });
  }
  return merged;
}

/** Of those that were signed, the ones that may still come into force, the oldest first. */
function stillSigned(
  signed: readonly NamedRelease[],
  inForce: NamedRelease | null,
): NamedRelease[] {
  return signed
    .filter((it) => !inForce || comparePositions(placeOf(it), placeOf(inForce)) > 0)
    .sort((a, b) => comparePositions(placeOf(a), placeOf(b)))
    .slice(-MAX_SIGNED);
}

/** The places that no further release may take: of all that were signed. */
export function reservedPlaces({ inForce, signed }: ChannelMemory): Position[] {
  return [...(inForce ? [inForce] : []), ...signed].map(placeOf);
}

/** Whether this very release was signed or seen in force before. */
export function knowsRelease(memory: ChannelMemory, release: NamedRelease): boolean {
  return knows(memory, knownOf(release));
}

/** Whether anything of the channel is remembered. */
export function knowsChannel({ inForce, signed }: ChannelMemory): boolean {
  return inForce !== null || signed.length > 0;
}

function knows({ inForce, signed }: ChannelMemory, known: KnownRelease): boolean {
  return [...(inForce ? [inForce] : []), ...signed].some(
    (it) => comparePositions(placeOf(it), known) === 0 && it.digest === known.digest,
  );
}

/** Where what is compared lies, for messages. */
export interface MemoryNames {
  /** The release's: a mirror or a draft. */
  readonly release: string;
  readonly memory: string;
}

/**
 * Whether the release in force on a mirror is the newest that the memory knows, or comes after
 * that. Throws RELEASE_BEHIND if the mirror has an older one or none, RELEASE_FORKED if the two
 * contradict each other.
 */
export function expectNewest(
  memory: ChannelMemory,
  current: RememberedRelease | null,
  names: MemoryNames,
): void {
  const { inForce } = memory;
  if (
    inForce &&
    (!current || comparePositions(positionOf(current.manifest), placeOf(inForce)) < 0)
  ) {
    throw new PullError(
      "RELEASE_BEHIND",
      `${names.memory} knows ${describeKnown(knownOf(inForce))} of ${memory.channel}; ` +
        `${names.release} has ${current ? describeRelease(current) : "no release"}: it was set ` +
        "back, or it is another fleet's, or an upload was lost. Bring the newer release there, " +
        "give the --memory of that fleet, or leave the numbers behind by " +
        "`publish --new-epoch REASON`",
    );
  }
  // Another draft of the number in force is only a draft: its number is taken.
  if (inForce && current) {
    expectConsistent({ ...knownOf(inForce), isDraft: false }, current, names);
  }
}

/**
 * Whether the memory allows to sign a release. Throws RELEASE_BEHIND if a later one was signed
 * before, RELEASE_FORKED if it is another one of a known number, or does not come after the one
 * in force.
 */
export function expectSignable(
  memory: ChannelMemory,
  release: RememberedRelease,
  names: MemoryNames,
): void {
  const { inForce, signed } = memory;
  const known = knownRelease(release);
  if (inForce) expectConsistent({ ...knownOf(inForce), isDraft: false }, release, names);
  for (const draft of signed)
    expectConsistent({ ...knownOf(draft), isDraft: true }, release, names);
  if (knows(memory, known)) return;
  const newer = reservedPlaces(memory).find((place) => comparePositions(place, known) > 0);
  if (!newer) return;
  throw new PullError(
    "RELEASE_BEHIND",
    `${names.release} is release ${describePosition(known)} of ${memory.channel}; ` +
      `${names.memory} knows that release ${describePosition(newer)} was signed before. ` +
      "Make it again with a later number",
  );
}

/** Throws RELEASE_FORKED if hosts that have the remembered release `one` may refuse this one. */
function expectConsistent(
  one: KnownRelease & { readonly isDraft: boolean },
  release: RememberedRelease,
  names: MemoryNames,
): void {
  const known = knownRelease(release);
  // A new epoch leaves the numbers of the epoch before behind.
  if (one.epoch !== known.epoch) return;
  const isOther = comparePositions(one, known) === 0 && one.digest !== known.digest;
  const ancestry = ancestryOf(release.manifest, one);
  // A draft that never came into force is not missed.
  const isFork = ancestry.kind === "other" && !(one.isDraft && ancestry.found === null);
  // Only a full list of releases may begin after one that is known to have been in force.
  const isCut =
    !one.isDraft &&
    ancestry.kind === "unknown" &&
    comparePositions(one, known) < 0 &&
    release.manifest.history.releases.length < HISTORY_LENGTH;
  if (!isOther && !isFork && !isCut) return;
  const after =
    ancestry.kind !== "other"
      ? isCut
        ? ", whose list of earlier releases begins after that"
        : ""
      : ancestry.found === null
        ? `, which comes after no release ${describePosition(one)}`
        : `, which comes after ${describeKnown({ ...one, digest: ancestry.found })}`;
  throw new PullError(
    "RELEASE_FORKED",
    `${names.memory} knows ${describeKnown(one)} of ${release.manifest.channel}; ` +
      `${names.release} has ${describeRelease(release)}${after}. Find out who signed it; ` +
      "`publish --new-epoch REASON` leaves both behind",
  );
}

function describeRelease(release: RememberedRelease): string {
  return `${describeKnown(knownRelease(release))}, created ${release.manifest.createdAt}`;
}

function knownOf(release: NamedRelease): KnownRelease {
  return { ...placeOf(release), digest: release.digest };
}

function named({ epoch, sequence, digest }: KnownRelease): NamedRelease {
  return { ...(epoch > 0 && { epoch }), sequence, digest };
}
