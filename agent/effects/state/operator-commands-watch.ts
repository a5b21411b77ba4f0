import { watch, type FSWatcher } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { OperatorCommandsWatch } from "../../core/ports.ts";
import { CONFIRMATION_FILE } from "./confirmation-file.ts";
import { HOLD_FILE } from "./hold-file.ts";

/** The files of the state directory that hold what people decided about this host. */
const COMMAND_FILES: readonly string[] = [HOLD_FILE, CONFIRMATION_FILE];

/** Time between two looks if the kernel reports nothing: no inotify, or no watch left. */
const LOOK_MS = 15_000;

interface Options {
  readonly lookEveryMs?: number;
  /** Node's `fs.watch`. */
  readonly watchDirectory?: typeof watch;
}

/**
 * Notices when an operator holds, unholds or confirms. Only users who may write to the state
 * directory can do that; the agent listens to nothing else.
 */
export class DirectoryCommandsWatch implements OperatorCommandsWatch {
  readonly #directory: string;
  readonly #lookEveryMs: number;
  readonly #watchDirectory: typeof watch;
  #seen = "";

  constructor(
    stateDirectory: string,
    { lookEveryMs = LOOK_MS, watchDirectory = watch }: Options = {},
  ) {
    this.#directory = stateDirectory;
    this.#lookEveryMs = lookEveryMs;
    this.#watchDirectory = watchDirectory;
  }

  /** Marks the present commands as known. Later ones are news. */
  async look(): Promise<void> {
    this.#seen = await this.#found();
  }

  /** Waits for news and gives true; gives false once `signal` is aborted. */
  async untilNews(signal: AbortSignal): Promise<boolean> {
    let heard = (): void => undefined;
    // The watch begins before the first look, so that nothing is missed in between.
    const watcher = this.#listen(() => {
      heard();
    });
    try {
      while (!signal.aborted) {
        const news = new AbortController();
        heard = () => {
          news.abort();
        };
        if ((await this.#found()) !== this.#seen) return true;
        const either = AbortSignal.any([signal, news.signal]);
        await sleep(this.#lookEveryMs, undefined, { signal: either }).catch(() => undefined);
      }
      return false;
    } finally {
      watcher?.close();
    }
  }

  /** Null if the directory cannot be watched; then it is only looked at from time to time. */
  #listen(heard: () => void): FSWatcher | null {
    try {
      return this.#watchDirectory(this.#directory, (_, name) => {
        if (name === null || COMMAND_FILES.includes(name)) heard();
      }).on("error", () => undefined);
    } catch {
      return null;
    }
  }

  async #found(): Promise<string> {
    const files = COMMAND_FILES.map((name) =>
      stat(join(this.#directory, name)).then(
        ({ ino, size, mtimeMs }) => `${ino}:${size}:${mtimeMs}`,
        () => "none",
      ),
    );
    return (await Promise.all(files)).join(" ");
  }
}
