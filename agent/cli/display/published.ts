import type { PublishedRelease } from "../../operator/channel/published-release.ts";
import { formatBytes, formatTable, note, printJson, printLine } from "./output.ts";

/** Says what was published or drafted. */
export function printPublished(
  published: PublishedRelease,
  options: { readonly json?: true },
): void {
  if (options.json) {
    printJson(published);
    return;
  }
  const { channel, epoch, sequence, expiresAt, manifest, signedBy, draft } = published;
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
          `${host.paths} paths`,
          `${formatBytes(host.archive.size)}${host.reused ? " (unchanged)" : ""}`,
          host.toplevel,
        ]),
      ),
    );
  }
  printLine(manifest);
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
