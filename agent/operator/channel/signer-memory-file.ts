import { access, constants, open } from "node:fs/promises";
import { dirname } from "node:path";
import { PullError, toPullError } from "../../core/errors.ts";
import { withUnknownKeys } from "../../core/formats/compatibility.ts";
import type { NamedRelease, Position } from "../../core/formats/manifest.ts";
import {
  NO_SIGNER_MEMORY,
  channelMemory,
  expectNewest,
  expectSignable,
  knowsChannel,
  knowsRelease,
  mergeMemories,
  rememberInForce,
  rememberSigned,
  reservedPlaces,
  signerMemorySchema,
  type RememberedRelease,
  type SignerMemory,
} from "../../core/release/signer-memory.ts";
import { describeIssues } from "../../core/text/schema-issues.ts";
import { writeDurably } from "../../effects/files/durable-file.ts";
import { ifMissing } from "../../effects/files/missing-file.ts";
import { readRegularFile } from "../../effects/files/regular-file.ts";
import { lockFile, type ProcessLock } from "../../effects/process/process-lock.ts";

/** A memory of 1,000 channels with 200 drafts each has 20 MB; a usual one less than 1 kB. */
const MAX_BYTES = 32 * 1024 * 1024;

/**
 * The memory of what was signed, in files of the signer's own: beside each key, or one in the
 * repository. Without a file nothing is remembered, and nothing is refused.
 */
export class SignerMemoryFile {
  readonly #paths: readonly string[];
  #memory: SignerMemory = NO_SIGNER_MEMORY;
  /** What each file has; without those that do not exist. */
  #texts = new Map<string, string>();

  private constructor(paths: readonly string[]) {
    this.#paths = paths;
  }

  /**
   * Reads the files, which need not exist yet, one beside each key. What one of them knows, all
   * know. Throws STATE_CORRUPT, RELEASE_FORKED if two contradict each other, the system's errors.
   */
  static async open(paths: readonly string[]): Promise<SignerMemoryFile> {
    const opened = new SignerMemoryFile(paths);
    await opened.#read();
    return opened;
  }

