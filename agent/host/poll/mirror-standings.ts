import type { PullError } from "../../core/errors.ts";
import type { Mirror } from "../../core/ports.ts";

/**
 * What this run has found about mirrors. One that failed lately is tried after the others: a dead
 * one in front would cost its time limits again for every file. It is never left out, and its next
 * good answer to a poll gives it its place back.
 */
export class MirrorStandings {
  readonly #failed = new Set<string>();

  /** A mirror answered, or failed with `error`. */
  heard(address: string, error: PullError | null): void {
    if (error) this.#failed.add(address);
    else this.#failed.delete(address);
  }

  /** In the given order, but those that failed lately last. */
  order(mirrors: readonly Mirror[]): Mirror[] {
    const failed = (mirror: Mirror): boolean => this.#failed.has(mirror.address);
    return [...mirrors.filter((it) => !failed(it)), ...mirrors.filter(failed)];
  }
}
