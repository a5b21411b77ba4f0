import * as z from "zod";
import { describePosition, hostnameSchema, releaseSchema } from "../../core/formats/manifest.ts";
import { platformSchema } from "../../core/formats/platform.ts";
import type { HostFailure } from "../../operator/publish/host-failure.ts";
import type { PublishedRelease } from "../../operator/channel/published-release.ts";
import type { SeenDifference } from "../../operator/channel/seen-difference.ts";
import { describeDifference, differenceJson, differenceSchema } from "./difference.ts";
import { describeSystem } from "./finding.ts";
import { bytesSchema, countSchema, printJson, releaseShape, runSystemSchema } from "./json.ts";
import { counted, formatBytes } from "../../core/text/quantity.ts";
import { formatTable, note, printLine } from "./output.ts";

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
    .describe("hosts that were not built and are as they were (`--keep-going`)"),
  hosts: z
    .array(
      z.strictObject({
        ...runSystemSchema.shape,
        platform: platformSchema.nullable().describe("null if the system does not tell"),
        paths: countSchema,
        closureSize: bytesSchema,
        archive: releaseSchema.shape.archive,
        reused: z.boolean().describe("true if the mirror had the archive already"),
      }),
    )
    .describe("what was packed; empty if the systems are those of an earlier release"),
});

/** What is told of a publish beside its release. */
interface BesideRelease {
  readonly failed?: readonly HostFailure[];
  /** What the mirror has to store in addition; null if nothing was packed. */
  readonly newBytes?: number | null;
}

/** Says what was published or drafted. */
export function printPublished(
  published: PublishedRelease,
  options: { readonly json?: true },
  { failed = [], newBytes = null }: BesideRelease = {},
): void {
  if (options.json) {
    const { hosts, ...release } = published;
    const packed = Object.entries(hosts).map(([hostname, host]) => ({ hostname, ...host }));
    const difference = published.difference && differenceJson(published.difference);
    const others = failed.map(({ hostname, error }) => ({
      ...{ hostname, code: error.code, message: error.message },
    }));
    printJson(publishedSchema, { ...release, difference, failed: others, newBytes, hosts: packed });
    return;
  }
  const { channel, epoch, sequence, expiresAt, manifest, signedBy, draft } = published;
  if (published.unchanged) {
    printLine(
      `Nothing changes: release ${describePosition({ epoch, sequence })} of ${channel} stays in ` +
        "force, and nothing was signed.",
    );
    return;
  }
  printLine(
    `${draft ? "Drafted" : "Published"} release ${sequence} of ${channel}` +
      `${epoch === 0 ? "" : `, epoch ${epoch}`}, signed by ${signedBy.join(", ") || "nobody yet"}, ` +
      `good until ${expiresAt}.`,
  );
  const hosts = Object.entries(published.hosts);
  // A refresh or a draft that comes into force packs nothing.
  if (hosts.length > 0) {
    printLine(
      formatTable(
        hosts.map(([hostname, host]) => [
          hostname,
          host.mode,
          `closure ${formatBytes(host.closureSize)} in ${counted(host.paths, "path")}`,
          host.reused ? "archive as before" : `archive ${formatBytes(host.archive.size)}`,
          describeSystem(host),
        ]),
      ),
    );
  }
  if (newBytes !== null) printLine(`The mirror has ${formatBytes(newBytes)} more to store.`);
  printLine(manifest);
  for (const { hostname, error } of failed) {
    note(`nixos-pull: ${hostname} failed: ${error.code}: ${error.message}`);
  }
}

/** Shows what is about to be signed, unless the result is printed as JSON anyway. */
export function showDifference({ json }: { readonly json?: true }): (it: SeenDifference) => void {
  return (difference) => {
    if (json) return;
    for (const line of describeDifference(difference)) note(line);
  };
}

/** The same of a release that was made out of another, and which hosts it no longer names. */
export function printChanged(published: PublishedRelease, options: { readonly json?: true }): void {
  if (published.dropped.length > 0) {
    note(
      `nixos-pull: release ${published.sequence} no longer names ${published.dropped.join(", ")}`,
    );
  }
  printPublished(published, options);
}
