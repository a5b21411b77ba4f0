import { FEATURES } from "../../core/formats/compatibility.ts";
import { PullError } from "../../core/errors.ts";
import {
  haveOtherSystems,
  systemsIn,
  type Manifest,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import { requiredByIndex, requiredByManifest } from "../../core/formats/requirements.ts";
import type { Report } from "../../core/formats/report.ts";
import { describeOutdated, outdatedAgent } from "../../core/fleet/outdated-agents.ts";
import { supportedBy } from "../../core/release/supported-releases.ts";
import type { MirrorWriter } from "../mirror/mirror-writer.ts";
import type { NextReleaseOptions, OpenChannel } from "./open-channel.ts";
import { expectArchives } from "./sign-and-place.ts";

/**
 * A new release with what it requires of agents, and the way out for those that lack it: earlier
 * releases of its history that the mirror still has whole. A plain release requires nothing, so that
 * every agent follows it.
 */
export async function withRequirements(
  open: OpenChannel,
  manifest: Manifest,
  current: SignedManifest | null,
  { supportMs, reports = [] }: Pick<NextReleaseOptions, "supportMs" | "reports">,
): Promise<Manifest> {
  const requires = await requiredBy(open.writer, manifest);
  if (requires.length === 0) return manifest;
  const { hosts, rollout, barrier, defaults, ...frame } = manifest;
  const supported = supportedBy({
    requires,
    earlier: await wholeReleases(open, manifest),
    carried: current?.manifest.supported ?? [],
    createdAt: manifest.createdAt,
    supportMs,
  });
  warnOfOutdated({ ...manifest, requires, supported }, reports, open.onWarning);
  return {
    ...{ ...frame, requires, ...(supported.length > 0 && { supported }) },
    ...{ defaults, ...(barrier && { barrier }), ...(rollout && { rollout }), hosts },
  };
}

/** Hosts beyond this number are only counted. */
const MAX_NAMED = 20;

/** Says which of the hosts that reported could not follow a release at once, or not at all. */
function warnOfOutdated(
  manifest: Manifest,
  reports: readonly Report[],
  onWarning: (message: string) => void,
): void {
  const { channel, requires = [], supported = [], hosts } = manifest;
  const outdated = reports
    .filter((report) => report.channel === channel && Object.hasOwn(hosts, report.hostname))
    .flatMap((report) => outdatedAgent(manifest, report) ?? [])
    // Those that nothing leads on come first.
    .sort((a, b) => Number(a.first !== null) - Number(b.first !== null));
  const names = supported.map(({ sequence }) => sequence).join(", ");
  onWarning(
    `this release requires ${requires.join(", ")}; hosts whose agents lack that follow ` +
      (names === ""
        ? "no release: none is supported for them"
        : `release ${names} first, at once: waves do not time that`),
  );
  for (const one of outdated.slice(0, MAX_NAMED)) {
    onWarning(`${one.hostname}: ${describeOutdated(one)}`);
  }
  if (outdated.length > MAX_NAMED) {
    onWarning(`and ${outdated.length - MAX_NAMED} more hosts whose agents lack it`);
  }
}

/** What the manifest and the indexes of its archives use of later versions. */
async function requiredBy(writer: MirrorWriter, manifest: Manifest): Promise<string[]> {
  const features = new Set<string>(requiredByManifest(manifest));
  const known: readonly string[] = FEATURES;
  // Without any feature, no index has to be read for it.
  const systems = known.length === 0 ? [] : systemsIn(manifest);
  const read = new Set<string>();
  for (const { system } of systems) {
    if (read.has(system.archive.sha256)) continue;
    read.add(system.archive.sha256);
    const contents = await writer.readContents(system);
    for (const feature of contents ? requiredByIndex(contents.index) : []) features.add(feature);
  }
  return [...features].sort();
}

/**
 * The earlier releases of a release's history that are here whole, the newest first. None that
 * was paused, nor one with the same systems before that: an operator pauses what does harm, and
 * the way out would bring it to every old host at once.
 */
async function wholeReleases(
  { writer, channel, trust, onWarning }: OpenChannel,
  { history }: Manifest,
): Promise<SignedManifest[]> {
  const digests = new Set(history.releases.map(({ digest }) => digest));
  const found: SignedManifest[] = [];
  const paused: Manifest[] = [];
  for (const release of await writer.retained.signedReleases(channel, trust)) {
    if (!digests.has(release.digest)) continue;
    const isPaused = release.manifest.rollout?.paused !== undefined;
    if (isPaused) paused.push(release.manifest);
    if (paused.some((it) => !haveOtherSystems(it, release.manifest))) {
      if (isPaused) onWarning(`release ${release.manifest.sequence} is no way out: it was paused`);
      continue;
    }
    try {
      await expectArchives(writer, release.manifest);
      found.push(release);
    } catch (error) {
      if (!(error instanceof PullError) || error.code !== "PUBLISH_FAILED") throw error;
      onWarning(`release ${release.manifest.sequence} is no way out any more: ${error.message}`);
    }
  }
  return found;
}
