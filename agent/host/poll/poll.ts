import * as z from "zod";
import {
  acceptManifest,
  memoryOf,
  rememberedPosition,
  type TrustMemories,
  type TrustMemory,
} from "../../core/release/acceptance.ts";
import { BUILD } from "../../core/build.ts";
import { ERROR_CODES, PullError, toPullError } from "../../core/errors.ts";
import { comparePositions, positionOf, type SignedFrame } from "../../core/formats/manifest.ts";
import { readOffer, type OfferedRelease } from "../../core/release/offered-release.ts";
import type { CachedManifest, Mirror } from "../../core/ports.ts";
import { trustPolicyOf, type Settings } from "../../core/settings.ts";
import { openEnum } from "../../core/formats/compatibility.ts";
import type { AgentTools } from "../agent-tools.ts";

/** What one mirror had to say in a poll. */
export const verdictSchema = z.strictObject({
  mirror: z.string(),
  /** Absent if its manifest was acceptable. */
  code: openEnum(ERROR_CODES).optional(),
  message: z.string().optional(),
  /** Of the release that it has; absent for epoch 0. */
  epoch: z.int().positive().optional(),
  sequence: z.int().positive().optional(),
  /** True if the mirror answered that nothing changed (304). */
  unchanged: z.boolean(),
});
export type MirrorVerdict = z.infer<typeof verdictSchema>;

export interface AcceptedManifest {
  readonly offered: OfferedRelease;
  readonly memory: TrustMemory;
}

export interface PollOutcome {
  readonly accepted: AcceptedManifest | null;
  /** Why nothing was accepted: the first mirror's error. */
  readonly error: PullError | null;
  readonly verdicts: readonly MirrorVerdict[];
}

/** If there are several mirrors, one that takes longer than this is not waited for. */
const MAX_POLL_MS = 15 * 60 * 1000;

/** What asking the mirrors takes. */
export type PollTools = Pick<
  AgentTools,
  "settings" | "mirrors" | "standings" | "offers" | "cache" | "clock" | "timers" | "features"
>;

/** How a poll is meant. */
export interface PollOptions {
  readonly signal?: AbortSignal | undefined;
  /**
   * What ends the waiting for the other mirrors. `news`, if absent: a release that is not known
   * yet; they then have `limits.stallTimeout`. `answer`: any acceptable release; they have the same
   * time. `first`: any acceptable release, at once.
   */
  readonly enough?: "news" | "answer" | "first";
  /** The longest time for all of it, milliseconds; a quarter of an hour for several mirrors. */
  readonly longest?: number;
}

/**
 * Asks every mirror for the channel's manifest and takes the acceptable one with the
 * highest epoch and sequence; among equals the mirror that stands first. So a mirror that is
 * behind or lies cannot hide a release that another one has. A slow mirror cannot hold a
 * release back either: once one mirror has news, the others have `limits.stallTimeout` to
 * answer (TUF: slow retrieval attack). No news does not cut the others short, or a fast mirror
 * could hide what a slow one has; unless `enough` says that it may, since a poll just before did
 * wait for them. Throws INTERRUPTED.
 */
export async function poll(
  tools: PollTools,
  memories: TrustMemories,
  { signal, enough = "news", longest }: PollOptions = {},
): Promise<PollOutcome> {
  const { settings, mirrors, standings, timers } = tools;
  const late = new AbortController();
  const over = new AbortController();
  const giveUpIn = (ms: number): void => {
    timers.sleep(ms, over.signal).then(
      () => {
        late.abort();
      },
      () => undefined,
    );
  };
  const limit = longest ?? (mirrors.length > 1 ? MAX_POLL_MS : null);
  if (limit !== null) giveUpIn(limit);
  const either = signal ? AbortSignal.any([signal, late.signal]) : late.signal;
  const gaveUp = aborted(late.signal);
  const known = memoryOf(memories, settings.channel);
  const now = tools.clock.now();
  const answers = await Promise.all(
    mirrors.map(async (mirror) => {
      const answer = await Promise.race([
        ask(mirror, tools, { memories, now, signal: either }),
        // Also if what hangs cannot be stopped, such as a dead network file system.
        gaveUp.then(() => tooLate(mirror)),
      ]);
      const isNews = answer.accepted !== null && isAfter(answer.accepted.memory, known);
      if (isNews || (answer.accepted && enough !== "news")) {
        giveUpIn(enough === "first" ? 0 : settings.limits.stallTimeout);
      }
      // A mirror that was cut short is not a bad one.
      if (enough === "news") standings.heard(mirror.address, deadMirror(answer.error));
      return answer;
    }),
  ).finally(() => {
    over.abort();
  });
  if (signal?.aborted) throw new PullError("INTERRUPTED", "stopped while polling");
  return { ...bestOf(answers), verdicts: answers.map(({ verdict }) => verdict) };
}

