import { PullError } from "../errors.ts";

/** One name of a path: in quotes, which a name with dots needs, or bare. */
const QUOTED = String.raw`"[^"\\$\p{Cc}]{1,200}"`;
const BARE = "[A-Za-z0-9_'-]{1,200}";
const NAME = new RegExp(`${QUOTED}|${BARE}`, "gu");
const PATH = new RegExp(`^(?:${QUOTED}|${BARE})(?:\\.(?:${QUOTED}|${BARE}))*$`, "u");
const MAX_LENGTH = 1000;

/**
 * Reads the path of an option, such as `services.nginx.virtualHosts."example.org".root`,
 * into its names. Throws USAGE.
 */
export function parseOptionPath(text: string): string[] {
  if (text.length > MAX_LENGTH || !PATH.test(text)) {
    throw new PullError(
      "USAGE",
      `expected an option such as networking.firewall.allowedTCPPorts, found ${JSON.stringify(text.slice(0, MAX_LENGTH))}`,
    );
  }
  return Array.from(text.matchAll(NAME), ([name]) => name.replaceAll('"', ""));
}

/** Most suggestions that are given. */
const MAX_SUGGESTIONS = 5;

/** Those of `names` that somebody who wrote `wanted` may have meant, the likeliest first. */
export function suggestNames(wanted: string, names: readonly string[]): string[] {
  const limit = Math.max(2, Math.floor(wanted.length / 3));
  return names
    .map((name) => ({ name, distance: distanceOf(wanted, name) }))
    .filter(({ distance }) => distance <= limit)
    .sort((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1))
    .slice(0, MAX_SUGGESTIONS)
    .map(({ name }) => name);
}

/** Levenshtein distance of the lower-case texts; 0 also for a part at the beginning. */
function distanceOf(left: string, right: string): number {
  const [a, b] = [left.toLowerCase(), right.toLowerCase()];
  if (b.startsWith(a)) return 0;
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let at = 1; at <= a.length; at++) {
    const next = [at];
    for (let other = 1; other <= b.length; other++) {
      const replaced = (row[other - 1] ?? 0) + (a[at - 1] === b[other - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[other] ?? 0) + 1, (next[other - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
