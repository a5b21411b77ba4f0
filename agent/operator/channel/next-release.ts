import { isDeepStrictEqual } from "node:util";
import { PullError } from "../../core/errors.ts";
import type { Manifest, SignedManifest } from "../../core/formats/manifest.ts";
import { RootDirectory } from "../../effects/files/root-directory.ts";
import { expectChannel } from "../mirror/channels.ts";
import {
  composeManifest,
  nextFrame,
  type ReleaseContents,
  type ReleaseFrame,
} from "./compose-manifest.ts";
import {
  currentRelease,
  reservedPlaces,
  withOpenChannel,
  type NextReleaseOptions,
  type OpenChannel,
} from "./open-channel.ts";
import type { PublishedRelease } from "./published-release.ts";
import { withRequirements } from "./requirements.ts";
import { checkWaves } from "./rollout-request.ts";
import { describePublished, signAndPlace } from "./sign-and-place.ts";

/** What every `release` command needs that makes the next release without building. */
export interface ChangeOptions extends NextReleaseOptions {
  /** Whether the operator asked for `expiresInMs`: then a new expiry alone is a change too. */
  readonly newExpiry?: boolean;
}

/** What a change may look at while it decides. */
export interface ChangeContext {
  readonly open: OpenChannel;
  /** Where the new release will stand. */
  readonly frame: ReleaseFrame;
}

/**
 * Makes the next release of a channel out of the current one. `alter` decides what it says; if
 * that is the same, and no new expiry was asked for, nothing is signed. Throws PUBLISH_FAILED if the channel has no release, and what `signAndPlace` throws.
 */
export async function changeRelease(
  options: ChangeOptions,
  alter: (current: Manifest, context: ChangeContext) => ReleaseContents | Promise<ReleaseContents>,
): Promise<PublishedRelease> {
  await expectChannel(new RootDirectory(options.mirror), options.channel, "PUBLISH_FAILED");
  return withOpenChannel(options, async (open) => {
    const current = await currentRelease(open);
    if (!current) {
      throw new PullError("PUBLISH_FAILED", `channel ${options.channel} has no release`);
    }
    const frame = nextFrame(options, current, { reserved: await reservedPlaces(open, current) });
    const contents = await alter(current.manifest, { open, frame });
    const isSame = saysTheSame(contents, current.manifest);
    if (isSame && !options.newExpiry) return unchanged(open, current);
    checkWaves(contents.rollout?.waves, contents.hosts);
    const composed = composeManifest(frame, contents, options);
    const manifest = await withRequirements(open, composed, current, options);
    return signAndPlace(open, { manifest, current }, options);
  });
}

/** Whether a release with these contents would say of its hosts what this one says. */
function saysTheSame(contents: ReleaseContents, current: Manifest): boolean {
  const of = ({ defaults, hosts, rollout, barrier }: ReleaseContents): unknown =>
    // Without the keys that have no value.
    JSON.parse(JSON.stringify({ defaults, hosts, rollout, barrier }));
  return isDeepStrictEqual(of(contents), of(current));
}

/** The release in force, for a person who asked for a change that changes nothing. */
function unchanged({ writer, channel }: OpenChannel, current: SignedManifest): PublishedRelease {
  const { manifest, digest, signedBy } = current;
  return {
    ...describePublished(manifest, manifest),
    ...{
      digest,
      manifest: writer.manifestPath(channel),
      draft: false,
      unchanged: true,
      difference: null,
    },
    ...{ signedBy, hosts: {} },
  };
}
