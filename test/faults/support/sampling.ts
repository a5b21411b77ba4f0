import { seeded } from "../../kill/support/seeded.ts";

/**
 * How many faults of one kind are tried, by default few enough for every run of CI. FAULTS is the
 * number by which that is multiplied.
 */
export function samples(few: number): number {
  return Math.round(few * Number(process.env["FAULTS"] ?? 1));
}

/** The seed of this run; FAULTS_SEED repeats an earlier one. */
export const SEED = Number(process.env["FAULTS_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

/** A source of numbers of one file's own, from the seed of the run. */
export function randomFor(file: string): () => number {
  return seeded(Buffer.from(file).reduce((sum, byte) => Math.imul(sum, 31) + byte, SEED));
}

/** One of several things. */
export function pick<T>(random: () => number, things: readonly T[]): T {
  const found = things[Math.floor(random() * things.length)];
  if (found === undefined) throw new Error("expected something to choose from");
  return found;
}

/** Counts what faults came to, for the line that a file of tests ends with. */
export class Tally {
  readonly #counts = new Map<string, number>();

  count(what: string): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1);
  }

  /** All of them in one line. */
  text(): string {
    const all = [...this.#counts].toSorted(([one], [other]) => (one < other ? -1 : 1));
    const sum = all.reduce((total, [, count]) => total + count, 0);
    return `${sum} faults, seed ${SEED}: ${all.map(([what, count]) => `${what} ${count}`).join(", ")}`;
  }
}