  /**
   * Does `work` while no other command signs with one of these files, with what they have now.
   * It has to include the look at what may be signed, the signature, and what is remembered of it:
   * otherwise two commands could sign two releases of one number. Throws PUBLISH_LOCKED if another
   * command takes too long, and what reading throws.
   */
  async whileLocked<T>(work: () => Promise<T>): Promise<T> {
    const locks: ProcessLock[] = [];
    try {
      // In one order, so that two commands with the same keys do not wait for each other.
      const directories = [...new Set(this.#paths.map((path) => dirname(path)))].sort();
      for (const directory of directories) locks.push(await lockDirectory(directory));
      await this.#read();
      return await work();
    } finally {
      for (const lock of locks) await lock.release();
    }
  }

  /** Throws PERMISSION_DENIED or the system's error if the files could not be written. */
  async expectWritable(): Promise<void> {
    for (const path of this.#paths) {
      await access(dirname(path), constants.W_OK).catch((thrown: unknown) => {
        throw cannotWrite(path, thrown);
      });
    }
  }

  /** Says so if there are no files. */
  warnIfNone(onWarning: (message: string) => void): void {
    if (this.#paths.length > 0) return;
    onWarning(
      "nothing remembers what is signed, so that a mirror that was set back is not noticed; give " +
        "--memory FILE",
    );
  }

  /** Says so if there are releases, and none of the files that should know them exists. */
  warnIfNew(onWarning: (message: string) => void): void {
    if (this.#paths.length === 0 || this.#texts.size > 0) return;
    onWarning(
      `${this.#name} does not exist: NOTHING IS REMEMBERED of the releases of this mirror, so ` +
        "that nobody notices if it was set back. It is made now; is --memory right?",
    );
  }

  async #read(): Promise<void> {
    const options = { maxBytes: MAX_BYTES, code: "STATE_CORRUPT" as const, followLink: true };
    let memory = NO_SIGNER_MEMORY;
    const texts = new Map<string, string>();
    for (const path of this.#paths) {
      const bytes = await ifMissing(readRegularFile(path, options), null);
      if (!bytes) continue;
      const names = { one: [...texts.keys()].join(", "), other: path };
      memory = mergeMemories(memory, parseMemory(bytes, path), names);
      texts.set(path, Buffer.from(bytes).toString("utf8"));
    }
    this.#memory = memory;
    this.#texts = texts;
  }

  /** The places of the channel that a new release must not take. */
  reserved(channel: string): Position[] {
    return reservedPlaces(channelMemory(this.#memory, channel));
  }

  /** Whether this very release was signed or seen in force before. */
  knows(channel: string, release: NamedRelease): boolean {
    return knowsRelease(channelMemory(this.#memory, channel), release);
  }

  /** Whether anything of the channel is remembered. */
  knowsChannel(channel: string): boolean {
    return knowsChannel(channelMemory(this.#memory, channel));
  }

  /** Whether the release in force is the newest known. Throws RELEASE_BEHIND, RELEASE_FORKED. */
  expectNewest(channel: string, current: RememberedRelease | null, mirror: string): void {
    const names = { release: mirror, memory: this.#name };
    expectNewest(channelMemory(this.#memory, channel), current, names);
  }

  /** Whether a release may be signed. Throws RELEASE_BEHIND, RELEASE_FORKED. */
  expectSignable(release: RememberedRelease, place: string): void {
    const names = { release: place, memory: this.#name };
    expectSignable(channelMemory(this.#memory, release.manifest.channel), release, names);
  }

  /** Remembers a signature, before anybody can see it. Throws PERMISSION_DENIED, the system's errors. */
  async rememberSigned(release: RememberedRelease): Promise<void> {
    await this.#save(rememberSigned(this.#memory, release));
  }

  /** Remembers that a release is in force. Throws PERMISSION_DENIED, the system's errors. */
  async rememberInForce(release: RememberedRelease): Promise<void> {
    await this.#save(rememberInForce(this.#memory, release));
  }

  get #name(): string {
    return this.#paths.join(", ") || "the memory";
  }

  async #save(memory: SignerMemory): Promise<void> {
    this.#memory = memory;
    if (memory.channels.length === 0) return;
    const text = `${JSON.stringify(memory, null, 2)}\n`;
    for (const path of this.#paths) {
      if (this.#texts.get(path) === text) continue;
      await writeDurably(path, text, 0o644).catch((thrown: unknown) => {
        throw cannotWrite(path, thrown);
      });
      this.#texts.set(path, text);
    }
  }
}

/** How long a command waits for another one, whose signer may wait for a person. */
const LOCK_WAIT_MS = 5 * 60_000;

/**
 * Locks a directory with memories. A file is replaced when it is written, so that a lock on it
 * would be no lock; and a file of the lock's own would lie in a repository.
 */
async function lockDirectory(directory: string): Promise<ProcessLock> {
  const file = await open(directory, "r").catch((thrown: unknown) => {
    throw cannotWrite(directory, thrown);
  });
  const lock = await lockFile(file, "exclusive", LOCK_WAIT_MS);
  if (lock) return lock;
  throw new PullError("PUBLISH_LOCKED", `another command signs with ${directory}; wait for it`);
}

function cannotWrite(path: string, thrown: unknown): PullError {
  const error = toPullError(thrown);
  return new PullError(
    error.code,
    `${path}: expected to write here what was signed (--memory FILE gives another ` +
      `place): ${error.message}`,
    { cause: thrown },
  );
}

function parseMemory(bytes: Uint8Array, path: string): SignerMemory {
  const advice =
    "bring back an earlier copy: without it, a mirror that was set back is not noticed";
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (cause) {
    const message = `${path}: expected what was signed, as JSON, found something else; ${advice}`;
    throw new PullError("STATE_CORRUPT", message, { cause });
  }
  const parsed = withUnknownKeys(signerMemorySchema, "kept").safeParse(json);
  if (parsed.success) return parsed.data;
  throw new PullError("STATE_CORRUPT", `${path}: ${describeIssues(parsed.error, json)}; ${advice}`);
}
