import * as z from "zod";
import { describePosition, hostnameSchema, releaseSchema } from "../../core/formats/manifest.ts";
import { platformSchema } from "../../core/formats/platform.ts";
import { systemClock } from "../../effects/host/clock.ts";
import type { HostDownload } from "../../operator/publish/host-downloads.ts";
import type { HostFailure } from "../../operator/publish/host-failure.ts";
import type { PublishedRelease } from "../../operator/channel/published-release.ts";
import type { SeenDifference } from "../../operator/channel/seen-difference.ts";
import { differenceJson, differenceSchema } from "./difference.ts";
import { differenceAtAGlance } from "./difference-glance.ts";
import { describeSystem } from "./finding.ts";
import { bytesSchema, countSchema, printJson, releaseShape, runSystemSchema } from "./json.ts";
import { counted, formatBytes } from "../../core/text/quantity.ts";
import { shortSystemNames } from "../../core/text/system-names.ts";
import { Times } from "../../core/text/times.ts";
import { note } from "./output.ts";
import {
  screenOf,
  show,
  showNote,
  styled,
  table,
  type Line,
  type Screen,
  type Text,
} from "./screen.ts";

/** What `publish` and the commands of `release` that change one print for `--json`. */
export const publishedSchema = z.strictObject({
  ...releaseShape,
  manifest: z.string().describe("the file that was written"),
  draft: z.boolean().describe("true if the release is not in force yet"),
  unchanged: z.boolean().describe("true if there was nothing to change: nothing was signed"),
  difference: differenceSchema.nullable().describe("what it changes; null if nothing was signed"),
  dropped: z.array(z.string()).describe("hosts that the release no longer names"),
  newBytes: bytesSchema.nullable().describe("what the mirror has to store beside what it had"),
  failed: z
    .array(z.strictObject({ hostname: hostnameSchema, code: z.string(), message: z.string() }))
    .describe(
      "hosts that were not built: those that the release before has stay as they were (`--keep-going`)",
    ),
  hosts: z
    .array(
      z.strictObject({
        ...runSystemSchema.shape,
        platform: platformSchema.nullable().describe("null if the system does not tell"),
        paths: countSchema,
        closureSize: bytesSchema,
        archive: releaseSchema.shape.archive,
        reused: z.boolean().describe("true if the mirror had the archive already"),
        download: z
          .strictObject({ paths: countSchema, bytes: bytesSchema })
          .nullable()
          .describe(
            "what a host with its system of the release before downloads, of archives, deltas counted in; null if that release does not name it",
          ),
      }),
    )
    .describe("what was packed; empty if the systems are those of an earlier release"),
});

/** What is told of a publish beside its release. */
interface BesideRelease {
  readonly failed?: readonly HostFailure[];
  /** What the mirror has to store in addition; null if nothing was packed. */
  readonly newBytes?: number | null;
  /** What hosts download that have their system of the release before, by hostname. */
  readonly downloads?: ReadonlyMap<string, HostDownload>;
}

/** How a release is shown that was made. */
export interface PublishedOptions {
  readonly json?: true;
  readonly utc?: true;
}

/** Says what was published or drafted. */
export function printPublished(
  published: PublishedRelease,
  options: PublishedOptions,
  beside: BesideRelease = {},
): void {
  const { failed = [], newBytes = null, downloads = new Map<string, HostDownload>() } = beside;
  if (options.json) {
    const { hosts, ...release } = published;
    const packed = Object.entries(hosts).map(([hostname, host]) => ({
      ...{ hostname, ...host },
      download: downloads.get(hostname) ?? null,
    }));
    const difference = published.difference && differenceJson(published.difference);
    const others = failed.map(({ hostname, error }) => ({
      ...{ hostname, code: error.code, message: error.message },
    }));
    printJson(publishedSchema, { ...release, difference, failed: others, newBytes, hosts: packed });
    return;
  }
  const times = new Times({ now: systemClock.now(), utc: options.utc });
  show(describePublished(published, { ...beside, times, screen: screenOf(process.stdout) }));
  if (failed.length > 0) {
    // Their errors were told when they failed.
    const names = failed.map(({ hostname }) => hostname).join(", ");
    note(`nixos-pull: ${counted(failed.length, "host")} failed, as told above: ${names}`);
  }
}

/** What was published or drafted, in lines: the release, what each host gets, and where it lies. */
export function describePublished(
  published: PublishedRelease,
  {
    newBytes = null,
    downloads = new Map<string, HostDownload>(),
    times,
    screen,
  }: Omit<BesideRelease, "failed"> & { readonly times: Times; readonly screen: Screen },
): Line[] {
  const { channel, epoch, sequence, expiresAt, signedBy, draft } = published;
  if (published.unchanged) {
    const name = `release ${describePosition({ epoch, sequence })} of ${channel}`;
    return [`Nothing changes: ${name} stays in force, and nothing was signed.`];
  }
  return [
    [
      styled("strong", `${draft ? "Drafted" : "Published"} release ${sequence} of ${channel}`),
      `${epoch === 0 ? "" : `, epoch ${epoch}`}, signed by ${signedBy.join(", ") || "nobody yet"}, ` +
        `good until ${times.clock(expiresAt)}.`,
    ],
    ...hostLines(published, downloads, screen),
    ...(newBytes === null
      ? []
      : [`The mirror has ${newBytes === 0 ? "nothing" : formatBytes(newBytes)} more to store.`]),
    styled("dim", published.manifest),
  ];
}

/** What each host gets. A refresh or a draft that comes into force packs nothing. */
function hostLines(
  { hosts, difference }: PublishedRelease,
  downloads: ReadonlyMap<string, HostDownload>,
  screen: Screen,
): Line[] {
  const entries = Object.entries(hosts);
  if (entries.length === 0) return [];
  const nameOf = shortSystemNames(entries.map(([, { toplevel }]) => toplevel));
  const from = difference?.from;
  const head = [
    "HOST",
    "SYSTEM",
    "MODE",
    "CLOSURE",
    from ? `DOWNLOADS AFTER ${describePosition(from)}` : "",
  ];
  const rows = entries.map(([hostname, host]) => [
    styled("strong", hostname),
    describeSystem({ ...host, toplevel: nameOf(host.toplevel) }),
    host.mode,
    `${formatBytes(host.closureSize)} in ${counted(host.paths, "path")}`,
    from ? describeDownload(downloads.get(hostname)) : "",
  ]);
  return table([head.map((cell) => styled("dim", cell)), ...rows], screen);
}

/** What a host downloads; nothing is known of a host that is new. */
function describeDownload(download: HostDownload | undefined): Text {
  if (!download) return styled("dim", "a new host");
  if (download.paths === 0) return styled("dim", "nothing");
  return `${formatBytes(download.bytes)} for ${counted(download.paths, "path")}`;
}

/** Shows what is about to be signed, unless the result is printed as JSON anyway. */
export function showDifference({ json, utc }: PublishedOptions): (it: SeenDifference) => void {
  return (difference) => {
    if (json) return;
    showNote(differenceAtAGlance(difference, new Times({ now: systemClock.now(), utc })));
  };
}

/** The same of a release that was made out of another, and which hosts it no longer names. */
export function printChanged(published: PublishedRelease, options: PublishedOptions): void {
  if (published.dropped.length > 0) {
    note(
      `nixos-pull: release ${published.sequence} no longer names ${published.dropped.join(", ")}`,
    );
  }
  printPublished(published, options);
}
