import * as z from "zod";
import { EXIT, PullError } from "../../core/errors.ts";
import { describePosition, positionOf } from "../../core/formats/manifest.ts";
import { compareReleases } from "../../operator/channel/compare-releases.ts";
import type { CommandMaker, CommandResult, OptionsOf } from "../command.ts";
import { systemClock } from "../../effects/host/clock.ts";
import { Times } from "../../core/text/times.ts";
import { differenceJson, differenceSchema } from "../display/difference.ts";
import { differenceAtAGlance } from "../display/difference-glance.ts";
import { printJson, releaseJson, releaseShape } from "../display/json.ts";
import { show, styled } from "../display/screen.ts";
import { channelOption, releaseCommand } from "../options/change.ts";
import { positive } from "../options/values.ts";
import { mirrorDirectory } from "../options/mirror-place.ts";
import { publicKeysOf } from "../options/public-keys.ts";

/** What `release diff --json` prints. */
const diffSchema = z.strictObject({
  ...releaseShape,
  signedBy: releaseShape.signedBy.nullable().describe("null if no key was given to verify it with"),
  difference: differenceSchema,
});

function definition() {
  return releaseCommand(
    "diff",
    "show what a release changes on hosts, and which packages",
    diffSchema,
  )
    .addOption(channelOption())
    .option("--to <sequence>", "the newer release (default: the one in force)", positive)
    .option("--draft <file>", "a draft instead, which need not be in force")
    .option("--from <sequence>", "the older release (default: the one before)", positive);
}

export const diffCommand: CommandMaker = ({ finish }) =>
  definition().action((options) => {
    finish(diff(options));
  });

/** `nixos-pull release diff`: what a release changes, compared with another. */
async function diff(options: OptionsOf<typeof definition>): CommandResult {
  const { channel, from, to, draft } = options;
  if (to !== undefined && draft !== undefined) {
    throw new PullError("USAGE", "expected --to SEQUENCE or --draft FILE, not both");
  }
  const compared = await compareReleases({
    ...{ mirror: mirrorDirectory(options.mirror), channel, from, to, draft },
    publicKeys: publicKeysOf("--public-key", options.publicKey),
  });
  const { release, signedBy, difference } = compared;
  if (options.json) {
    const { signedBy: _, ...json } = releaseJson({ ...release, signedBy: [] });
    printJson(diffSchema, { ...json, signedBy, difference: differenceJson(difference) });
    return EXIT.ok;
  }
  const { createdAt, expiresAt } = release.manifest;
  const times = new Times({ now: systemClock.now(), utc: options.utc });
  show([
    [
      styled(
        "strong",
        `Release ${describePosition(positionOf(release.manifest))} of ${release.manifest.channel}`,
      ),
      ", ",
      signedBy ? `signed by ${signedBy.join(", ")}` : styled("waiting", "signatures not verified"),
      `, made ${times.ago(createdAt)}, good until ${times.clock(expiresAt)}`,
    ],
    styled("dim", `digest ${release.digest}`),
    ...differenceAtAGlance(difference, times),
  ]);
  return EXIT.ok;
}
