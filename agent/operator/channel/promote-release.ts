import { PullError } from "../../core/errors.ts";
import {
  activationOf,
  entryOf,
  type HostEntry,
  type Manifest,
} from "../../core/formats/manifest.ts";
import { RootDirectory } from "../../effects/files/root-directory.ts";
import { expectChannel } from "../mirror/channels.ts";
import { withBarrier, type BarrierRequest } from "./barriers.ts";
import { composeManifest, nextFrame } from "./compose-manifest.ts";
import { currentRelease, reservedPlaces, withOpenChannel } from "./open-channel.ts";
import type { ChangeOptions } from "./next-release.ts";
import { describeRelease } from "./position.ts";
import type { PublishedRelease } from "./published-release.ts";
import { withRequirements } from "./requirements.ts";
import { keptHold, checkWaves, rolloutFor, type RolloutRequest } from "./rollout-request.ts";
import { signAndPlace } from "./sign-and-place.ts";

/** What `release promote` does. */
export interface Promotion {
  /** The channel whose release is promoted. */
  readonly from: string;
  /** Hosts that the other release does not name keep their entry. */
  readonly keepHosts: boolean;
  readonly rollout: RolloutRequest;
  readonly barrier: BarrierRequest;
}

/**
 * Makes the release of another channel, with its archives, the next one of `options.channel`.
 * Throws USAGE, PUBLISH_FAILED if there is none or it is paused, and what `signAndPlace` throws.
 */
export async function promoteRelease(
  options: ChangeOptions,
  { from, keepHosts, rollout: request, barrier }: Promotion,
): Promise<PublishedRelease> {
  if (from === options.channel) {
    throw new PullError("USAGE", `expected two channels, found ${from} twice`);
  }
  await expectChannel(new RootDirectory(options.mirror), from, "PUBLISH_FAILED");
  return withOpenChannel(options, async (open) => {
    const source = (await currentRelease({ ...open, channel: from }))?.manifest;
    const current = await currentRelease(open);
    if (!source) throw new PullError("PUBLISH_FAILED", `channel ${from} has no release`);
    if (source.rollout?.paused) {
      const { reason } = source.rollout.paused;
      throw new PullError("PUBLISH_FAILED", `${describeRelease(source)} is paused: ${reason}`);
    }
    const frame = nextFrame(options, current, { reserved: await reservedPlaces(open, current) });
    const hosts = promotedHosts(source, current?.manifest ?? null, keepHosts);
    const retained = await open.writer.retained.signedReleases(options.channel, open.trust);
    const rollout = rolloutFor(request, frame);
    const contents = {
      defaults: source.defaults,
      rollout,
      ...withBarrier(barrier, hosts, current?.manifest ?? null, retained),
    };
    checkWaves(rollout?.waves, contents.hosts);
    const composed = composeManifest(frame, contents, options);
    const manifest = await withRequirements(open, composed, current, options);
    return signAndPlace(open, { manifest, current }, options);
  });
}

/** The other channel's hosts, without the turns and barriers that they had there. */
function promotedHosts(
  source: Manifest,
  current: Manifest | null,
  keepHosts: boolean,
): Manifest["hosts"] {
  const hosts: Record<string, HostEntry> = {};
  if (current && keepHosts) {
    for (const [hostname, entry] of Object.entries(current.hosts)) {
      hosts[hostname] = { ...entry, activation: activationOf(current, entry) };
    }
  }
  for (const [hostname, { turn: _, through: __, ...entry }] of Object.entries(source.hosts)) {
    hosts[hostname] = { ...entry, ...keptHold(current ? entryOf(current, hostname) : undefined) };
  }
  return hosts;
}
