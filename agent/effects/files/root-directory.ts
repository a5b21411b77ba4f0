import { randomBytes } from "node:crypto";
import { constants, unlinkSync, type Dirent, type Stats } from "node:fs";
import {
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  rename,
  rmdir,
  unlink,
  type FileHandle,
} from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { PullError } from "../../core/errors.ts";
import { sanitize } from "../../core/text/sanitize.ts";
import { inTurns } from "../process/turns.ts";
import { syncDirectory } from "./durable-file.ts";
import { hasErrorCode, ifMissing, isNotFound } from "./missing-file.ts";
import { readOpenFile } from "./regular-file.ts";
import { makeDirectory } from "./make-directory.ts";

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR } = constants;

/** More entries than this in one directory are not listed: a stick could have millions. */
const MAX_ENTRIES = 1_000_000;

/** Longest name that messages show, characters. */
const MAX_SHOWN_NAME = 1_000;

/** Trees of this program have far fewer levels. */
const MAX_LEVELS = 64;

/**
 * A directory that somebody else may have prepared: a stick, a mirror, an inbox of reports.
 * Everything below it is reached through this class alone, which
 *
 * - never follows a symbolic link below the root, in any component of a path: each one is
 *   opened by itself with O_NOFOLLOW, relative to the one before (openat(2), by way of
 *   /proc/self/fd, since Node has no openat), so that a link that is put there meanwhile is
 *   not followed either;
 * - takes regular files only, and opens them with O_NONBLOCK, so that a FIFO or a device
 *   never blocks (open(2), fifo(7));
 * - creates files with O_EXCL, and writes in place only to files that have no other name, since a
 *   hard link would lead elsewhere too;
 * - removes and replaces regular files and directories only, by the names that it is given.
 *
 * The root itself was named by the operator, and may be a link. Paths below it are relative,
 * with `/` between names; `..`, empty names and absolute paths are a defect of the caller.
 * What is found instead of a regular file or a directory is UNSAFE_FILE; everything else is
 * the operating system's error.
 */
export class RootDirectory {
  readonly path: string;
  readonly #held: FileHandle | null;

  /** Opens nothing. If `held` is given, that open directory is the root, and `path` its name. */
  constructor(path: string, held: FileHandle | null = null) {
    this.path = path;
    this.#held = held;
  }

  /**
   * Calls `use` with the directory that is at `path` now, and stays the root whatever is mounted
   * or unmounted there meanwhile; with null if there is none. Throws what `use` throws.
   */
  static async holding<T>(
    path: string,
    use: (root: RootDirectory | null) => Promise<T>,
  ): Promise<T> {
    const held = await ifMissing(open(path, O_RDONLY | O_DIRECTORY), null);
    if (held === null) return use(null);
    try {
      return await use(new RootDirectory(path, held));
    } finally {
      await held.close();
    }
  }

  /** Makes the root itself, and what is above it. The operator named it, so links are followed. */
  async makeRoot(): Promise<void> {
    await makeDirectory(this.path);
  }

  /**
   * The place of `relative` for messages. Nothing is checked, so nothing may be opened by it. The
   * name may be somebody else's, so it is shown on one line.
   */
  nameOf(relative: string): string {
    return relative === "" ? this.path : join(this.path, sanitize(relative, MAX_SHOWN_NAME));
  }

  /**
   * The path of a directory below the root, for programs that are given a path. Every
   * component was a real directory at this moment. Throws UNSAFE_FILE, ENOENT.
   */
  async pathOf(relative: string): Promise<string> {
    await this.#inDirectory(namesOf(relative), () => Promise.resolve());
    return join(this.path, relative);
  }

