import * as z from "zod";
import { PullError } from "../errors.ts";
import { hostnameSchema, sha256Schema } from "./manifest.ts";
import { describeIssues } from "../text/schema-issues.ts";

/**
 * What a stick was made to hold, if that is less than its manifests name, so that
 * `verify` tells what was left out from what was lost. It is not signed, and hosts do
 * not read it: anybody who can change it could also remove files.
 */
export const STICK_CONTENTS_FILE = "stick-contents.json";

/** Longest list that is read: that of 100,000 hosts has about 6 MB. */
export const MAX_STICK_CONTENTS_BYTES = 32 * 1024 * 1024;

const packedHostSchema = z.strictObject({
  /** NARs and deltas of its closure that were packed; null for all of the closure. */
  members: z.int().nonnegative().nullable(),
});

export const stickContentsSchema = z.strictObject({
  formatVersion: z.literal(1),
  /** By the release's digest; a release that is not here was packed whole. */
  releases: z.record(
    sha256Schema,
    z.strictObject({ hosts: z.record(hostnameSchema, packedHostSchema) }),
  ),
});
export type StickContents = z.infer<typeof stickContentsSchema>;
export type PackedHost = z.infer<typeof packedHostSchema>;

export const EMPTY_STICK_CONTENTS: StickContents = { formatVersion: 1, releases: {} };

/** Parses such a list. Throws MIRROR_STATUS if it is none. */
export function parseStickContents(bytes: Uint8Array, name: string): StickContents {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (cause) {
    throw new PullError("MIRROR_STATUS", `${name}: expected JSON`, { cause });
  }
  const parsed = stickContentsSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new PullError("MIRROR_STATUS", `${name}: ${describeIssues(parsed.error, json)}`);
}

/** The hosts for which a release was packed; null for all of them. */
export function packedHosts(list: StickContents, digest: string): Map<string, PackedHost> | null {
  const release = Object.hasOwn(list.releases, digest) ? list.releases[digest] : undefined;
  return release ? new Map(Object.entries(release.hosts)) : null;
}

/**
 * The list once these hosts of a release were packed too; `hosts` is null for all of
 * them. `wasWhole` tells that the release was there before, with all its hosts.
 */
export function packedAlso(
  list: StickContents,
  digest: string,
  hosts: ReadonlyMap<string, PackedHost> | null,
  wasWhole: boolean,
): StickContents {
  const { [digest]: _, ...others } = list.releases;
  const before = packedHosts(list, digest);
  if (hosts === null || (wasWhole && before === null)) return { ...list, releases: others };
  const merged = new Map(before);
  for (const [hostname, { members }] of hosts) {
    const known = merged.get(hostname);
    const most =
      known === undefined
        ? members
        : known.members === null || members === null
          ? null
          : Math.max(known.members, members);
    merged.set(hostname, { members: most });
  }
  return { ...list, releases: { ...others, [digest]: { hosts: Object.fromEntries(merged) } } };
}

/** The list without releases that are no longer there. */
export function packedOnly(list: StickContents, digests: ReadonlySet<string>): StickContents {
  const releases = Object.entries(list.releases).filter(([digest]) => digests.has(digest));
  return { ...list, releases: Object.fromEntries(releases) };
}
