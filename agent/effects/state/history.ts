import { constants, lstat, rename, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import { withUnknownKeys } from "../../core/formats/compatibility.ts";
import { mergeMemories } from "../../core/release/acceptance.ts";
import type { HistoryStore } from "../../core/ports.ts";
import { historyEntrySchema, type HistoryEntry } from "../../core/update/history-entry.ts";
import { setAside, syncDirectory } from "../files/durable-file.ts";
import { ifMissing, isNotFound, isUnreadable } from "../files/missing-file.ts";
import { openRegularFile } from "../files/regular-file.ts";

const lineSchema = withUnknownKeys(historyEntrySchema, "kept");

const FILE = "history.jsonl";
const OLDER = "history.older.jsonl";

/** At this size, the file is renamed to the older one, which it replaces. */
const MAX_BYTES = 1024 * 1024;

/** Bytes read at a time from the end: a few hundred entries. */
const BLOCK_BYTES = 64 * 1024;

/** Read at most this much, even if something else let the file grow. */
const MAX_READ_BYTES = 2 * MAX_BYTES;

/** The append-only list of what happened, for people and for recovery. */
export class History implements HistoryStore {
  readonly #directory: string;

  constructor(stateDirectory: string) {
    this.#directory = stateDirectory;
  }

  /** Adds an entry, durably. What cannot be read or written in the file's place is renamed first. */
  async append(entry: HistoryEntry): Promise<void> {
    const path = join(this.#directory, FILE);
    try {
      await this.#append(path, entry);
    } catch (error) {
      if (!(error instanceof PullError) && !isUnreadable(error)) throw error;
      await setAside(path);
      await this.#append(path, entry);
    }
  }

  async #append(path: string, entry: HistoryEntry): Promise<void> {
    const file = await openHistory(path, "append");
    let before: number;
    let size: number;
    try {
      before = (await file.stat()).size;
      // If a power cut left a line without its end, this entry begins a new line.
      const last = Buffer.alloc(1);
      if (before > 0) await file.read(last, 0, 1, before - 1);
      const start = before > 0 && last.toString() !== "\n" ? "\n" : "";
      await file.appendFile(`${start}${JSON.stringify(entry)}\n`);
      await file.sync();
      size = (await file.stat()).size;
    } finally {
      await file.close();
    }
    if (before === 0) await syncDirectory(this.#directory);
    if (size > MAX_BYTES) await this.#rotate(path);
  }

  /** Begins a new file, with what must not be lost with the oldest one. */
  async #rotate(path: string): Promise<void> {
    const entries = await this.read();
    const trust = mergeMemories(entries.flatMap((entry) => entry.trust ?? []));
    await rename(path, join(this.#directory, OLDER));
    await syncDirectory(this.#directory);
    const { at, state } = entries.at(-1) ?? { at: new Date().toISOString(), state: "Idle" };
    for (const memory of trust) {
      await this.append({ at, event: "HistoryRotated", state, trust: memory });
    }
  }

  /** All entries, oldest first, without lines that a power cut tore. */
  async read(): Promise<HistoryEntry[]> {
    const texts = await Promise.all(
      [OLDER, FILE].map((name) => readOrNothing(join(this.#directory, name))),
    );
    return texts
      .join("\n")
      .split("\n")
      .flatMap((line) => entryIn(line) ?? []);
  }

  /** The newest entry of an event, or null. Reads from the end, and only as much as is needed. */
  async findLast(event: string): Promise<HistoryEntry | null> {
    for (const name of [FILE, OLDER]) {
      for await (const line of linesBackwards(join(this.#directory, name))) {
        // Parsing is slow, and most lines do not have the event's name at all.
        const entry = line.includes(JSON.stringify(event)) ? entryIn(line) : null;
        if (entry?.event === event) return entry;
      }
    }
    return null;
  }

  /** The highest number of a write of the record that an entry names; 0 if none does. */
  async lastWrite(): Promise<number> {
    for (const name of [FILE, OLDER]) {
      for await (const line of linesBackwards(join(this.#directory, name))) {
        const writes = line.includes('"writes"') ? entryIn(line)?.writes : undefined;
        if (writes !== undefined) return writes;
      }
    }
    return 0;
  }

  /** The entries, newest first. Reads from the end, and only as much as is taken. */
  async *newestFirst(): AsyncGenerator<HistoryEntry> {
    for (const name of [FILE, OLDER]) {
      for await (const line of linesBackwards(join(this.#directory, name))) {
        const entry = entryIn(line);
        if (entry) yield entry;
      }
    }
  }

  /** Whether there is a file, even an empty one. */
  async exists(): Promise<boolean> {
    return (await this.#sizes()).some((size) => size !== null);
  }

  /** Whether nothing was ever written, or all of it was lost. */
  async isEmpty(): Promise<boolean> {
    return (await this.#sizes()).every((size) => (size ?? 0) === 0);
  }

  /** Sizes of both files; null for one that is not there. */
  async #sizes(): Promise<(number | null)[]> {
    return Promise.all(
      [OLDER, FILE].map((name) =>
        ifMissing(
          lstat(join(this.#directory, name)).then(({ size }) => size),
          null,
        ),
      ),
    );
  }
}

/** The entry of a line; null if a power cut tore it. */
function entryIn(line: string): HistoryEntry | null {
  try {
    const parsed = lineSchema.safeParse(JSON.parse(line));
    return parsed.success ? parsed.data : null;
  } catch {
    return null;
  }
}

/** Opens a file of the history and nothing else: a FIFO would be waited for. */
async function openHistory(path: string, how: "read" | "append"): Promise<FileHandle> {
  const { O_RDONLY, O_RDWR, O_APPEND, O_CREAT } = constants;
  const flags = how === "read" ? O_RDONLY : O_RDWR | O_APPEND | O_CREAT;
  return openRegularFile(path, { code: "STATE_CORRUPT", flags, mode: 0o600 });
}

/** A file's text; nothing of one that is missing or cannot be read. */
async function readOrNothing(path: string): Promise<string> {
  const lines: string[] = [];
  for await (const line of linesBackwards(path)) lines.push(line);
  return lines.reverse().join("\n");
}

/** The lines of a file, last first, as far as they can be read; none if there is no file. */
async function* linesBackwards(path: string): AsyncGenerator<string> {
  try {
    yield* readBackwards(path);
  } catch (error) {
    if (!isNotFound(error) && !(error instanceof PullError) && !isUnreadable(error)) throw error;
  }
}

async function* readBackwards(path: string): AsyncGenerator<string> {
  const file = await openHistory(path, "read");
  try {
    const { size } = await file.stat();
    const first = Math.max(0, size - MAX_READ_BYTES);
    /** The end of a line whose beginning is not read yet. As bytes: a block may split a character. */
    let rest = Buffer.alloc(0);
    for (let to = size; to > first;) {
      const from = Math.max(first, to - BLOCK_BYTES);
      const block = Buffer.alloc(to - from);
      const { bytesRead } = await file.read(block, 0, block.length, from);
      const bytes = Buffer.concat([block.subarray(0, bytesRead), rest]);
      let end = bytes.length;
      for (
        let at = bytes.lastIndexOf(NEWLINE);
        at >= 0;
        at = at > 0 ? bytes.lastIndexOf(NEWLINE, at - 1) : -1
      ) {
        yield bytes.toString("utf8", at + 1, end);
        end = at;
      }
      rest = Buffer.from(bytes.subarray(0, end));
      to = from;
    }
    yield rest.toString("utf8");
  } finally {
    await file.close();
  }
}

const NEWLINE = 0x0a;
