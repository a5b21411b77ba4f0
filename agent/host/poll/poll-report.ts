import * as z from "zod";
import { ERROR_CODES } from "../../core/errors.ts";
import { openEnum } from "../../core/formats/compatibility.ts";
import { releaseSchema, type Release } from "../../core/formats/manifest.ts";
import {
  countPoll,
  countersSchema,
  NO_COUNTS,
  type AgentCounters,
} from "../../core/metrics/counters.ts";
import type { ArchiveListener, CheckedFiles, Clock } from "../../core/ports.ts";
import { WAIT_BINDS, WAIT_REASONS, waitSchema } from "../../core/schedule/waiting.ts";
import { reasonSchema } from "../../core/update/states.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { TickOutcome } from "./finding.ts";
import { verdictSchema } from "./poll.ts";

/** How a mirror last served an archive. */
export const archiveVerdictSchema = z.strictObject({
  mirror: z.string(),
  at: z.iso.datetime(),
  /** Absent if it served what was asked. */
  code: openEnum(ERROR_CODES).optional(),
  message: z.string().optional(),
});

/**
 * What the last poll found, as it lies in the state directory and as `status --json` shows it:
 * a finding with the names of `check --json`, of its release what identifies it.
 */
export const pollReportSchema = z.strictObject({
  at: z.iso.datetime(),
  decision: z.string().nullable().describe("as `check` has it, or `applied`"),
  error: reasonSchema.nullable(),
  release: releaseSchema
    .pick({ sequence: true, digest: true, toplevel: true, mode: true })
    .nullable(),
  waits: z
    .array(waitSchema.extend({ reason: openEnum(WAIT_REASONS), binds: openEnum(WAIT_BINDS) }))
    .describe("what that release waits for"),
  mirrors: z.array(verdictSchema),
  archives: z.array(archiveVerdictSchema).describe("how each mirror last served an archive"),
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
  const { release, decision, error, updated } = outcome;
  const report: PollReport = {
    at: clock.now().toISOString(),
    decision: updated ? "applied" : (decision?.kind ?? null),
    error: error && { code: error.code, message: error.message },
    release: release && identify(release),
    waits: decision?.kind === "waiting" ? [...decision.waits] : [],
    mirrors: [...outcome.verdicts],
    // In the configuration's order, without mirrors that it no longer names.
    archives: settings.mirrors.flatMap((mirror) => known.get(mirror) ?? []),
  };
  await files.write(POLL_REPORT, report);
  const [first] = report.waits;
  if (first && report.release && waitOf(report) !== waitOf(last)) {
    const { sequence, toplevel, mode } = report.release;
    await history.append({
      ...{ at: report.at, event: "ReleaseWaits", state: outcome.record.state.name },
      ...{ sequence, toplevel, mode, code: first.reason },
      message: report.waits.map(({ message }) => message).join("; "),
    });
  }
  const poll = { failed: error !== null, updated };
  await files.write(COUNTERS, countPoll(await readCounters(files), poll));
}

/** What identifies a release. */
function identify({ sequence, digest, toplevel, mode }: Release): PollReport["release"] {
  return { sequence, digest, toplevel, mode };
}

/** What waits, and for what: if two polls found the same, the history gets no new line. */
function waitOf(report: PollReport | null): string | null {
  if (!report || report.waits.length === 0) return null;
  return JSON.stringify([report.release?.digest, report.waits.map(({ reason }) => reason)]);
}
