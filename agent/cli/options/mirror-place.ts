import { resolve } from "node:path";
import { PullError } from "../../core/errors.ts";
import type { Mirror } from "../../core/ports.ts";
import { mirrorsOf } from "../../host/compose.ts";
import {
  MIRROR_ADDRESS_RULE,
  directoryAddress,
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
