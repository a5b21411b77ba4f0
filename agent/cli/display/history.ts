import { sanitize } from "../../core/text/sanitize.ts";
import type { HistoryEntry } from "../../core/update/history-entry.ts";
import { formatTable } from "./output.ts";

/** Events that lead away from the system that their entry names. */
const LEADS_AWAY = new Set(["RollbackSucceeded", "RollbackFailed", "BootCalledOff"]);

/** One entry of the history: a line, then the lines that a switch or a health check printed. */
export function describeEntry(entry: HistoryEntry): string[] {
  const { at, event, sequence, code, message, toplevel, lastLines = [] } = entry;
  const release = sequence === undefined ? "-" : String(sequence);
  const why = code === undefined ? message : `${code}: ${message}`;
  const what = toplevel && LEADS_AWAY.has(event) ? `away from ${toplevel}` : toplevel;
  return [
    formatTable([[at, release.padStart(4), event.padEnd(20), why ?? what ?? ""]]),
    ...lastLines.map((line) => `      | ${sanitize(line)}`),
  ];
}
