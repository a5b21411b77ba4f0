import { readdir, rm, rmdir } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  CACHE_INFO,
  CACHE_INFO_MEMBER,
  INDEX_MEMBER,
  type NarMember,
} from "../../core/formats/archive-index.ts";
import { PullError } from "../../core/errors.ts";
import { narInfoFileName, renderNarInfo, type NarInfo } from "../../core/formats/narinfo.ts";
import { SHA256_HEX } from "../../core/formats/sha256.ts";
import type { Staging, StagingArea } from "../../core/ports.ts";
import { ifMissing } from "../files/missing-file.ts";
import { RootDirectory } from "../files/root-directory.ts";
import { expectPrivate } from "../files/private-directory.ts";
import { inTurns } from "../process/turns.ts";
import {
  PART,
  hashPlain,
  plainSize,
  readPlain,
  removeSmall,
  statOf,
  writeNarFile,
  writeNew,
  writeSmall,
} from "./staged-file.ts";
import { makeDirectory } from "../files/make-directory.ts";

/** The directory of the setting `paths.staging`, with a directory for each archive. */
export function stagingIn(parent: string): StagingArea {
  return {
    open: (archiveSha256) => new StagingDirectory(parent, archiveSha256),
    remove: () => removeStaging(parent),
  };
}

/**
 * Staging as a directory of files. Only files that the signed index names are ever
 * written, under names derived from their hashes.
 */
export class StagingDirectory implements Staging {
  readonly directory: string;
  readonly #parent: string;
  /** Members whose hash was seen to be right by this object. */
  readonly #complete = new Set<string>();

  constructor(parent: string, archiveSha256: string) {
    this.#parent = parent;
    this.directory = join(parent, archiveSha256);
  }

  async prepare(): Promise<void> {
    await makeDirectory(this.#parent, 0o700);
    await expectPrivate(this.#parent, { code: "STAGING_UNSAFE", shared: true });
    await removeArchives(this.#parent, basename(this.directory));
    await this.#removeForeign();
    // Somebody else's link or directory in our place would lead the writes elsewhere.
    for (const directory of [this.directory, join(this.directory, "nar")]) {
      const found = await statOf(directory);
      if (found && !found.isDirectory()) await rm(directory, { force: true });
      await makeDirectory(directory, 0o700);
      await expectPrivate(directory, { code: "STAGING_UNSAFE" });
    }
    const root = new RootDirectory(this.directory);
    for (const { name } of await root.list("")) if (!OURS.test(name)) await root.removeTree(name);
    for (const { name } of await root.list("nar")) {
      if (!OUR_NAR.test(name)) await root.removeTree(`nar/${name}`);
    }
  }

  /** Removes what another user made in this archive's place, where nobody could put it back. */
  async #removeForeign(): Promise<void> {
    const parent = await statOf(this.#parent);
    const found = await statOf(this.directory);
    if (!found || found.uid === process.geteuid?.()) return;
    if (((parent?.mode ?? 0o777) & 0o022) !== 0) return;
    await new RootDirectory(this.#parent).removeTree(basename(this.directory));
  }

  async readIndex(): Promise<Buffer | null> {
    return readPlain(join(this.directory, INDEX_MEMBER));
  }

  async writeIndex(compressed: Uint8Array): Promise<void> {
    await writeNew(join(this.directory, INDEX_MEMBER), compressed);
  }

  async missing(wanted: Iterable<NarMember>): Promise<Map<string, number>> {
    const missing = new Map<string, number>();
    // One look at the directory: on a first pull there are many NARs and no files.
    const there = new Set(await this.#narNames());
    for (const member of wanted) {
      if (this.#complete.has(member.name)) continue;
      const file = basename(member.name);
      const path = join(this.directory, member.name);
      if (there.has(file)) {
        // A power cut may have left anything in it, so only its hash counts.
        const size = await plainSize(path);
        if (size === member.size && (await hashPlain(path)).digest("hex") === member.body.sha256) {
          this.#complete.add(member.name);
          continue;
        }
        await rm(path, { force: true, recursive: true });
      }
      const part = there.has(file + PART) ? await plainSize(path + PART) : null;
      if (there.has(file + PART) && (part === null || part >= member.size)) {
        await rm(path + PART, { force: true, recursive: true });
      }
      missing.set(member.name, part !== null && part < member.size ? part : 0);
    }
    return missing;
  }

  async writeNar(
    { name, body }: NarMember,
    have: number,
    pieces: AsyncIterable<Uint8Array>,
    onBytes: (count: number) => void,
  ): Promise<void> {
    const target = { path: join(this.directory, name), sha256: body.sha256, have };
    const found = await writeNarFile(target, pieces, onBytes);
    if (found !== null) {
      throw new PullError(
        "ARCHIVE_CORRUPT",
        `${name} (${body.storePath}): expected sha256 ${body.sha256}, found ${found}`,
      );
    }
    this.#complete.add(name);
  }

  async writeNarInfos(narInfos: readonly NarInfo[]): Promise<void> {
    await writeNew(join(this.directory, CACHE_INFO_MEMBER), CACHE_INFO);
    await inTurns(narInfos, (info) => {
      writeSmall(join(this.directory, narInfoFileName(info.storePath)), renderNarInfo(info));
    });
  }

  async discard(narInfos: readonly NarInfo[], files: readonly string[]): Promise<void> {
    for (const name of files) this.#complete.delete(name);
    const names = [...files, ...narInfos.map(({ storePath }) => narInfoFileName(storePath))];
    await inTurns(names, (name) => {
      removeSmall(join(this.directory, name));
    });
  }

  async holdsNars(): Promise<boolean> {
    return (await this.#narNames()).length > 0;
  }

  async #narNames(): Promise<string[]> {
    return readdir(join(this.directory, "nar")).catch(() => []);
  }
}

/** What an archive's directory holds: its index, a binary cache, and the work of deltas. */
const OURS = /^(index\.json\.gz|nix-cache-info|[0-9a-z]{32}\.narinfo|nar|deltas)$/;

/** A NAR in it, whole or unfinished. */
const OUR_NAR = /^[0-9a-z]{52}\.nar(\.[a-z0-9]+)?(\.part)?$/;

/**
 * Removes the archives that are staged in a directory, and the directory itself if it is
 * empty then. Files that are not the agent's stay: the setting may name a shared place.
 */
export async function removeStaging(directory: string): Promise<void> {
  await removeArchives(directory, null);
  await rmdir(directory).catch(() => undefined);
}

async function removeArchives(directory: string, except: string | null): Promise<void> {
  const names = await ifMissing(readdir(directory), []);
  for (const name of names) {
    if (name === except || !SHA256_HEX.test(name)) continue;
    // What another user put under such a name could change while it is being removed.
    const found = await statOf(join(directory, name));
    if (!found || found.uid !== process.geteuid?.()) continue;
    await rm(join(directory, name), { recursive: true, force: true });
  }
}
