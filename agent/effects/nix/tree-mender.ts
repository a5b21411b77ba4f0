import { isUtf8 } from "node:buffer";
import type { Stats } from "node:fs";
import { lstat, open, readdir, readlink } from "node:fs/promises";
import { join, relative } from "node:path";
import { encodeBase32 } from "../../core/formats/store-path.ts";
import { Sha256 } from "../../core/formats/sha256.ts";
import { ifMissing } from "../files/missing-file.ts";
import type { StreamOptions } from "../process/subprocess.ts";
import { withNar } from "./nar-dump.ts";
import type { StoreWriter } from "./store-writer.ts";

/** Bytes that are compared at a time. */
const PIECE = 256 * 1024;

/** A tree in the store that is to become like another one. */
export interface TreeMending {
  readonly writer: StoreWriter;
  /** The store's directory, where the links of `nix-store --optimise` lie. */
  readonly store: string;
  /** A directory of the store's own file system, for what is taken out of the tree. */
  readonly aside: string;
  readonly options: Omit<StreamOptions, "input">;
}

/**
 * Makes the tree at a store path like a fresh one beside it. Only what differs is replaced, each
 * file by one rename: programs that run, and files that are open, keep what they had, and at no
 * moment a file is missing that was there and belongs there. Whatever is taken over leaves `fresh`.
 * Gives the names of what was not as it must be, below the path; empty for the path itself. Throws the
 * system's errors, and what `StoreWriter.run` throws.
 */
export async function mendTree(
  fresh: string,
  path: string,
  mending: TreeMending,
): Promise<string[]> {
  const mender = new TreeMender(mending, path);
  await mender.mend(fresh, path);
  return mender.mended;
}

/**
 * Gives a tree the rights and times that Nix gives to what it imports. A name that is no text keeps
 * its own. Throws what `StoreWriter.run` throws.
 */
export async function canonise(tree: string, writer: StoreWriter): Promise<void> {
  const entries = [tree];
  if ((await lstat(tree)).isDirectory()) {
    const below = await readdir(tree, { recursive: true });
    entries.push(...below.map((name) => join(tree, name)));
  }
  const all = (
    await Promise.all(
      entries.map(async (path) => ({ path, stats: await ifMissing(lstat(path), null) })),
    )
  ).filter(({ stats }) => stats !== null);
  const plain = all.filter(({ stats }) => !stats?.isSymbolicLink());
  await writer.makeReadOnly(plain.map(({ path }) => path));
  await writer.resetTimes(all.map(({ path }) => path));
}

class TreeMender {
  readonly #mending: TreeMending;
  readonly #root: string;
  readonly mended: string[] = [];
  #takenOut = 0;

  constructor(mending: TreeMending, root: string) {
    this.#mending = mending;
    this.#root = root;
  }

  async mend(fresh: string, path: string): Promise<void> {
    const wanted = await lstat(fresh);
    const found = await ifMissing(lstat(path), null);
    const { writer } = this.#mending;
    if (found && wanted.isDirectory() && found.isDirectory()) {
      const names = await namesIn(fresh, path);
      if (names) return this.#mendDirectory(fresh, path, names, found);
    }
    if (found && (await isAlike({ path: fresh, stats: wanted }, { path, stats: found }))) return;
    this.mended.push(relative(this.#root, path));
    // A directory cannot be renamed over something else, nor the other way round.
    if (found && (wanted.isDirectory() || found.isDirectory())) await this.#takeOut(path);
    else if (found) await this.#forgetLink(fresh, found);
    await writer.rename(fresh, path);
  }

  async #mendDirectory(
    fresh: string,
    path: string,
    { wanted, found }: { wanted: readonly string[]; found: readonly string[] },
    stats: Stats,
  ): Promise<void> {
    for (const name of found) {
      if (wanted.includes(name)) continue;
      this.mended.push(relative(this.#root, join(path, name)));
      await this.#takeOut(join(path, name));
    }
    for (const name of wanted) await this.mend(join(fresh, name), join(path, name));
    const now = await lstat(path);
    // What was renamed within it has changed its time; Nix's own is 1.
    if (now.mtimeMs !== 1_000 || (stats.mode & 0o222) !== 0) {
      await this.#mending.writer.makeReadOnly([path]);
      await this.#mending.writer.resetTimes([path]);
    }
  }

  async #takeOut(path: string): Promise<void> {
    this.#takenOut += 1;
    await this.#mending.writer.rename(path, join(this.#mending.aside, `out-${this.#takenOut}`));
  }

  /**
   * If Nix made a damaged file one with its like in other paths (`nix-store --optimise`), its link
   * would be put in the good file's place at the next optimisation.
   */
  async #forgetLink(fresh: string, damaged: Stats): Promise<void> {
    if (!damaged.isFile() || damaged.nlink < 2) return;
    const { store, options, writer } = this.#mending;
    const hash = new Sha256();
    await withNar(fresh, options, (nar) => hash.addAll(nar));
    const link = join(store, ".links", encodeBase32(Buffer.from(hash.hex(), "hex")));
    const found = await ifMissing(lstat(link), null);
    if (found?.ino === damaged.ino) await writer.remove(link);
  }
}

/** The names in two directories; null if one cannot be read, or has names that are no text. */
async function namesIn(
  fresh: string,
  path: string,
): Promise<{ wanted: string[]; found: string[] } | null> {
  const wanted = await readdir(fresh, { encoding: "buffer" });
  const found = await readdir(path, { encoding: "buffer" }).catch(() => null);
  if (!found || ![...wanted, ...found].every((name) => isUtf8(name))) return null;
  return { wanted: wanted.map(String), found: found.map(String) };
}

interface Place {
  readonly path: string;
  readonly stats: Stats;
}

/** Whether two things that are no directories are the same to Nix. What cannot be read is not. */
async function isAlike(wanted: Place, found: Place): Promise<boolean> {
  const [one, other] = [wanted.stats, found.stats];
  if (one.isDirectory() || other.isDirectory()) return false;
  if (one.isSymbolicLink()) {
    if (!other.isSymbolicLink()) return false;
    const target = await readlink(wanted.path, { encoding: "buffer" });
    const there = await readlink(found.path, { encoding: "buffer" }).catch(() => null);
    return there?.equals(target) ?? false;
  }
  const isSameKind = other.isFile() && one.mode === other.mode && one.size === other.size;
  return isSameKind && hasSameContents(wanted.path, found.path);
}

async function hasSameContents(wanted: string, found: string): Promise<boolean> {
  const fresh = await open(wanted, "r");
  try {
    const there = await open(found, "r");
    try {
      const [one, other] = [Buffer.alloc(PIECE), Buffer.alloc(PIECE)];
      for (;;) {
        const { bytesRead } = await fresh.read(one, 0, PIECE);
        if (bytesRead === 0) return true;
        for (let at = 0; at < bytesRead;) {
          const read = await there.read(other, at, bytesRead - at);
          if (read.bytesRead === 0) return false;
          at += read.bytesRead;
        }
        if (!one.subarray(0, bytesRead).equals(other.subarray(0, bytesRead))) return false;
      }
    } finally {
      await there.close();
    }
  } catch {
    // A bad sector is damage, too. The fresh file was written just now and read before.
    return false;
  } finally {
    await fresh.close();
  }
}
