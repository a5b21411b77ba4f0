import * as z from "zod";
import { describePosition, hostnameSchema, sha256Schema } from "../../core/formats/manifest.ts";
import type { PackageChange } from "../../core/release/package-difference.ts";
import type { Change } from "../../core/release/release-difference.ts";
import { sanitize } from "../../core/text/sanitize.ts";
import type { SeenDifference, SeenHost } from "../../operator/channel/seen-difference.ts";
import { bytesSchema, countSchema } from "./json.ts";
import { counted, formatBytes } from "../../core/text/quantity.ts";

/** One package that changes, as `--json` has it. */
export const packageChangeSchema = z.strictObject({
  name: z.string(),
  kind: z
    .enum(["added", "removed", "changed", "rebuilt"])
    .describe("rebuilt: the same versions, made otherwise"),
  before: z.array(z.string()).describe("versions; an empty text for none, such as a file of /etc"),
  after: z.array(z.string()),
  beforeBytes: bytesSchema,
  afterBytes: bytesSchema,
});

const changesSchema = z.array(
  z.strictObject({
    what: z.string(),
    before: z.string().nullable().describe("null if it was not said before"),
    after: z.string().nullable().describe("null if it is no longer said"),
  }),
);

/** What a release changes: all of it, in every command that shows it. */
export const differenceSchema = z.strictObject({
  from: z
    .strictObject({ epoch: countSchema, sequence: z.int().positive(), digest: sha256Schema })
    .nullable()
    .describe("the release that it is a difference from; null: everything is listed"),
  release: changesSchema.describe("what concerns the release as a whole"),
  hosts: z.array(
    z.strictObject({
      hostname: hostnameSchema,
      kind: z.enum(["added", "removed", "changed"]),
      changes: changesSchema,
      packages: z
        .array(packageChangeSchema)
        .nullable()
        .describe("null if the system stays or is new, or the indexes are not at hand"),
    }),
  ),
  unchanged: countSchema.describe("hosts that stay as they are"),
});

/** A difference for `--json`. */
export function differenceJson(difference: SeenDifference): z.infer<typeof differenceSchema> {
  const { from, release, hosts, unchanged } = difference;
  return {
    from,
    release: [...release],
    hosts: hosts.map(({ hostname, kind, changes, packages }) => ({
      ...{ hostname, kind, changes: [...changes] },
      packages: packages?.map(packageJson) ?? null,
    })),
    unchanged,
  };
}

/** A change of a package for `--json`. */
export function packageJson(change: PackageChange): z.infer<typeof packageChangeSchema> {
  return { ...change, before: [...change.before], after: [...change.after] };
}

/** A difference for a person, in lines. Nothing that changes something on a host is left out. */
export function describeDifference({ from, release, hosts, unchanged }: SeenDifference): string[] {
  const lines = [
    from
      ? `Compared with release ${describePosition(from)}, digest ${from.digest}:`
      : "Compared with nothing: everything is shown.",
    ...release.map((change) => `  ${describeChange(change)}`),
  ];
  const shown = new Map<string, string>();
  for (const host of hosts) lines.push(...describeHost(host, shown));
  if (hosts.length === 0) lines.push("  No host changes.");
  else if (unchanged > 0) {
    lines.push(`  ${counted(unchanged, "host")} ${unchanged === 1 ? "stays" : "stay"} the same.`);
  }
  return lines.map((line) => sanitize(line, MAX_LINE));
}

/** Longer than any line here: a command has at most 64 arguments of 4096 characters. */
const MAX_LINE = 1_000_000;

const HOST_SIGN = { added: "+", removed: "-", changed: "~" } as const;

function describeHost(
  { hostname, kind, changes, packages, before, after }: SeenHost,
  shown: Map<string, string>,
): string[] {
  const lines = [`${HOST_SIGN[kind]} ${hostname}${kind === "changed" ? "" : ` (${kind})`}`];
  // Of a host that goes there is nothing to say any more.
  if (kind !== "removed") lines.push(...changes.map((change) => `    ${describeChange(change)}`));
  if (before === null || after === null || before.toplevel === after.toplevel) return lines;
  if (packages === null) {
    lines.push("    packages: unknown, since the archives of both systems are not at hand");
    return lines;
  }
  const pair = `${before.toplevel} ${after.toplevel}`;
  const twin = shown.get(pair);
  shown.set(pair, twin ?? hostname);
  if (twin !== undefined) lines.push(`    packages: as on ${twin}`);
  else lines.push(...describePackages(packages).map((line) => `    ${line}`));
  return lines;
}

/** Whose digests are cut in text: the system's hash and the digest above say the same. */
const CUT = new Set(["archive", "comes after"]);

function describeChange(change: Change): string {
  const { what } = change;
  const shown = (text: string | null): string | null =>
    text !== null && CUT.has(what) ? cutDigests(text) : text;
  const [before, after] = [shown(change.before), shown(change.after)];
  if (before === null) return `+ ${what}: ${after ?? ""}`;
  if (after === null) return `- ${what}: ${before}`;
  // What is cut may be what changed: index patches, say, which lead to the same index.
  if (before === after) return `~ ${what}: ${before}, described otherwise (--json has both)`;
  return `~ ${what}: ${before} → ${after}`;
}

/** Text with the beginning of each digest; of several parts of an archive, the first two. */
function cutDigests(text: string): string {
  const parts = text.split("; ").slice(0, 2).join(", ");
  return parts.replace(/[0-9a-f]{64}/g, (digest) => `${digest.slice(0, 12)}…`);
}

/** The packages that change: versions first, then what was rebuilt and what has no version. */
export function describePackages(packages: readonly PackageChange[]): string[] {
  const hasVersion = ({ before, after }: PackageChange): boolean =>
    [...before, ...after].some((version) => version !== "");
  const versioned = packages.filter((it) => hasVersion(it) && it.kind !== "rebuilt");
  const rebuilt = packages.filter((it) => hasVersion(it) && it.kind === "rebuilt");
  const others = packages.filter((it) => !hasVersion(it));
  const names = (changes: readonly PackageChange[]): string =>
    changes
      .map(({ name, kind }) =>
        kind === "added" ? `+${name}` : kind === "removed" ? `-${name}` : name,
      )
      .join(" ");
  return [
    ...versioned.map(describePackage),
    ...(rebuilt.length > 0 ? [`rebuilt, ${growth(rebuilt)}: ${names(rebuilt)}`] : []),
    ...(others.length > 0 ? [`without a version, ${growth(others)}: ${names(others)}`] : []),
    `closure ${growth(packages)}`,
  ];
}

function describePackage(change: PackageChange): string {
  const [old, next] = [change.before, change.after].map((versions) =>
    versions.map((version) => version || "(no version)").join(", "),
  );
  const size = growth([change]);
  if (change.kind === "added") return `+ ${change.name} ${next}, ${size}`;
  if (change.kind === "removed") return `- ${change.name} ${old}, ${size}`;
  return `~ ${change.name} ${old} → ${next}, ${size}`;
}

/** By how much packages grow: `+1.2 MiB`. */
function growth(changes: readonly PackageChange[]): string {
  const bytes = changes.reduce((sum, it) => sum + it.afterBytes - it.beforeBytes, 0);
  return `${bytes < 0 ? "−" : "+"}${formatBytes(Math.abs(bytes))}`;
}
