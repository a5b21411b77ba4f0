import type { Stats } from "node:fs";
import { lstat, stat } from "node:fs/promises";
import { PullError, type ErrorCode } from "../../core/errors.ts";

/** What is expected of a directory whose contents this user alone should decide. */
export interface PrivateDirectory {
  /** Code of the error that is thrown if others could change what is in it. */
  readonly code: ErrorCode;
  /** What a person has to do then, by the user ID that it belongs to; the end of the message. */
  readonly advice?: (owner: number) => string;
  /** It may be a link to a directory. Refused if absent. */
  readonly followLink?: boolean;
  /**
   * Others may write to it if its sticky bit keeps them from touching our files (inode(7)), such as
   * to the root of a mounted file system. Refused if absent.
   */
  readonly shared?: boolean;
}

/**
 * Throws `code` unless a directory belongs to this user and no others write to it. Throws the
 * operating system's errors, also for one that does not exist.
 */
export async function expectPrivate(
  directory: string,
  { code, advice, followLink = false, shared = false }: PrivateDirectory,
): Promise<void> {
  const found = await (followLink ? stat(directory) : lstat(directory));
  const user = process.geteuid?.() ?? 0;
  const writable = (found.mode & 0o022) !== 0;
  const sticky = shared && (found.mode & 0o1000) !== 0;
  if (found.isDirectory() && found.uid === user && (!writable || sticky)) return;
  throw new PullError(
    code,
    `${directory}: expected a directory of user ${user} that no others write to, found ` +
      describe(found) +
      (advice === undefined ? "" : `; ${advice(found.uid)}`),
  );
}

function describe(found: Stats): string {
  if (found.isSymbolicLink()) return "a symbolic link";
  if (!found.isDirectory()) return "something else";
  return `mode ${(found.mode & 0o7777).toString(8)} of user ${found.uid}`;
}
