import { resolve } from "node:path";
import { PullError } from "../../core/errors.ts";
import type { Mirror } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { Bucket } from "../../effects/mirror/bucket.ts";
import { BucketSigner } from "../../effects/mirror/bucket-signer.ts";
import { keySourceOf } from "../../effects/mirror/key-source.ts";
import { Transport } from "../../effects/mirror/transport.ts";
import { mirrorsOf } from "../../host/compose.ts";
import {
  MIRROR_ADDRESS_RULE,
  directoryAddress,
  directoryOf,
  looksLikeAddress,
  parseMirrorAddress,
  type MirrorAddress,
} from "../../core/formats/mirror-address.ts";

/** The mirror that an operator names: by its address, or by its directory. Throws USAGE. */
export function mirrorPlace(text: string): MirrorAddress {
  if (!looksLikeAddress(text)) return directoryAddress(resolve(text));
  const address = parseMirrorAddress(text);
  if (address) return address;
  // The address is not repeated: it may have a password in it.
  throw new PullError("USAGE", `expected a directory, or ${MIRROR_ADDRESS_RULE}`);
}

/** That mirror, as these settings say to talk to mirrors. */
export function mirrorAt(
  { text }: MirrorAddress,
  network: Omit<Parameters<typeof mirrorsOf>[0], "mirrors">,
): Mirror {
  const [mirror] = mirrorsOf({ ...network, mirrors: [text] });
  if (!mirror) throw new PullError("INTERNAL", `no mirror for ${text}`);
  return mirror;
}

/**
 * A bucket to write to, with the keys of its credential in the settings, or those that this process
 * was given; at last those of the machine's role, since nobody may write without.
 */
export function bucketAt(
  { text, bucket: address }: MirrorAddress & { readonly kind: "bucket" },
  settings: Pick<Settings, "limits" | "tls" | "credentials">,
  signal: AbortSignal,
): Bucket {
  const keys = keySourceOf(settings.credentials[text], { instance: true });
  const signer = new BucketSigner(address, keys);
  return new Bucket({ text, address, signer, transport: new Transport(settings), signal });
}

/** `HOST:/PATH` and `USER@HOST:PATH`, as ssh, scp and rsync take them. */
const REMOTE_PLACE = /^(?:[^/:@]+@[^/:]+:|[^/:]+:\/)/;

/**
 * The mirror that a command writes to: a directory, by its path or its file:// address. Throws
 * USAGE for any other address, since releases get to servers by an upload.
 */
export function mirrorDirectory(text: string): string {
  if (REMOTE_PLACE.test(text) && !looksLikeAddress(text)) {
    throw new PullError(
      "USAGE",
      `expected a directory of this machine, found a place on another one; ${UPLOAD_ADVICE}. ` +
        `A directory of this name is written ./${text}`,
    );
  }
  const directory = looksLikeAddress(text) ? localDirectory(text) : text;
  if (directory !== null) return resolve(directory);
  // The address is not repeated: it may have a password in it.
  throw new PullError(
    "USAGE",
    `expected a directory, or its file:/// address, found another kind of address; ${UPLOAD_ADVICE}`,
  );
}

const UPLOAD_ADVICE =
  "write to a directory, then upload that: with `nixos-pull mirror DIRECTORY s3://BUCKET/PREFIX`, or " +
  "by other programs `archives` first, `channels` last (nixos-pull's publishing.md shows both)";

function localDirectory(text: string): string | null {
  const address = parseMirrorAddress(text);
  return address && directoryOf(address);
}
