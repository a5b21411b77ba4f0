import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import { entryOf, type Manifest, type SignedManifest } from "../../core/formats/manifest.ts";
import { hasZstd } from "../../effects/nix/delta-maker.ts";
import { expectProgram } from "../../effects/process/find-program.ts";
import { expectBarrier, withBarrier } from "../channel/barriers.ts";
import { composeManifest, nextFrame } from "../channel/compose-manifest.ts";
import {
  currentRelease,
  reservedPlaces,
  withOpenChannel,
  type OpenChannel,
} from "../channel/open-channel.ts";
import type { PublishedHost, PublishedRelease } from "../channel/published-release.ts";
import { withRequirements } from "../channel/requirements.ts";
import { rolloutFor } from "../channel/rollout-request.ts";
import { droppedHosts, signAndPlace } from "../channel/sign-and-place.ts";
import type { MirrorWriter } from "../mirror/mirror-writer.ts";
import { buildFailed, type HostFailure } from "./host-failure.ts";
import { hostEntries } from "./host-entries.ts";
import { hostDownloads, type HostDownload } from "./host-downloads.ts";
import { expectSomeHosts, hostsToPublish } from "./hosts-to-publish.ts";
import { packIndexPatches } from "./index-patches.ts";
import { makeCache } from "./nar-cache.ts";
import { NarLibrary } from "./nar-library.ts";
import { buildContext, buildSystems } from "./nix-builder.ts";
import { packSystems } from "./pack-systems.ts";
import type { PublishOptions, PublishRequest } from "./publish-options.ts";
import { countSignedPaths } from "./reusable-archive.ts";
import { checkPlatforms, checkSystems } from "./system-checks.ts";

/** A release that was published, and the hosts that it could not bring anything new. */
export interface PublishResult {
  readonly release: PublishedRelease;
  readonly failed: readonly HostFailure[];
  /** What the mirror has to store beside what it had, archives only, bytes. */
  readonly newBytes: number;
  /** What hosts download that have their system of the release before, by hostname. */
  readonly downloads: ReadonlyMap<string, HostDownload>;
}

/**
 * Builds, packs, signs and places a release. Hosts see the release before until the manifest is
 * renamed into place, at the very end. What can be known without an evaluation or a build is
 * checked before. Throws USAGE, BUILD_FAILED, NOT_A_SYSTEM,
 * HOSTNAME_MISMATCH, PLATFORM_MISMATCH, AGENT_MISSING, SPECIALISATION_MISSING, SECRET_IN_CLOSURE, PUBLISH_FAILED, PUBLISH_LOCKED, SIGNER_FAILED, TOOL_MISSING, INTERRUPTED.
 */
export async function publish(request: PublishRequest): Promise<PublishResult> {
  await checkRequest(request);
  return withOpenChannel(request, async (open) => {
    const { writer } = open;
    const inForce = await releaseToFollow(open, request);
    const current = inForce?.manifest ?? null;
    const { newEpoch, sequence } = request;
    const reserved = await reservedPlaces(open, inForce);
    const frame = nextFrame(request, inForce, { newEpoch, sequence, reserved });
    const retained = await writer.retained.signedReleases(request.channel, open.trust);
    expectBarrier(request.barrier, current, retained);
    const wanted = await hostsToPublish(request, current);

    const { toplevels, options } = await buildAll(
      { ...request, ...wanted },
      join(writer.work, "roots"),
    );
    warnOfFailures(options, current);
    await checkSystems(toplevels, options);
    await checkPlatforms(toplevels, current, options);
    const library = await NarLibrary.open(open, current);
    const systems = await packSystems({ writer, options, library, toplevels });
    const packed = await withIndexPatches(writer, options, systems, library);

    const entries = hostEntries(options, current, packed);
    await warnOfKeptArchives(writer, options, entries, packed);
    warnOfPolicy(options, current, entries);
    warnOfPlatforms(options, current, entries);
    warnOfDropped(options, frame, droppedHosts(entries, current));
    const before = options.refresh ? current?.rollout : undefined;
    const contents = {
      defaults:
        options.refresh && current ? current.defaults : { activation: { mode: options.mode } },
      rollout: rolloutFor(options.rollout, frame, before),
      ...withBarrier(options.barrier, entries, current, retained),
    };
    const composed = composeManifest(frame, contents, options);
    const manifest = await withRequirements(open, composed, inForce, options);
    const downloads = await hostDownloads(
      entries,
      current,
      async (system) => library.contentsOf(system) ?? writer.readContents(system),
    );
    const release = await signAndPlace(open, { manifest, current: inForce, packed }, options);
    return { release, failed: options.failed, newBytes: writer.placedBytes, downloads };
  });
}

/** Throws USAGE, TOOL_MISSING and the system's errors for what is wrong whatever the mirror has. */
async function checkRequest(request: PublishRequest): Promise<void> {
  const { refresh, storeKeys, compression, cache } = request;
  expectSomeHosts(request);
  if (refresh) return;
  if (storeKeys.length === 0) {
    throw new PullError("USAGE", "expected --store-key or --key: store paths have to be signed");
  }
  if (compression !== "none") await expectProgram(compression);
  if (cache !== undefined) await makeCache(cache);
}

/**
 * The release in force, or null if there is none. A release that these keys did not sign may be
 * published over, if the operator gives a new epoch or the sequence and keeps nothing of it. Hosts
 * that accepted it follow a new epoch only. Throws
 * PUBLISH_FAILED.
 */
