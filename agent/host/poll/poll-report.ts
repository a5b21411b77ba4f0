import * as z from "zod";
import { ERROR_CODES } from "../../core/errors.ts";
import { ACTIVATION_MODES, sha256Schema } from "../../core/formats/manifest.ts";
import { storePathSchema } from "../../core/formats/store-path.ts";
import {
  countPoll,
  countersSchema,
  NO_COUNTS,
  type AgentCounters,
} from "../../core/metrics/counters.ts";
import type { ArchiveListener, CheckedFiles, Clock } from "../../core/ports.ts";
import { waitSchema } from "../../core/schedule/waiting.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { TickOutcome } from "./finding.ts";
import { verdictSchema } from "./poll.ts";

/** How a mirror last served an archive. */
export const archiveVerdictSchema = z.strictObject({
  mirror: z.string(),
  at: z.iso.datetime(),
  /** Absent if it served what was asked. */
  code: z.enum(ERROR_CODES).optional(),
  message: z.string().optional(),
});

/** What the last poll found, as it lies in the state directory. */
export const pollReportSchema = z.strictObject({
  at: z.iso.datetime(),
  verdicts: z.array(verdictSchema),
  decision: z.string().nullable(),
  sequence: z.int().positive().nullable(),
  code: z.enum(ERROR_CODES).nullable(),
  message: z.string().nullable(),
  /** The release that waits, and what for. */
  waiting: z
    .strictObject({
      release: z.strictObject({
        sequence: z.int().positive(),
        digest: sha256Schema,
        toplevel: storePathSchema,
        mode: z.enum(ACTIVATION_MODES),
      }),
      waits: z.array(waitSchema),
    })
    .optional(),
  archives: z.array(archiveVerdictSchema).optional(),
});
export type PollReport = z.infer<typeof pollReportSchema>;
type ArchiveVerdict = z.infer<typeof archiveVerdictSchema>;

const POLL_REPORT = "poll.json";
const COUNTERS = "counters.json";

/** What the last poll found; null if there was none, or nothing of it can be read. */
export async function readPollReport(
  files: Pick<CheckedFiles, "read">,
): Promise<PollReport | null> {
  return files.read(POLL_REPORT, pollReportSchema);
}

/** What was counted since the state directory was made. */
export async function readCounters(files: Pick<CheckedFiles, "read">): Promise<AgentCounters> {
  return (await files.read(COUNTERS, countersSchema)) ?? NO_COUNTS;
}

/** Hears how mirrors serve archives during one tick. */
export class ArchiveVerdicts {
  readonly #clock: Clock;
  readonly #last = new Map<string, ArchiveVerdict>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  readonly hear: ArchiveListener = (mirror, error) => {
    const at = this.#clock.now().toISOString();
    const why = error ? { code: error.code, message: error.message } : {};
    this.#last.set(mirror, { mirror, at, ...why });
  };

  /** The last verdict on each mirror, newer than those of `before`. */
  after(before: readonly ArchiveVerdict[]): ReadonlyMap<string, ArchiveVerdict> {
    return new Map([...before.map((it) => [it.mirror, it] as const), ...this.#last]);
  }
}

/**
 * Keeps what a tick came to for `status` and the metrics; a wait that is new gets a line in
 * the history. Throws the operating system's errors.
 */
export async function keepPollReport(
  outcome: TickOutcome,
  archives: ArchiveVerdicts,
  tools: Pick<AgentTools, "settings" | "clock" | "files" | "history">,
): Promise<void> {
  const { settings, clock, files, history } = tools;
  const last = await readPollReport(files);
  const known = archives.after(last?.archives ?? []);
  const waiting = waitingOf(outcome);
  const report: PollReport = {
    at: clock.now().toISOString(),
    verdicts: [...outcome.verdicts],
    decision: outcome.updated ? "applied" : (outcome.decision?.kind ?? null),
    sequence: outcome.release?.sequence ?? null,
    code: outcome.error?.code ?? null,
    message: outcome.error?.message ?? null,
    ...(waiting && { waiting }),
    // In the configuration's order, without mirrors that it no longer names.
    archives: settings.mirrors.flatMap((mirror) => known.get(mirror) ?? []),
  };
  await files.write(POLL_REPORT, report);
  if (waiting && identityOf(waiting) !== identityOf(last?.waiting)) {
    const { sequence, toplevel, mode } = waiting.release;
    const [first] = waiting.waits;
    await history.append({
      ...{ at: report.at, event: "ReleaseWaits", state: outcome.record.state.name },
      ...{ sequence, toplevel, mode },
      ...(first && { code: first.reason }),
      message: waiting.waits.map(({ message }) => message).join("; "),
    });
  }
  const poll = { failed: outcome.error !== null, updated: outcome.updated };
  await files.write(COUNTERS, countPoll(await readCounters(files), poll));
}

/** The release that a tick found to be waiting. */
function waitingOf({ release, decision }: TickOutcome): PollReport["waiting"] {
  if (!release || decision?.kind !== "waiting") return undefined;
  const { sequence, digest, toplevel, mode } = release;
  return { release: { sequence, digest, toplevel, mode }, waits: [...decision.waits] };
}

/** Two polls that found the same of this have nothing new for the history. */
function identityOf(waiting: PollReport["waiting"]): string {
  return JSON.stringify(waiting && [waiting.release.digest, waiting.waits.map((it) => it.reason)]);
}
