import { describeSpan, type Times } from "../../core/text/times.ts";
import { sanitize } from "../../core/text/sanitize.ts";
import type { HistoryEntry } from "../../core/update/history-entry.ts";
import { describeEvent, styleOf } from "./event-words.ts";
import { HostWords } from "./host-words.ts";
import { styled, table, type Line, type Screen, type Style, type Text } from "./screen.ts";

/** What happened in one attempt at a release, or beside all attempts. Never empty. */
interface Chapter {
  /** The release; undefined for what has none. */
  readonly sequence: number | undefined;
  readonly entries: HistoryEntry[];
  /** How many attempts failed like this, one after the other. */
  readonly attempts: number;
}

/** How a chapter ended, for its heading. */
interface Outcome {
  readonly style: Style;
  readonly text: string;
  /** The entry whose message the heading has. */
  readonly told?: HistoryEntry;
}

/** Events with which a chapter begins even if the one before is about the same release. */
const BEGINNINGS: ReadonlySet<string> = new Set([
  "ReleaseAccepted",
  "AlreadyActive",
  "RevertBegun",
]);
/** They may come before the beginning. */
const PRELUDES: ReadonlySet<string> = new Set([
  "ManifestAccepted",
  "ReleaseWaits",
  "ReleaseConfirmed",
]);
/** Events that say what became of an attempt. */
const FAILURES: ReadonlySet<string> = new Set([
  "ActivationRejected",
  "ActivationInterrupted",
  "AttemptFailed",
  "ChangedByHand",
]);
const ARRIVALS: ReadonlySet<string> = new Set(["HealthConfirmed", "BootDefaultSet"]);
const WAYS_BACK: ReadonlySet<string> = new Set(["RollbackSucceeded", "RollbackFailed"]);
/** Events one of which, the last, says what became of a chapter. */
const DECISIVE: ReadonlySet<string> = new Set([
  ...FAILURES,
  ...ARRIVALS,
  ...["TrialArmed", "BootCalledOff", "AlreadyActive", "ReleaseWithdrawn", "ReleaseWaits"],
  ...["RevertSucceeded", "RevertFailed"],
]);
/** States in which nothing is under way. */
const AT_REST: ReadonlySet<string> = new Set(["Idle", "Failed"]);

/** Longest line of a switch that is shown. */
const MAX_LINE = 400;

/** How a history is shown. */
export interface HistoryView {
  readonly times: Times;
  readonly screen: Screen;
  /** Whether every event is shown, and not only what became of each attempt. */
  readonly all: boolean;
}

/**
 * The history for people, oldest first: a heading for each attempt at a release, with what went
 * wrong in it or is worth to know.
 */
export function describeHistory(
  entries: readonly HistoryEntry[],
  { times, screen, all }: HistoryView,
): Line[] {
  const systems = entries.map(({ toplevel }) => toplevel);
  const chapters = chaptersOf(entries);
  const shown = all ? chapters : withoutRepeats(chapters);
  const rows = shown.flatMap((chapter, at) =>
    chapterRows(chapter, {
      words: new HostWords(times, systems),
      all,
      isLast: at === shown.length - 1,
    }),
  );
  return table(rows, screen);
}

/** The entries in chapters, in order. */
function chaptersOf(entries: readonly HistoryEntry[]): Chapter[] {
  const chapters: Chapter[] = [];
  for (const entry of entries) {
    const last = chapters.at(-1);
    if (last && belongsTo(last, entry)) last.entries.push(entry);
    else chapters.push({ sequence: entry.sequence, entries: [entry], attempts: 1 });
  }
  return chapters;
}

function belongsTo({ sequence, entries }: Chapter, entry: HistoryEntry): boolean {
  const isNew = entries.every(({ event }) => PRELUDES.has(event));
  if (BEGINNINGS.has(entry.event)) return isNew && sequence === entry.sequence;
  if (entry.sequence !== undefined) return sequence === entry.sequence;
  // A rollback by hand is about no release, and ends when the host is at rest.
  return !AT_REST.has(entry.state) || entry.event === "RevertSucceeded";
}

/** Chapters that failed alike, one after the other, as the last one of them. */
function withoutRepeats(chapters: readonly Chapter[]): Chapter[] {
  const kept: Chapter[] = [];
  for (const chapter of chapters) {
    const last = kept.at(-1);
    const failure = failureOf(chapter);
    if (last && failure !== null && failureOf(last) === failure) {
      kept.splice(-1, 1, { ...chapter, attempts: last.attempts + 1 });
    } else {
      kept.push(chapter);
    }
  }
  return kept;
}

/** What tells failures apart; null for a chapter that did not end with one. */
function failureOf({ sequence, entries }: Chapter): string | null {
  const failure = entries.findLast(({ event }) => FAILURES.has(event));
  const isOver = entries.every(({ event }) => !ARRIVALS.has(event) && event !== "TrialArmed");
  return failure && isOver ? `${sequence} ${failure.code} ${failure.message}` : null;
}

