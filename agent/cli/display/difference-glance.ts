import { describePosition } from "../../core/formats/manifest.ts";
import type { Change } from "../../core/release/release-difference.ts";
import { counted } from "../../core/text/quantity.ts";
import { shortSystemNames, withShortSystems } from "../../core/text/system-names.ts";
import type { Times } from "../../core/text/times.ts";
import type { SeenDifference, SeenHost } from "../../operator/channel/seen-difference.ts";
import { describePackages } from "./difference.ts";
import { styled, type Style, type Text } from "./screen.ts";

/** Changes that every new release or rollout brings, and that the first line tells. */
const OF_EVERY_RELEASE = new Set([
  ...["sequence", "created", "expires", "comes after"],
  // The salt of a rollout.
  "order of hosts",
]);

/** What a host downloads and stores is told with sizes elsewhere; digests are for machines. */
const OF_EVERY_SYSTEM = new Set(["archive", "closure"]);

const STYLES = { added: "good", removed: "bad", changed: "waiting" } as const;
const SIGNS = { added: "+", removed: "-", changed: "~" } as const;

/**
 * What a release changes, for a person who made it: hosts with their packages, and what it says
 * otherwise. `describeDifference` has every change, for those who sign what somebody else made.
 */
export function differenceAtAGlance(difference: SeenDifference, times: Times): Text[] {
  const { from, release, hosts, unchanged } = difference;
  const systems = hosts.flatMap(({ before, after }) => [before?.toplevel, after?.toplevel]);
  const nameOf = shortSystemNames(systems);
  const words = (text: string): string => times.within(withShortSystems(text, nameOf));
  const changing = hosts.filter((host) => host.kind !== "changed" || changesOf(host).length > 0);
  const shown = new Map<string, string>();
  const others = unchanged + hosts.length - changing.length;
  return [
    from ? `Compared with release ${describePosition(from)}:` : "Compared with nothing:",
    ...release
      .filter(({ what }) => !OF_EVERY_RELEASE.has(what) && (from !== null || what !== "channel"))
      .map((change) => changeLine(change, words, 2)),
    ...changing.flatMap((host) => hostLines(host, { words, nameOf, shown })),
    ...(changing.length === 0 ? ["  No host changes."] : []),
    ...(changing.length > 0 && others > 0
      ? [styled("dim", `  ${counted(others, "host")} ${others === 1 ? "stays" : "stay"} the same.`)]
      : []),
  ];
}

interface HostWords {
  readonly words: (text: string) => string;
  readonly nameOf: (system: string | null) => string;
  /** Pairs of systems whose packages stand above, with the host there. */
  readonly shown: Map<string, string>;
}

function hostLines(host: SeenHost, { words, nameOf, shown }: HostWords): Text[] {
  const { hostname, kind, before, after, packages } = host;
  const head = styled(STYLES[kind], `  ${SIGNS[kind]} ${hostname}`);
  if (kind === "removed") return [[head, " is not in it any more"]];
  const isMoved = before !== null && after !== null && before.toplevel !== after.toplevel;
  const system = isMoved
    ? `  ${nameOf(before.toplevel)} → ${nameOf(after.toplevel)}`
    : after && kind === "added"
      ? `  ${nameOf(after.toplevel)}`
      : "";
  const lines: Text[] = [
    [head, system],
    ...changesOf(host)
      .filter(({ what }) => what !== "system")
      .map((change) => changeLine(change, words, 6)),
  ];
  if (!isMoved) return lines;
  if (packages === null)
    return [
      ...lines,
      styled("dim", "      packages: unknown, since the archives of both systems are not at hand"),
    ];
  const pair = `${before.toplevel} ${after.toplevel}`;
  const twin = shown.get(pair);
  shown.set(pair, twin ?? hostname);
  const described = twin === undefined ? describePackages(packages) : [`packages: as on ${twin}`];
  return [...lines, ...described.map((line) => packageLine(line))];
}

/** What changes for a host beside what follows from its system. */
function changesOf({ kind, changes }: SeenHost): readonly Change[] {
  const own = changes.filter(({ what }) => !OF_EVERY_SYSTEM.has(what));
  // A new host goes with the default mode, unless it is said.
  return kind === "added" ? own.filter(({ what }) => what !== "mode") : own;
}

function changeLine(
  { what, before, after }: Change,
  words: (text: string) => string,
  indent: number,
): Text {
  const blanks = " ".repeat(indent);
  if (before === null) return [styled("good", `${blanks}+ `), `${what}: ${words(after ?? "")}`];
  if (after === null) return [styled("bad", `${blanks}- `), `${what}: ${words(before)}`];
  return [styled("waiting", `${blanks}~ `), `${what}: ${words(before)} → ${words(after)}`];
}

const SIGN_STYLES: Readonly<Record<string, Style>> = { "+": "good", "-": "bad", "~": "waiting" };

/** A line of `describePackages` with its sign in colour. */
function packageLine(line: string): Text {
  const style = /^[-+~] /.test(line) ? SIGN_STYLES[line.charAt(0)] : undefined;
  return style
    ? [styled(style, `      ${line.slice(0, 2)}`), line.slice(2)]
    : styled("dim", `      ${line}`);
}