/**
 * The error, if it costs time again with the next file. A stick may have archives and no manifest,
 * and a mirror with an old one may have what earlier releases brought.
 */
function deadMirror(error: PullError | null): PullError | null {
  return error && DEAD.has(error.code) ? error : null;
}

const DEAD: ReadonlySet<string> = new Set([
  "MIRROR_UNREACHABLE",
  "MIRROR_STALLED",
  "MIRROR_SLOW",
  "MIRROR_TLS",
]);

/** The newest accepted manifest; if there is none, the error that explains that best. */
function bestOf(answers: readonly Answer[]): Pick<PollOutcome, "accepted" | "error"> {
  let accepted: AcceptedManifest | null = null;
  for (const answer of answers) {
    if (answer.accepted && isAfter(answer.accepted.memory, accepted?.memory ?? null)) {
      accepted = answer.accepted;
    }
  }
  const errors = accepted ? [] : answers.flatMap((it) => it.error ?? []);
  // An absent stick explains nothing if another mirror was there.
  const error = errors.find(({ code }) => code !== "MIRROR_ABSENT") ?? errors[0] ?? null;
  return { accepted, error };
}

function isAfter(memory: TrustMemory, other: TrustMemory | null): boolean {
  return !other || comparePositions(rememberedPosition(memory), rememberedPosition(other)) > 0;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => {
      resolve();
    });
  });
}

function tooLate({ address }: Mirror): Answer {
  const error = new PullError(
    "MIRROR_SLOW",
    `${address}: the others had answered long before, and it was not waited for`,
  );
  const { code, message } = error;
  return {
    accepted: null,
    error,
    verdict: { mirror: address, code, message, unchanged: false },
  };
}

/** Whether this host may follow a verified manifest. Throws what `acceptManifest` throws. */
export function acceptHere(
  signed: SignedFrame,
  { channel, clock }: Pick<Settings, "channel" | "clock">,
  memories: TrustMemories,
  now: Date,
): TrustMemory {
  return acceptManifest(signed, { channel, memories, now, clock, builtAt: BUILD.time });
}

interface Answer {
  readonly accepted: AcceptedManifest | null;
  readonly error: PullError | null;
  readonly verdict: MirrorVerdict;
}

async function ask(
  mirror: Mirror,
  {
    settings,
    cache,
    offers,
    features,
  }: Pick<PollTools, "settings" | "cache" | "offers" | "features">,
  { memories, now, signal }: { memories: TrustMemories; now: Date; signal: AbortSignal },
): Promise<Answer> {
  const { channel } = settings;
  const { address } = mirror;
  let unchanged = false;
  let fresh: CachedManifest | null = null;
  try {
    const cached = await cache.get(address, channel);
    const answer = await mirror.readManifest(channel, { validators: cached?.validators, signal });
    let offered: OfferedRelease;
    if (answer.kind === "read") {
      const { bytes, validators } = answer;
      offered = readOffer(bytes, trustPolicyOf(settings), features);
      offers.keep(address, validators, offered);
      fresh = { bytes, validators };
    } else if (cached) {
      unchanged = true;
      const known = offers.find(address, cached.validators);
      offered = known ?? readOffer(cached.bytes, trustPolicyOf(settings), features);
      if (!known) offers.keep(address, cached.validators, offered);
    } else {
      throw new PullError("MIRROR_STATUS", `${address}: "not modified" without being asked`);
    }
    const memory = acceptHere(offered.signed, settings, memories, now);
    const hasValidators = fresh?.validators.etag ?? fresh?.validators.lastModified;
    if (fresh && hasValidators !== undefined) await cache.put(address, channel, fresh);
    const { epoch, sequence } = positionOf(offered.signed.manifest);
    return {
      accepted: { offered, memory },
      error: null,
      verdict: { mirror: address, ...(epoch > 0 && { epoch }), sequence, unchanged },
    };
  } catch (thrown) {
    const error = toPullError(thrown);
    // What is only out of reach or out of date is worth a conditional request later.
    if (!error.transient) await cache.drop(address, channel);
    const { code, message } = error;
    return { accepted: null, error, verdict: { mirror: address, code, message, unchanged } };
  }
}