  /**
   * Calls `use` with a directory below the root, which it opens once, as a root of its own; for many
   * files of one directory. Throws UNSAFE_FILE, ENOENT, and what `use` throws.
   */
  within<T>(relative: string, use: (root: RootDirectory) => Promise<T>): Promise<T> {
    return this.#withDirectory(namesOf(relative), (directory) =>
      use(new RootDirectory(join(this.path, relative), directory)),
    );
  }

  /** Opens a regular file for reading. Throws UNSAFE_FILE, ENOENT. The caller closes it. */
  openFile(relative: string): Promise<FileHandle> {
    return this.#openRegular(relative, O_RDONLY);
  }

  /**
   * Opens a regular file that exists, and has no other name, for reading and writing. Throws
   * UNSAFE_FILE, ENOENT.
   */
  async openForUpdate(relative: string): Promise<FileHandle> {
    const file = await this.#openRegular(relative, O_RDWR);
    try {
      const { nlink } = await file.stat();
      if (nlink <= 1) return file;
      throw this.#found(relative, "a file with only this name", `one with ${nlink} names`);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /**
   * Opens a file for a lock, and creates it if it is missing. It may have other names, so in a
   * directory that somebody else prepared nothing is to be written to it. Throws UNSAFE_FILE.
   */
  openLock(relative: string): Promise<FileHandle> {
    return this.#createOr(relative, 0o600, () => this.#openRegular(relative, O_RDWR));
  }

  /** Creates a file for reading and writing; it must not exist (EEXIST). Throws UNSAFE_FILE. */
  createFile(relative: string, mode = 0o644): Promise<FileHandle> {
    return this.#inParent(relative, (place) =>
      open(place, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode),
    );
  }

  /**
   * Opens a regular file for reading and writing, and creates it if it is missing. Throws
   * UNSAFE_FILE, also for a file with other names.
   */
  openOrCreate(relative: string, mode = 0o644): Promise<FileHandle> {
    return this.#createOr(relative, mode, () => this.openForUpdate(relative));
  }

  async #createOr(
    relative: string,
    mode: number,
    openIt: () => Promise<FileHandle>,
  ): Promise<FileHandle> {
    for (let tries = 0; ; tries++) {
      try {
        return await this.createFile(relative, mode);
      } catch (error) {
        if (!hasErrorCode(error, "EEXIST") || tries > 0) throw error;
      }
      try {
        return await openIt();
      } catch (error) {
        // Somebody removed it in between: once more.
        if (!isNotFound(error)) throw error;
      }
    }
  }

  /**
   * Reads a regular file of at most `maxBytes`. Throws UNSAFE_FILE also for a longer file,
   * ENOENT for a missing one.
   */
  async readFile(relative: string, maxBytes: number): Promise<Buffer> {
    const file = await this.openFile(relative);
    try {
      const name = this.nameOf(relative);
      return await readOpenFile(file, { name, maxBytes, code: "UNSAFE_FILE" });
    } finally {
      await file.close();
    }
  }

  /** The same, or null if there is no such file. */
  async readFileIfExists(relative: string, maxBytes: number): Promise<Buffer | null> {
    return ifMissing(this.readFile(relative, maxBytes), null);
  }

  /**
   * Replaces a file as a whole: temporary name, fsync, rename, fsync of the directory. Throws
   * UNSAFE_FILE if something else than a file has that name, and the system's errors.
   */
  async writeFile(relative: string, contents: string | Uint8Array, mode = 0o644): Promise<void> {
    const temporary = `${relative}.tmp-${randomBytes(6).toString("hex")}`;
    // Before anything is written; `placeFile` looks again.
    await this.statFile(relative);
    try {
      const file = await this.createFile(temporary, mode);
      try {
        await file.writeFile(contents);
        await file.sync();
      } finally {
        await file.close();
      }
      await this.placeFile(temporary, relative);
    } catch (error) {
      await this.removeFile(temporary).catch(() => undefined);
      throw error;
    }
    await this.syncParent(relative);
  }

  /** Makes a directory and those above it, below the root. Throws UNSAFE_FILE. */
  async makeDirectory(relative: string, mode = 0o755): Promise<void> {
    const names = namesOf(relative);
    for (let depth = 1; depth <= names.length; depth++) {
      const upTo = names.slice(0, depth);
      await this.#inParent(upTo.join("/"), async (place) => {
        await mkdir(place, { mode }).catch((error: unknown) => {
          if (!hasErrorCode(error, "EEXIST")) throw error;
        });
      });
    }
    await this.pathOf(relative);
  }

  /**
   * Makes a new directory, whose name is `prefix` with six letters and digits added, for this
   * user alone. Gives its name below the root. Throws UNSAFE_FILE.
   */
  async makeWorkDirectory(prefix: string): Promise<string> {
    const made = await this.#inParent(prefix, (place) => mkdtemp(place));
    return [...namesOf(prefix).slice(0, -1), basename(made)].join("/");
  }

  /** The entries of a directory, sorted by name, without following any. Throws UNSAFE_FILE, ENOENT. */
  async list(relative: string): Promise<Dirent[]> {
    return this.#inDirectory(namesOf(relative), async (place) => {
      const entries = await readdir(place, { withFileTypes: true });
      if (entries.length > MAX_ENTRIES) {
        throw unsafe(
          `${this.nameOf(relative)}: expected at most ${MAX_ENTRIES} entries, found ${entries.length}`,
        );
      }
      return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    });
  }

  /** The same, or no entries if there is no such directory. */
  async listIfExists(relative: string): Promise<Dirent[]> {
    return ifMissing(this.list(relative), []);
  }

  /** What is there, of a link itself (lstat(2)), or null. Throws UNSAFE_FILE for a link above it. */
  async stat(relative: string): Promise<Stats | null> {
    try {
      if (relative === "") return await this.#inDirectory([], (place) => lstat(`${place}/.`));
      return await this.#inParent(relative, (place) => lstat(place));
    } catch (error) {
      if (isNotFound(error)) return null;
      throw error;
    }
  }

  /** What is there, if it is a regular file, or null. Throws UNSAFE_FILE if it is something else. */
  async statFile(relative: string): Promise<Stats | null> {
    const found = await this.stat(relative);
    if (found && !found.isFile()) throw this.#found(relative, "a regular file", kindOf(found));
    return found;
  }

  /** Renames a file or directory; what has the new name is replaced. Throws UNSAFE_FILE, ENOENT. */
  async rename(from: string, to: string): Promise<void> {
    await this.#inParent(from, (old) => this.#inParent(to, (place) => rename(old, place)));
  }

  /**
   * Renames a file to its final name, and replaces a regular file there. Something else there is
   * UNSAFE_FILE, and stays: nobody of us made it. The caller syncs the directory.
   */
  async placeFile(from: string, to: string): Promise<void> {
    await this.statFile(to);
    await this.rename(from, to);
  }

  /** Removes a regular file. Gives false, and leaves it, if something else or nothing is there. */
  async removeRegularFile(relative: string): Promise<boolean> {
    if (!(await this.stat(relative))?.isFile()) return false;
    await this.removeFile(relative);
    return true;
  }

  /** Removes a file or a link, not what it leads to; nothing if it is not there. */
  async removeFile(relative: string): Promise<void> {
    await this.#inParent(relative, (place) => unlink(place)).catch(ignoreMissing);
  }

  /** Removes an empty directory; nothing if it is not there. Throws ENOTEMPTY. */
  async removeDirectory(relative: string): Promise<void> {
    await this.#inParent(relative, (place) => rmdir(place)).catch(ignoreMissing);
  }

  /**
   * Removes a tree; nothing if it is not there. A link in it, or in its place, is removed and
   * not followed. Throws UNSAFE_FILE for a tree of more than 64 levels, which nobody of us made.
   */
  async removeTree(relative: string): Promise<void> {
    if (namesOf(relative).length > MAX_LEVELS) {
      throw unsafe(
        `${this.path}: expected at most ${MAX_LEVELS} levels of directories, found more`,
      );
    }
    const found = await this.stat(relative);
    if (!found) return;
    if (!found.isDirectory()) return this.removeFile(relative);
    const entries = await this.list(relative);
    const files = entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name);
    const left = await this.#removeFiles(relative, files);
    const directories = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
    for (const name of [...directories, ...left]) await this.removeTree(`${relative}/${name}`);
    await this.removeDirectory(relative);
  }

  /**
   * Removes files of one directory; gives those that were not removed, by whatever came in their
   * place. The directory is opened once: a publish leaves thousands.
   */
  async #removeFiles(relative: string, files: readonly string[]): Promise<string[]> {
    const left: string[] = [];
    if (files.length === 0) return left;
    await this.#inDirectory(namesOf(relative), (place) =>
      inTurns(files, (name) => {
        try {
          unlinkSync(`${place}/${name}`);
        } catch (error) {
          if (hasErrorCode(error, "EISDIR", "EPERM")) left.push(name);
          else if (!isNotFound(error)) throw error;
        }
      }),
    );
    return left;
  }

  /** Makes the names in the directory that has `relative` last (fsync(2)). */
  async syncParent(relative: string): Promise<void> {
    await this.#inDirectory(namesOf(relative).slice(0, -1), (place) => syncDirectory(place));
  }

  /** Makes the names in a directory last. Throws UNSAFE_FILE, ENOENT. */
  async syncNames(relative: string): Promise<void> {
    await this.#inDirectory(namesOf(relative), (place) => syncDirectory(place));
  }

  async #openRegular(relative: string, flags: number): Promise<FileHandle> {
    return this.#inParent(relative, async (place) => {
      const file = await open(place, flags | O_NOFOLLOW | O_NONBLOCK).catch((error: unknown) => {
        throw this.#refusal(error, relative, "a regular file");
      });
      try {
        const stats = await file.stat();
        if (stats.isFile()) return file;
        throw this.#found(relative, "a regular file", kindOf(stats));
      } catch (error) {
        await file.close();
        throw error;
      }
    });
  }

  /** Calls `use` with a path of the last name, within its real directory. */
  #inParent<T>(relative: string, use: (place: string) => Promise<T>): Promise<T> {
    const names = namesOf(relative);
    const last = names.at(-1);
    if (last === undefined) throw new Error("expected a name below the root");
    return this.#inDirectory(names.slice(0, -1), (place) => use(`${place}/${last}`));
  }

  /** Calls `use` with a path of the directory that stays the same whatever is renamed meanwhile. */
  #inDirectory<T>(names: readonly string[], use: (place: string) => Promise<T>): Promise<T> {
    return this.#withDirectory(names, ({ fd }) => use(`/proc/self/fd/${fd}`));
  }

  async #withDirectory<T>(
    names: readonly string[],
    use: (directory: FileHandle) => Promise<T>,
  ): Promise<T> {
    let opened = this.#held ? null : await open(this.path, O_RDONLY | O_DIRECTORY);
    try {
      for (const [at, name] of names.entries()) {
        const place = `/proc/self/fd/${(opened ?? this.#held)?.fd}/${name}`;
        const next = await open(place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK).catch(
          async (error: unknown) => {
            const above = names.slice(0, at + 1).join("/");
            // ENOTDIR is a link or a file here; a missing name is ENOENT.
            const stats = await lstat(place).catch(() => null);
            if (stats) throw this.#found(above, "a directory", kindOf(stats), error);
            throw error;
          },
        );
        await opened?.close();
        opened = next;
      }
      const directory = opened ?? this.#held;
      if (!directory) throw new Error("no directory is open");
      return await use(directory);
    } finally {
      await opened?.close();
    }
  }

  /** The system's error as a refusal, if it says that something else than a file is there. */
  #refusal(error: unknown, relative: string, expected: string): unknown {
    switch (codeOf(error)) {
      case "ELOOP":
        return this.#found(relative, expected, "a symbolic link", error);
      case "EISDIR":
        return this.#found(relative, expected, "a directory", error);
      case "ENXIO":
        return this.#found(relative, expected, "a FIFO, a socket or a device", error);
      default:
        return error;
    }
  }

  #found(relative: string, expected: string, found: string, cause?: unknown): PullError {
    return unsafe(
      `${this.nameOf(relative)}: expected ${expected}, found ${found}; ` +
        "nothing was followed or changed there: look who put it there, and remove it",
      cause,
    );
  }
}

/** A file of a directory that somebody else may have prepared. */
export interface FileBelow {
  readonly root: RootDirectory;
  /** Relative to the root. */
  readonly name: string;
}

/** The file that an operator named by its path: its directory is the root. */
export function fileNamed(path: string): FileBelow {
  return { root: new RootDirectory(dirname(path)), name: basename(path) };
}

function unsafe(message: string, cause?: unknown): PullError {
  return new PullError("UNSAFE_FILE", message, cause === undefined ? {} : { cause });
}

function namesOf(relative: string): string[] {
  if (relative === "") return [];
  const names = relative.split("/");
  if (names.some((name) => name === "" || name === "." || name === ".." || name.includes("\0"))) {
    throw new Error(`expected names below the root, found ${JSON.stringify(relative)}`);
  }
  return names;
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | null)?.code;
}

function ignoreMissing(error: unknown): void {
  if (!isNotFound(error)) throw error;
}

function kindOf(stats: Stats): string {
  if (stats.isSymbolicLink()) return "a symbolic link";
  if (stats.isDirectory()) return "a directory";
  if (stats.isFIFO()) return "a FIFO";
  if (stats.isSocket()) return "a socket";
  if (stats.isFile()) return "a regular file";
  return "a device";
}