async function releaseToFollow(
  open: OpenChannel,
  { channel, refresh, keepHosts, sequence, newEpoch }: PublishRequest,
): Promise<SignedManifest | null> {
  const advice = ", or publish over it with --new-epoch REASON and without --keep-hosts";
  const mayReplace = (sequence ?? newEpoch) !== undefined && !refresh && !keepHosts;
  const how = { advice, newEpoch: newEpoch !== undefined };
  const current = await currentRelease(open, how).catch((error: unknown) => {
    if (mayReplace && error instanceof PullError && error.code === "PUBLISH_FAILED") return null;
    throw error;
  });
  if (refresh && !current) {
    throw new PullError("PUBLISH_FAILED", `channel ${channel} has no release to refresh`);
  }
  return current;
}

/**
 * Builds every host's system; gives toplevels by hostname, and the options with the hosts that
 * have one. Throws BUILD_FAILED if a host fails, unless the others are to be published, and there
 * is one.
 */
async function buildAll(
  request: PublishOptions,
  roots: string,
): Promise<{ toplevels: ReadonlyMap<string, string>; options: PublishOptions }> {
  const of = request.hosts.length;
  const built = await buildSystems(request.hosts, roots, buildContext(request), (hostnames, at) => {
    request.onProgress({ phase: "build", hostnames, at, of });
  });
  const { toplevels } = built;
  const failed = [...request.failed, ...built.failed];
  if (failed.length > 0 && (!request.keepGoing || toplevels.size === 0)) {
    throw buildFailed(failed, of + request.failed.length);
  }
  const hosts = request.hosts.filter(({ hostname }) => toplevels.has(hostname));
  return { toplevels, options: { ...request, hosts, failed } };
}

/** Says of every host that failed why, and which system the release has for it. */
function warnOfFailures({ failed, onProgress }: PublishOptions, current: Manifest | null): void {
  for (const { hostname, error } of failed) {
    const kept = current && entryOf(current, hostname);
    const what = kept
      ? `keeps its system of release ${current.sequence}, ${kept.toplevel}`
      : "is not in the release";
    const message = `${hostname} ${what}: ${error.code}: ${error.message}`;
    onProgress({ phase: "warning", message });
  }
}

/** Says which hosts of the release before the new one no longer names. */
function warnOfDropped(
  { onProgress }: PublishOptions,
  { sequence }: Pick<Manifest, "sequence">,
  dropped: readonly string[],
): void {
  if (dropped.length === 0) return;
  const message = `release ${sequence} no longer names ${dropped.join(", ")}; --keep-hosts keeps ${dropped.length === 1 ? "it" : "them"}`;
  onProgress({ phase: "warning", message });
}

/** A host that is behind by so many releases still reads no whole index, deltas or not. */
const MIN_INDEX_BASES = 1;

/** Adds patches from earlier indexes to each host's archive, if zstd is there to make them. */
async function withIndexPatches(
  writer: MirrorWriter,
  { deltas, signal }: PublishOptions,
  packed: Readonly<Record<string, PublishedHost>>,
  { releases }: NarLibrary,
): Promise<Record<string, PublishedHost>> {
  const bases = releases.slice(0, Math.max(deltas, MIN_INDEX_BASES));
  if (bases.length === 0 || !(await hasZstd())) return { ...packed };
  const archives = await packIndexPatches(writer, packed, bases, signal);
  return Object.fromEntries(
    Object.entries(packed).map(([hostname, host]) => [
      hostname,
      { ...host, archive: archives.get(hostname) ?? host.archive },
    ]),
  );
}

/** Warns of archives that are kept although a key that signs now did not sign them. */
async function warnOfKeptArchives(
  writer: MirrorWriter,
  { refresh, storeKeys, onProgress }: PublishOptions,
  entries: Manifest["hosts"],
  packed: Readonly<Record<string, PublishedHost>>,
): Promise<void> {
  if (refresh) return;
  for (const [hostname, entry] of Object.entries(entries)) {
    if (Object.hasOwn(packed, hostname)) continue;
    if ((await countSignedPaths(writer, entry, storeKeys)) !== null) continue;
    onProgress({
      phase: "warning",
      message: `the archive kept for ${hostname} is not signed by every key that is used now`,
    });
  }
}

/** Warns of hosts whose systems are for another platform than before, as `--allow-platform` allows. */
function warnOfPlatforms(
  { onProgress }: PublishOptions,
  current: Manifest | null,
  entries: Manifest["hosts"],
): void {
  for (const [hostname, { platform }] of Object.entries(entries)) {
    const before = current ? entryOf(current, hostname)?.platform : undefined;
    if (before === undefined || platform === undefined || before === platform) continue;
    const message =
      `${hostname}: its system is now for ${platform}; before, it was for ${before}. ` +
      `${before} machines refuse it`;
    onProgress({ phase: "warning", message });
  }
}

/** Warns that held hosts stay held, and that a pause does not carry over. */
function warnOfPolicy(
  { refresh, rollout, onProgress }: PublishOptions,
  current: Manifest | null,
  entries: Manifest["hosts"],
): void {
  for (const [hostname, { turn }] of Object.entries(entries)) {
    if (typeof turn !== "object") continue;
    onProgress({ phase: "warning", message: `${hostname} is still held: ${turn.held}` });
  }
  const paused = refresh ? undefined : current?.rollout?.paused;
  if (!paused || rollout.paused !== undefined) return;
  const message = `release ${current?.sequence} was paused (${paused.reason}); this one is not`;
  onProgress({ phase: "warning", message });
}
