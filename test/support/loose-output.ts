const MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec";
const UNITS = "seconds?|minutes?|hours?|days?|weeks?|min|ms|s|h|d";

/** What differs from one run to the next, and what is compared in its place. The order counts. */
const WILDCARDS: readonly (readonly [RegExp, string])[] = [
  [/\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)/g, "TIME"],
  [new RegExp(`\\b(\\w{3} )?\\d{1,2} (${MONTHS})( \\d{4})?( \\d\\d:\\d\\d)?\\b`, "g"), "TIME"],
  [/\b((today|yesterday|tomorrow|Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?\d\d:\d\d(:\d\d)?\b/g, "TIME"],
  [/(?<=:)[A-Za-z0-9+/]{43}=/g, "KEY"],
  [/\b[0-9a-f]{8,64}\b/g, "HASH"],
  [/\b[0-9a-df-np-sv-z]{32}(?=-)/g, "HASH"],
  [/\b[0-9a-df-np-sv-z]{7,8}(?=-|…)/g, "HASH"],
  [/\d+(\.\d+)?/g, "#"],
  [/# (KiB|MiB|GiB|TiB|kB|MB|GB|B|bytes?)(?![\w/])/g, "SIZE"],
  [new RegExp(`#( )?(${UNITS})\\b( #( )?(${UNITS})\\b)*`, "g"), "SPAN"],
  [/\b(in )?SPAN( ago)?\b|\ba moment ago\b|\b(just )?now\b/g, "SPAN"],
  [/\s+/g, " "],
];

/** A line with the same wildcard for each time, hash, key, size, span and number. */
function general(line: string): string {
  return WILDCARDS.reduce((text, [pattern, name]) => text.replace(pattern, name), line).trim();
}

/** Whether a printed line is the shown one; `…` in the shown one stands for any text. */
function isLine(shown: string, printed: string): boolean {
  if (!shown.includes("…")) return shown === printed;
  const pattern = shown.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replaceAll("…", ".*");
  return new RegExp(`^${pattern}$`).test(printed);
}

/**
 * Compares what a document shows with what a command printed: its words, not its times, hashes,
 * keys, sizes and numbers. A line `…` stands for any lines, and empty lines do not count. Gives the
 * first shown line that was not printed in its place, or null if all is as shown.
 */
export function looseDifference(shown: readonly string[], printed: string): string | null {
  const expected = shown.filter((line) => line.trim() !== "");
  const found = printed
    .split("\n")
    .map(general)
    .filter((line) => line !== "");
  let at = 0;
  let mayStandLater = false;
  for (const line of expected) {
    if (line.trim() === "…") {
      mayStandLater = true;
      continue;
    }
    const wanted = general(line);
    const next = mayStandLater
      ? found.findIndex((one, index) => index >= at && isLine(wanted, one))
      : at;
    const here = found[next];
    if (here === undefined || !isLine(wanted, here)) {
      return `shown: ${line.trim()}\nprinted in its place: ${here ?? "nothing"}`;
    }
    at = next + 1;
    mayStandLater = false;
  }
  if (mayStandLater || at === found.length || expected.length === 0) return null;
  return `not shown: ${found[at] ?? ""}`;
}
