import {
  MAX_FAILURE_LINE,
  MAX_FAILURE_LINES,
  MAX_REPORT_MESSAGE,
  type Report,
} from "../../core/formats/report.ts";
import { tellingLines } from "../../core/update/switch-output.ts";
import { sanitize } from "../../core/text/sanitize.ts";
import { storePathSchema } from "../../core/formats/store-path.ts";
import type { HistoryEntry } from "../../core/update/history-entry.ts";

/** Events with which an update comes to a bad end. */
const FAILURES = new Set(["ActivationRejected", "ActivationInterrupted", "AttemptFailed"]);
/** Events of its way back. */
const WAYS_BACK = new Set(["RollbackSucceeded", "RollbackFailed"]);

/**
 * The last update that failed after `committedAt`, with the lines of its switch that say most; none
 * if the host became another release since then, or a person went back to one. If the host says that
 * it denies a system, the last failure of that system, whenever it was and if it is known.
 */
export function failedUpdate(
  history: readonly HistoryEntry[],
  committedAt: string | null,
  denied?: string,
): Report["failure"] {
  const reverted = history.findLast(({ event }) => event === "RevertSucceeded")?.at;
  const times = [committedAt, reverted].map((it) => (it ? Date.parse(it) : -Infinity));
  const after = Math.max(...times);
  const ofDenied = history.findLastIndex(
    (entry) => denied !== undefined && FAILURES.has(entry.event) && entry.toplevel === denied,
  );
  const at =
    ofDenied >= 0
      ? ofDenied
      : history.findLastIndex((entry) => FAILURES.has(entry.event) && Date.parse(entry.at) > after);
  const entry = history[at];
  if (!entry) return undefined;
  const toplevel = storePathSchema.safeParse(entry.toplevel);
  const wayBack = history
    .slice(at)
    .findLast(
      ({ event, sequence }) => WAYS_BACK.has(event) && sequence === entry.sequence,
    )?.message;
  return {
    at: entry.at,
    sequence: entry.sequence ?? null,
    toplevel: toplevel.success ? toplevel.data : null,
    code: entry.code ?? null,
    message: entry.message === undefined ? null : sanitize(entry.message, MAX_REPORT_MESSAGE),
    lastLines: tellingLines(linesBefore(history, at), MAX_FAILURE_LINES).map((line) =>
      sanitize(line, MAX_FAILURE_LINE),
    ),
    ...(wayBack !== undefined && { wayBack: sanitize(wayBack, MAX_REPORT_MESSAGE) }),
  };
}

/** A system that failed after its switch left its lines in an earlier entry of the same release. */
function linesBefore(history: readonly HistoryEntry[], last: number): readonly string[] {
  const sequence = history[last]?.sequence;
  for (let at = last; at >= 0 && history[at]?.sequence === sequence; at--) {
    const lines = history[at]?.lastLines;
    if (lines && lines.length > 0) return lines;
  }
  return [];
}
