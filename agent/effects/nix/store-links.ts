import { realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { STORE_DIRECTORY, STORE_PATH_NAME } from "../../core/formats/store-path.ts";
import { ifMissing, readLinkIfExists } from "../files/missing-file.ts";

/** Profile → generation → store path: Nix makes no longer chains of links. */
const MAX_LINKS = 8;

/**
 * The store path at the end of a chain of links, or null if it ends elsewhere or nowhere. `root` is
 * the directory of a chroot store. Throws the operating system's errors.
 */
export async function storePathBehind(path: string, root: string | null): Promise<string | null> {
  let at = path;
  for (let links = 0; links < MAX_LINKS; links++) {
    if (isStorePath(at)) return at;
    const inRoot = root !== null && at.startsWith(`${root}/`) ? at.slice(root.length) : at;
    if (isStorePath(inRoot)) return inRoot;
    const target = await readLinkIfExists(at);
    if (target === null) return null;
    const parent = dirname(at);
    at = target.startsWith("/") ? target : join(await ifMissing(realpath(parent), parent), target);
  }
  return null;
}

/** The number in `PROFILE-NUMBER-link`, the name of a generation's link; null if it is none. */
export function generationNumber(link: string | null, profile: string): number | null {
  if (link === null) return null;
  const prefix = `${basename(profile)}-`;
  const name = basename(link);
  const digits = name.startsWith(prefix) ? /^(\d+)-link$/.exec(name.slice(prefix.length)) : null;
  return digits ? Number(digits[1]) : null;
}

function isStorePath(path: string): boolean {
  const prefix = `${STORE_DIRECTORY}/`;
  return path.startsWith(prefix) && STORE_PATH_NAME.test(path.slice(prefix.length));
}
