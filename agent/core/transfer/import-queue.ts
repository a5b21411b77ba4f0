/** A store path on its way in: the file that holds its NAR, and what must be valid before it. */
export interface QueuedPath {
  /** Absolute store path. */
  readonly path: string;
  /** Name of its staged file; two paths of the same contents share one. */
  readonly file: string;
  /** Bytes that the file takes in staging. */
  readonly bytes: number;
  /** Absolute store paths; those that are not in the queue are valid already. */
  readonly references: readonly string[];
}

/**
 * Which paths can be imported: those whose files are here and whose references are
 * valid or come with them. Paths are given in topological order, dependencies first.
 */
export class ImportQueue {
  #waiting: QueuedPath[];
  readonly #here = new Set<string>();
  /** Files to the number of waiting paths that need them. */
  readonly #users = new Map<string, number>();

  constructor(paths: readonly QueuedPath[]) {
    this.#waiting = [...paths];
    for (const { file } of paths) this.#users.set(file, (this.#users.get(file) ?? 0) + 1);
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** A path's NAR comes in another form than was planned. */
  replace(path: string, file: string, bytes: number): void {
    const at = this.#waiting.findIndex((queued) => queued.path === path);
    const queued = this.#waiting[at];
    if (!queued) return;
    this.#users.set(queued.file, (this.#users.get(queued.file) ?? 1) - 1);
    this.#users.set(file, (this.#users.get(file) ?? 0) + 1);
    this.#waiting[at] = { ...queued, file, bytes };
  }

  arrived(file: string): void {
    this.#here.add(file);
  }

  /** Everything that can be imported now, in order: a set that is closed under references. */
  ready(): QueuedPath[] {
    const missing = new Set<string>();
    const ready: QueuedPath[] = [];
    for (const queued of this.#waiting) {
      const { path, file, references } = queued;
      const held = references.some((reference) => reference !== path && missing.has(reference));
      if (held || !this.#here.has(file)) missing.add(path);
      else ready.push(queued);
    }
    return ready;
  }

  /** Takes imported paths out; gives the files that no waiting path needs any more. */
  imported(paths: readonly QueuedPath[]): { file: string; bytes: number }[] {
    const gone = new Set(paths);
    this.#waiting = this.#waiting.filter((queued) => !gone.has(queued));
    return paths.flatMap(({ file, bytes }) => {
      const left = (this.#users.get(file) ?? 1) - 1;
      this.#users.set(file, left);
      return left === 0 ? [{ file, bytes }] : [];
    });
  }
}

/** The paths that no other one in the list refers to: holding them holds the whole list. */
export function topmost(paths: readonly QueuedPath[]): string[] {
  const referred = new Set(
    paths.flatMap(({ path, references }) => references.filter((one) => one !== path)),
  );
  return paths.map(({ path }) => path).filter((path) => !referred.has(path));
}
