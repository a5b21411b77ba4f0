import { ImportQueue, type QueuedPath } from "../../core/transfer/import-queue.ts";

/** So many imports go into one budget: fewer bytes are not worth a process of their own. */
const BATCHES_PER_BUDGET = 4;

export interface ImportStreamOptions {
  /** In topological order. */
  readonly paths: readonly QueuedPath[];
  /** Bytes that staged files may take together; one larger file may lie there alone. */
  readonly budget: number;
  /** Brings these paths into the store. */
  readonly importPaths: (paths: readonly QueuedPath[]) => Promise<void>;
  /** Removes what was staged for them. */
  readonly discard: (
    paths: readonly QueuedPath[],
    files: readonly { file: string }[],
  ) => Promise<void>;
  /** Hears at once of an import that failed, so that the download can stop. */
  readonly onFailure: (error: unknown) => void;
}

/**
 * Imports what has arrived while more is on its way, one import at a time, and makes the
 * download wait while staging is full.
 */
export class ImportStream {
  readonly #queue: ImportQueue;
  readonly #options: ImportStreamOptions;
  /** Bytes of the files that are reserved for, staged, or being imported. */
  #staged = 0;
  /** Bytes that arrived since the last import began. */
  #fresh = 0;
  #running: Promise<void> | null = null;
  #failed: { error: unknown } | null = null;
  /** Paths that the store has now. */
  imported = 0;

  constructor(options: ImportStreamOptions) {
    this.#options = options;
    this.#queue = new ImportQueue(options.paths);
  }

  /** How many bytes one request should bring: a part of the budget, so that both sides keep busy. */
  get batchBytes(): number {
    return Math.ceil(this.#options.budget / BATCHES_PER_BUDGET);
  }

  /** Whether so many bytes may be staged now. */
  hasRoom(bytes: number): boolean {
    return this.#staged === 0 || this.#staged + bytes <= this.#options.budget;
  }

  /** Waits until so many bytes may be staged, and takes the room. Throws what an import threw. */
  async reserve(bytes: number): Promise<void> {
    while (!this.hasRoom(bytes)) {
      if (!(await this.#proceed())) break;
    }
    this.#rethrow();
    this.#staged += bytes;
  }

  /** Gives back room that was taken and is not needed. */
  cancel(bytes: number): void {
    this.#staged -= bytes;
  }

  /** A path's NAR comes in another form than was planned. */
  replace(path: string, file: string, bytes: number): void {
    this.#queue.replace(path, file, bytes);
  }

  /** A file is whole; `reserve` was called for it. Starts an import if that is worth it. */
  arrived(file: string, bytes: number): void {
    this.#queue.arrived(file);
    this.#fresh += bytes;
    if (!this.#running && this.#fresh >= this.batchBytes) this.#start();
  }

  /** Imports all that is left. Throws what an import threw. */
  async finish(): Promise<void> {
    while (await this.#proceed());
    this.#rethrow();
    if (!this.#queue.isEmpty) throw new Error("paths are left that were never staged");
  }

  /** Waits for the import under way, however it ends; gives the error of one that failed. */
  async settle(): Promise<unknown> {
    await this.#running;
    return this.#failed?.error;
  }

  /** Waits for the import under way or a new one; false if nothing can be imported now. */
  async #proceed(): Promise<boolean> {
    this.#rethrow();
    if (!this.#running) this.#start();
    if (!this.#running) return false;
    await this.#running;
    return true;
  }

  #start(): void {
    const ready = this.#queue.ready();
    if (ready.length === 0 || this.#failed) return;
    this.#fresh = 0;
    this.#running = this.#import(ready)
      .catch((error: unknown) => {
        this.#failed = { error };
        this.#options.onFailure(error);
      })
      .finally(() => {
        this.#running = null;
      });
  }

  async #import(paths: readonly QueuedPath[]): Promise<void> {
    await this.#options.importPaths(paths);
    this.imported += paths.length;
    const files = this.#queue.imported(paths);
    await this.#options.discard(paths, files);
    for (const { bytes } of files) this.#staged -= bytes;
  }

  #rethrow(): void {
    if (this.#failed) throw this.#failed.error;
  }
}
