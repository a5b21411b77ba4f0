import { z } from "zod";
import {
  acceptManifest,
  rememberedPosition,
  type TrustMemories,
  type TrustMemory,
} from "../core/acceptance.ts";
import { BUILD } from "../core/build.ts";
import { ERROR_CODES, PullError, toPullError } from "../core/errors.ts";
import { comparePositions, readManifest, type SignedManifest } from "../core/manifest.ts";
import type { Mirror, Validators } from "../core/ports.ts";
import { trustPolicyOf, type Settings } from "../core/settings.ts";
import type { ManifestCache } from "../effects/manifest-cache.ts";

/** What one mirror had to say in a poll. */
export const verdictSchema = z.strictObject({
  mirror: z.string(),
  /** Absent where its manifest was acceptable. */
  code: z.enum(ERROR_CODES).optional(),
  message: z.string().optional(),
  sequence: z.int().positive().optional(),
  /** True where the mirror answered that nothing changed (304). */
  unchanged: z.boolean(),
});
export type MirrorVerdict = z.infer<typeof verdictSchema>;

export interface AcceptedManifest {
  readonly signed: SignedManifest;
  readonly memory: TrustMemory;
}

export interface PollOutcome {
  readonly accepted: AcceptedManifest | null;
  /** Why nothing was accepted: the first mirror's error. */
  readonly error: PullError | null;
  readonly verdicts: readonly MirrorVerdict[];
}

/**
 * Asks every mirror for the channel's manifest and takes the acceptable one with the
 * highest epoch and sequence; among equals the mirror that stands first. A mirror that is behind
 * or lies therefore cannot hide a release that another one has.
 */
export async function poll(
  settings: Settings,
  mirrors: readonly Mirror[],
  cache: ManifestCache,
  memories: TrustMemories,
  now: Date,
  signal?: AbortSignal,
): Promise<PollOutcome> {
  const answers = await Promise.all(
    mirrors.map((mirror) => ask(mirror, settings, cache, memories, now, signal)),
  );
  if (signal?.aborted) throw new PullError("INTERRUPTED", "stopped while polling");
  let accepted: AcceptedManifest | null = null;
  for (const answer of answers) {
    if (
      answer.accepted &&
      (!accepted ||
        comparePositions(
          rememberedPosition(answer.accepted.memory),
          rememberedPosition(accepted.memory),
        ) > 0)
    ) {
      accepted = answer.accepted;
    }
  }
  const error = accepted ? null : (answers.find((answer) => answer.error)?.error ?? null);
  return { accepted, error, verdicts: answers.map(({ verdict }) => verdict) };
}

interface Answer {
  readonly accepted: AcceptedManifest | null;
  readonly error: PullError | null;
  readonly verdict: MirrorVerdict;
}

async function ask(
  mirror: Mirror,
  settings: Settings,
  cache: ManifestCache,
  memories: TrustMemories,
  now: Date,
  signal: AbortSignal | undefined,
): Promise<Answer> {
  const { channel } = settings;
  let unchanged = false;
  try {
    const cached = await cache.get(mirror.address, channel);
    const answer = await mirror.readManifest(channel, { validators: cached?.validators, signal });
    let bytes: Uint8Array;
    let validators: Validators = {};
    if (answer.kind === "read") {
      ({ bytes, validators } = answer);
    } else if (cached) {
      unchanged = true;
      bytes = cached.bytes;
    } else {
      throw new PullError("MIRROR_STATUS", `${mirror.address}: "not modified" without being asked`);
    }
    const signed = readManifest(bytes, trustPolicyOf(settings));
    const memory = acceptManifest(signed, {
      channel,
      memories,
      now,
      clock: settings.clock,
      builtAt: BUILD.time,
    });
    const hasValidators = validators.etag ?? validators.lastModified;
    if (hasValidators !== undefined) {
      await cache.put(mirror.address, channel, { bytes, validators });
    }
    const { sequence } = signed.manifest;
    return {
      accepted: { signed, memory },
      error: null,
      verdict: { mirror: mirror.address, sequence, unchanged },
    };
  } catch (thrown) {
    const error = toPullError(thrown);
    // What is merely out of reach or out of date is worth a conditional request later.
    if (!error.transient) await cache.drop(mirror.address, channel);
    const { code, message } = error;
    return {
      accepted: null,
      error,
      verdict: { mirror: mirror.address, code, message, unchanged },
    };
  }
}
