import { PullError } from "../../core/errors.ts";
import type { Manifest } from "../../core/formats/manifest.ts";
import {
  composeManifest,
  nextFrame,
  type ReleaseContents,
  type ReleaseFrame,
} from "./compose-manifest.ts";
import {
  currentRelease,
  withOpenChannel,
  type NextReleaseOptions,
  type OpenChannel,
} from "./open-channel.ts";
import type { PublishedRelease } from "./published-release.ts";
import { checkWaves } from "./rollout-request.ts";
import { signAndPlace } from "./sign-and-place.ts";

/** What every `release` command needs that makes the next release without building. */
export interface ChangeOptions extends NextReleaseOptions {
  readonly onWarning: (message: string) => void;
}

/** What a change may look at while it decides. */
export interface ChangeContext {
  readonly open: OpenChannel;
  /** Where the new release will stand. */
  readonly frame: ReleaseFrame;
}

/**
 * Makes the next release of a channel out of the current one. `alter` decides what it says.
 * Throws PUBLISH_FAILED if the channel has no release, and what `signAndPlace` throws.
 */
export async function changeRelease(
  options: ChangeOptions,
  alter: (current: Manifest, context: ChangeContext) => ReleaseContents | Promise<ReleaseContents>,
): Promise<PublishedRelease> {
  return withOpenChannel(options, async (open) => {
    const current = await currentRelease(open);
    if (!current) {
      throw new PullError("PUBLISH_FAILED", `channel ${options.channel} has no release`);
    }
    const frame = nextFrame(options, current);
    const contents = await alter(current.manifest, { open, frame });
    checkWaves(contents.rollout?.waves, contents.hosts);
    const manifest = composeManifest(frame, contents, options);
    return signAndPlace(open.writer, { manifest, current }, options);
  });
}
