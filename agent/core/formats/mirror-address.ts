import { fileURLToPath, pathToFileURL } from "node:url";
import * as z from "zod";
import { parseBucketAddress, type BucketAddress } from "./bucket-address.ts";
import { hasUserInfo, parseUrl } from "./web-address.ts";

/** Where a mirror is. `text` is the address as it was written: settings are looked up by it. */
export type MirrorAddress = { readonly text: string } & (
  | { readonly kind: "web"; readonly url: URL }
  /** Of this machine: a disk, a stick, a network file system. */
  | { readonly kind: "directory"; readonly directory: string }
  | { readonly kind: "bucket"; readonly bucket: BucketAddress }
);

/**
 * The mirror's address that `text` is: `https://…`, `http://…` or `file:///…`, without query,
 * fragment, user and password, since addresses are shown and logged; or `s3://…` with the query of
 * `parseBucketAddress`. Null if it is none.
 */
export function parseMirrorAddress(text: string): MirrorAddress | null {
  const url = parseUrl(text);
  if (!url || hasUserInfo(url) || url.hash !== "") return null;
  if (url.protocol === "s3:") {
    const bucket = parseBucketAddress(url);
    return bucket && { text, kind: "bucket", bucket };
  }
  if (url.search !== "") return null;
  try {
    if (url.protocol === "file:") return { text, kind: "directory", directory: fileURLToPath(url) };
    decodeURIComponent(url.pathname);
  } catch {
    // A host in a file address, an encoded slash, or `%` that encodes nothing.
    return null;
  }
  return url.protocol === "https:" || url.protocol === "http:" ? { text, kind: "web", url } : null;
}

/**
 * The directory that a mirror is, or null for a mirror that is reached by a network. A further
 * kind of mirror does not compile before it says here which of the two it is.
 */
export function directoryOf(address: MirrorAddress): string | null {
  switch (address.kind) {
    case "directory":
      return address.directory;
    case "web":
    case "bucket":
      return null;
    default:
      return address satisfies never;
  }
}

/** The mirrors among these that are directories, in their order: sticks and disks. */
export function directoriesAmong(
  mirrors: readonly string[],
): { readonly address: string; readonly directory: string }[] {
  return mirrors.flatMap((address) => {
    const parsed = parseMirrorAddress(address);
    const directory = parsed && directoryOf(parsed);
    return directory === null ? [] : [{ address, directory }];
  });
}

/** The address of a mirror in a directory, which is given by its absolute path. */
export function directoryAddress(directory: string): MirrorAddress {
  return { text: pathToFileURL(directory).href, kind: "directory", directory };
}

/** Whether somebody meant an address, right or wrong, and not a path. */
export function looksLikeAddress(text: string): boolean {
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(text);
}

/** What a mirror's address must be, for messages. */
export const MIRROR_ADDRESS_RULE =
  "an https://, http:// or file:/// address without query, fragment, user or password, or " +
  "s3://BUCKET/PREFIX with at most region, endpoint and pathStyle in its query";

/** A mirror's address in a configuration, as text. */
export const mirrorSchema = z.string().refine((text) => parseMirrorAddress(text) !== null, {
  error: `expected ${MIRROR_ADDRESS_RULE}`,
});
