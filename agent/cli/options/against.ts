import { stat } from "node:fs/promises";
import { Option } from "@commander-js/extra-typings";
import { PullError } from "../../core/errors.ts";
import { directoryOf } from "../../core/formats/mirror-address.ts";
import type { Manifest } from "../../core/formats/manifest.ts";
import type { PublicKey } from "../../core/formats/signing-key.ts";
import { RootDirectory, fileNamed } from "../../effects/files/root-directory.ts";
import { expectBefore, retainedBefore } from "../../operator/channel/release-before.ts";
import { readSignedFile, type Against } from "../../operator/channel/sign-release.ts";
import { RetainedReleases } from "../../operator/mirror/retained-releases.ts";
import { note } from "../display/output.ts";
import { mirrorAt, mirrorPlace } from "./mirror-place.ts";
import { settingsFor } from "./trust.ts";

/** `--against`, of a command that shows what a draft changes. */
export function againstOption() {
  return new Option(
    "--against <place>",
    "a mirror's directory or address, or an envelope, with the release in force: shows what the draft changes",
  );
}

/**
 * The release that a draft comes after, and where archives are: at `place`, which is a mirror or
 * an envelope. The draft names that release by its digest; whether anybody signed it is for the
 * caller to find out. Without a place there is nothing to compare with, and a person is told so. Throws
 * RELEASE_FORKED if another release is there, USAGE, the MIRROR_ errors.
 */
export async function againstAt(
  place: string | undefined,
  manifest: Manifest,
  publicKeys: readonly PublicKey[],
): Promise<Against> {
  if (place === undefined) {
    note("nixos-pull: --against MIRROR shows what this changes, and which packages");
    return { release: null, source: null };
  }
  const isFile = await stat(place).then(
    (found) => !found.isDirectory(),
    () => false,
  );
  if (isFile) {
    const { bytes } = await readSignedFile(fileNamed(place));
    return { release: expectBefore(manifest, bytes, place), source: null };
  }
  const address = mirrorPlace(place);
  const keys = publicKeys.map(({ text }) => text);
  const settings = await settingsFor(address.text, { publicKey: keys, storeKey: [] });
  const source = mirrorAt(address, settings);
  if (manifest.history.releases.length === 0) return { release: null, source };
  const directory = directoryOf(address);
  // Another release may be in force there meanwhile.
  const retained =
    directory === null
      ? null
      : await retainedBefore(
          { retained: new RetainedReleases(new RootDirectory(directory)) },
          manifest,
        );
  if (retained) return { release: retained, source };
  const answer = await source.readManifest(manifest.channel, {});
  if (answer.kind !== "read") {
    throw new PullError("MIRROR_STATUS", `${source.address}: expected a manifest, found none`);
  }
  return { release: expectBefore(manifest, answer.bytes, source.address), source };
}