/** A chapter's heading, and below it what else of it is shown. */
function chapterRows(
  chapter: Chapter,
  { words, all, isLast }: { words: HostWords; all: boolean; isLast: boolean },
): Text[][] {
  const { entries, attempts, sequence } = chapter;
  const [first] = entries;
  if (!first) return [];
  const { style, text, told } = outcomeOf(chapter, words, isLast);
  const tries = attempts > 1 ? ` (${attempts} times alike)` : "";
  const name = sequence === undefined ? "" : `release ${sequence} `;
  const heading: Text[] = [
    styled(style, MARKS[style]),
    words.times.clock(first.at),
    [styled("strong", `${name}${text}`), tries],
  ];
  const below = entries.flatMap((entry): Text[][] => {
    const isTold = entry === told;
    if (!all && !isTelling(entry, style === "bad")) return [];
    const lines = (entry.lastLines ?? []).map((line): Text[] => [
      ...["", ""],
      styled("dim", `    | ${sanitize(line, MAX_LINE)}`),
    ]);
    if (entries.length === 1 || (isTold && !all)) return lines;
    const text = `  ${describeEvent(entry, words)}`;
    const name = all ? [styled("dim", ` [${entry.event}]`)] : [];
    const what: Text = [{ style: styleOf(entry), text }, ...name];
    return [["", timeBelow(entry, first, words), what], ...lines];
  });
  return [heading, ...below];
}

/** What stands before a heading. */
const MARKS: Record<Style, string> = {
  ...{ good: "●", bad: "✗", busy: "●", waiting: "○" },
  ...{ strong: "·", dim: "·" },
};

/** Whether an entry is worth a line although not all are shown. */
function isTelling({ event, code, message, lastLines }: HistoryEntry, isFailure: boolean): boolean {
  if (event === "RollbackSucceeded" || event === "RollbackFailed") return true;
  const hasMore = code !== undefined || (message !== undefined && message !== "");
  return hasMore || (isFailure && lastLines !== undefined);
}

/** The time of an entry below a heading: without the day, if that is the heading's. */
function timeBelow(entry: HistoryEntry, first: HistoryEntry, { times }: HostWords): Text {
  const time = times.clockSeconds(entry.at);
  const isSameDay = times.day(entry.at) === times.day(first.at);
  return styled("dim", isSameDay ? (time.split(" ").at(-1) ?? time) : time);
}

/** What became of a chapter: its last event that says so. */
function outcomeOf({ entries }: Chapter, words: HostWords, isLast: boolean): Outcome {
  const end = entries.at(-1);
  if (!end) return { style: "dim", text: "" };
  const decisive = entries.findLast(({ event }) => DECISIVE.has(event));
  const system = systemOf(entries, words);
  if (decisive && FAILURES.has(decisive.event)) return failed(entries, decisive, words);
  if (decisive && ARRIVALS.has(decisive.event)) {
    const how = decisive.mode === "boot" ? "is the boot default" : "applied";
    return { style: "good", text: `${how}${after(entries, decisive)}: ${system}` };
  }
  if (decisive?.event === "TrialArmed") {
    return { style: "waiting", text: `waits for the boot that tries it: ${system}` };
  }
  if (decisive) {
    const text = describeEvent(decisive, words);
    return { style: styleOf(decisive) ?? "dim", text, told: decisive };
  }
  const activated = entries.find(({ event }) => event === "ActivationSucceeded");
  if (activated && AT_REST.has(end.state)) {
    return { style: "good", text: `was activated${after(entries, activated)}: ${system}` };
  }
  const isNow = isLast && !AT_REST.has(end.state);
  const text = `${isNow ? "is not finished: " : ""}${describeEvent(end, words)}`;
  return { style: isNow ? "busy" : (styleOf(end) ?? "dim"), text, told: end };
}

/** An attempt that failed, and whether the host is as it was before. */
function failed(
  entries: readonly HistoryEntry[],
  failure: HistoryEntry,
  words: HostWords,
): Outcome {
  const back = entries.findLast(({ event }) => WAYS_BACK.has(event));
  const ends = {
    RollbackSucceeded: ", and was undone",
    RollbackFailed: ", and the way back FAILED",
  };
  const end = back ? ends[back.event as keyof typeof ends] : "";
  const { code = failure.event, message = "" } = failure;
  const text = `failed${after(entries, failure)}${end}: ${words.reason({ code, message })}`;
  return { style: failure.event === "ChangedByHand" ? "waiting" : "bad", text, told: failure };
}

/** How long it took, without the time for which it waited. */
function after(entries: readonly HistoryEntry[], end: HistoryEntry): string {
  const waited = entries.findLastIndex(({ event }) => event === "ReleaseWaits");
  const begin = entries.slice(waited + 1).find(({ event }) => !PRELUDES.has(event)) ?? end;
  const ms = Date.parse(end.at) - Date.parse(begin.at);
  return ms < 1_000 ? "" : ` after ${describeSpan(ms)}`;
}

/** The system that a chapter is about, and how it is activated. */
function systemOf(entries: readonly HistoryEntry[], words: HostWords): string {
  const entry = entries.findLast(({ toplevel }) => toplevel !== undefined);
  const mode = entry?.mode === undefined ? "" : `, ${entry.mode}`;
  return `${words.system(entry?.toplevel ?? null)}${mode}`;
}
