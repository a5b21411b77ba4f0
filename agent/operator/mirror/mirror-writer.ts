import type { Dirent } from "node:fs";
import { join, relative } from "node:path";
import { PullError, toPullError } from "../../core/errors.ts";
import { STICK_CONTENTS_FILE, type StickContents } from "../../core/formats/stick-contents.ts";
import { TEMPORARY } from "../../effects/files/durable-file.ts";
import { RootDirectory } from "../../effects/files/root-directory.ts";
import type { ProcessLock } from "../../effects/process/process-lock.ts";
import {
  LOCK,
  MirrorReader,
  PUBLISHER,
  archiveFile,
  manifestFile,
  releaseFile,
  releasesDirectory,
  takeLock,
  thinFile,
} from "./mirror-reader.ts";
import { REPORTS_DIRECTORY } from "./stick-reports.ts";

/** Makes the mirror's directory. Throws USAGE if something else is there, and the system's errors. */
async function makeMirror(root: RootDirectory): Promise<void> {
  await root.makeRoot().catch((cause: unknown) => {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== "EEXIST" && code !== "ENOTDIR") throw cause;
    const message = `${root.path}: expected a directory for the mirror, found something else`;
    throw new PullError("USAGE", message, { cause });
  });
}

/** What the name of a publish's working directory begins with. */
const WORK_PREFIX = `${PUBLISHER}/work-`;

/** The names that such directories get (mkdtemp(3)). */
const WORK = /^work-[A-Za-z0-9]{6}$/;

/** Unfinished archives, which a later copy continues. */
export const INCOMING = `${PUBLISHER}/incoming`;

/** What else lies in `.publish`. */
const OURS: ReadonlySet<string> = new Set(["lock", "incoming", "releases", "drafts"]);

/**
 * A mirror directory that is taken for writing. Archives get their place, named by their hash,
 * by rename. The manifest is replaced last. Everything unfinished lies in `.publish`, which no
 * host reads and which the next publish removes.
 */
export class MirrorWriter extends MirrorReader {
  /**
   * A directory of this publish's own, removed at the end. It was just made, for this user alone,
   * so what lies below it may be used by its path.
   */
  readonly work: string;
  /** Tells the operator of what lies in the mirror and is not ours. */
  readonly onWarning: (message: string) => void;
  /** The same directory below the root. */
  readonly #work: string;
  #placed = 0;

  private constructor(
    root: RootDirectory,
    lock: ProcessLock,
    options: { work: string; onWarning: (message: string) => void },
  ) {
    super(root, lock);
    this.#work = options.work;
    this.work = join(root.path, options.work);
    this.onWarning = options.onWarning;
  }

  /**
   * Takes the mirror for writing, and makes its directory if there is none. `onWarning` hears of
   * files that nobody of us made, and that are left. Throws PUBLISH_LOCKED if another publish has
   * it, UNSAFE_FILE if something else lies where our files and directories belong.
   */
  static override async open(
    directory: string,
    onWarning: (message: string) => void = () => undefined,
  ): Promise<MirrorWriter> {
    const root = new RootDirectory(directory);
    await makeMirror(root);
    await root.makeDirectory(PUBLISHER);
    await root.makeDirectory("archives");
    const lock = await takeLock(directory, await root.openLock(LOCK), "exclusive");
    try {
      await removeLeftovers(root, onWarning);
      await removeUnfinished(root);
      // A program that a killed publish started may still write to its old directory, so every
      // publish takes a new name.
      const work = await root.makeWorkDirectory(WORK_PREFIX);
      await root.pathOf(work);
      return new MirrorWriter(root, lock, { work, onWarning });
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /**
   * Removes the working directory and lets others write. What was written stands whether it can be
   * removed or not; the next writer removes the rest.
   */
  override async close(): Promise<void> {
    await this.root.removeTree(this.#work).catch((thrown: unknown) => {
      const { code, message } = toPullError(thrown);
      this.onWarning(
        `${this.work} is not cleaned up: ${code}: ${message}; the next writer does it`,
      );
    });
    await super.close();
  }

  /** Replaces the list of contents, or removes it if it would say nothing. */
  async writeStickContents(list: StickContents): Promise<void> {
    if (Object.keys(list.releases).length > 0) {
      await this.root.writeFile(STICK_CONTENTS_FILE, `${JSON.stringify(list, null, 2)}\n`);
    } else if (await this.root.removeRegularFile(STICK_CONTENTS_FILE)) {
      await this.root.syncParent(STICK_CONTENTS_FILE);
    }
  }

  /** Bytes of the archives that were placed and were not there before. */
  get placedBytes(): number {
    return this.#placed;
  }

  /** Moves a finished, synced archive, which lies below `work`, to its place. */
  async placeArchive(packed: string, sha256: string): Promise<void> {
    const isNew = (await this.root.statFile(archiveFile(sha256))) === null;
    const { size = 0 } = (await this.root.statFile(this.#inWork(packed))) ?? {};
    if (isNew) this.#placed += size;
    await this.root.placeFile(this.#inWork(packed), archiveFile(sha256));
    await this.root.syncParent(archiveFile(sha256));
  }

  /** Puts a whole archive to its place that is in memory. */
  async placeBytes(bytes: Uint8Array, sha256: string): Promise<void> {
    const file = join(this.work, `${sha256}.tar`);
    await this.root.writeFile(this.#inWork(file), bytes);
    await this.placeArchive(file, sha256);
  }

  /**
   * Moves a copied archive, or a part of one, from its name below the root to its place. What was
   * there of the other kind is removed.
   */
  async placeCopied(from: string, sha256: string, kind: "whole" | "part"): Promise<void> {
    const [whole, part] = [archiveFile(sha256), thinFile(sha256)];
    const [file, other] = kind === "whole" ? [whole, part] : [part, whole];
    await this.root.placeFile(from, file);
    await this.root.removeRegularFile(other);
    await this.root.syncParent(file);
  }

  /** The name below the root of a path below `work`. */
  #inWork(path: string): string {
    return `${this.#work}/${relative(this.work, path)}`;
  }

  /** Puts an older release to where hosts read it. Call it before the release that names it. */
  async placeSupported(
    channel: string,
    digest: string,
    envelope: string | Uint8Array,
  ): Promise<void> {
    await this.root.makeDirectory(releasesDirectory(channel));
    await this.root.writeFile(releaseFile(channel, digest), envelope);
  }

  /** Puts the release into force: hosts see it as soon as the file is renamed. */
  async placeManifest(channel: string, envelope: string | Uint8Array): Promise<void> {
    await this.root.makeDirectory(`channels/${channel}`);
    await this.root.writeFile(manifestFile(channel), envelope);
  }
}

/**
 * Removes what killed publishes left in `.publish`: directories with the names that we give, and
 * nothing else.
 */
async function removeLeftovers(
  root: RootDirectory,
  onWarning: (message: string) => void,
): Promise<void> {
  for (const entry of await root.list(PUBLISHER)) {
    const name = `${PUBLISHER}/${entry.name}`;
    if (OURS.has(entry.name)) continue;
    if (WORK.test(entry.name) && entry.isDirectory()) await root.removeTree(name);
    else onWarning(leftAlone(root.nameOf(name)));
  }
}

/**
 * Where `RootDirectory.writeFile` writes in a mirror, and the files that it replaces there: a killed
 * writer leaves their temporary names. The lock says that no other writer is at work.
 */
const WRITTEN = [
  { directory: "", each: false, file: /^stick-contents\.json$/ },
  { directory: "channels", each: true, file: /^manifest\.json$/ },
  { directory: `${PUBLISHER}/releases`, each: true, file: /^\d{1,15}-\d{1,15}\.json$/ },
  { directory: `${PUBLISHER}/drafts`, each: true, file: /^[0-9a-f]{64}\.json$/ },
] as const;

/** Reports are written without the lock: only what is this old is no longer being written. */
const REPORT_AGE_MS = 60 * 60 * 1000;

/** Removes the temporary files of killed writers: regular files with the names that we give. */
async function removeUnfinished(root: RootDirectory): Promise<void> {
  for (const { directory, each, file } of WRITTEN) {
    if (!each) {
      await removeUnfinishedIn(root, directory, file);
      continue;
    }
    for (const entry of await entriesOf(root, directory)) {
      if (!entry.isDirectory()) continue;
      await removeUnfinishedIn(root, `${directory}/${entry.name}`, file);
      if (directory !== "channels") continue;
      await removeUnfinishedIn(root, releasesDirectory(entry.name), /^[0-9a-f]{64}\.json$/);
    }
  }
  const isReport = /^[^.].*\.json$/;
  await removeUnfinishedIn(root, REPORTS_DIRECTORY, isReport, Date.now() - REPORT_AGE_MS);
}

/** The entries of a directory; none if something else is in its place, of which its users tell. */
async function entriesOf(root: RootDirectory, directory: string): Promise<Dirent[]> {
  return root.listIfExists(directory).catch((error: unknown) => {
    if (error instanceof PullError && error.code === "UNSAFE_FILE") return [];
    throw error;
  });
}

async function removeUnfinishedIn(
  root: RootDirectory,
  directory: string,
  file: RegExp,
  before = Number.POSITIVE_INFINITY,
): Promise<void> {
  for (const { name } of await entriesOf(root, directory)) {
    if (!TEMPORARY.test(name) || !file.test(name.replace(TEMPORARY, ""))) continue;
    const path = directory === "" ? name : `${directory}/${name}`;
    const found = await root.stat(path);
    if (found && found.mtimeMs < before) await root.removeRegularFile(path);
  }
}

/** The message about something in a mirror that nobody of us made. */
export function leftAlone(path: string): string {
  return `${path} is not of nixos-pull, and is left as it is`;
}
