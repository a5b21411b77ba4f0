import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import type { FetchProgress, FetchSign, ToldProgress } from "../../core/ports.ts";
import { Pace } from "../../core/transfer/pace.ts";
import { readRegularFile } from "../files/regular-file.ts";

const FILE = "fetch.json";
const MAX_BYTES = 4096;

/** The file is written no more often. */
const EVERY_MS = 2_000;

const toldSchema = z.strictObject({
  process: z.int().positive(),
  at: z.iso.datetime(),
  received: z.int().nonnegative(),
  total: z.int().nonnegative(),
  rate: z.number().nonnegative().nullable(),
});

/**
 * A small file in the runtime directory that says how far a fetch is. It is for people who look
 * meanwhile: nothing is decided by it, it is never flushed, and nobody removes it. Whoever reads it
 * has to know whether the process that wrote it still fetches.
 */
export class FetchSignFile implements FetchSign {
  readonly #path: string;
  readonly #now: () => number;
  readonly #pace = new Pace();
  #next = -Infinity;
  #isWriting = false;

  /** `now` gives steady milliseconds. */
  constructor(runtimeDirectory: string, now: () => number = () => performance.now()) {
    this.#path = join(runtimeDirectory, FILE);
    this.#now = now;
  }

  tell({ received, total }: FetchProgress): void {
    const now = this.#now();
    this.#pace.hear(received, now);
    if (this.#isWriting || now < this.#next) return;
    this.#next = now + EVERY_MS;
    this.#isWriting = true;
    const rate = this.#pace.rate(received, now);
    const told = { process: process.pid, at: new Date().toISOString(), received, total, rate };
    void this.#write(told).finally(() => {
      this.#isWriting = false;
    });
  }

  async read(): Promise<ToldProgress | null> {
    try {
      const options = { code: "STATE_CORRUPT", maxBytes: MAX_BYTES } as const;
      const text = (await readRegularFile(this.#path, options)).toString("utf8");
      const parsed = toldSchema.safeParse(JSON.parse(text));
      return parsed.success ? parsed.data : null;
    } catch {
      return null;
    }
  }

  async #write(told: ToldProgress): Promise<void> {
    const temporary = `${this.#path}.next`;
    try {
      await writeFile(temporary, JSON.stringify(told), { mode: 0o600 });
      await rename(temporary, this.#path);
    } catch {
      // No runtime directory, or no room: people see less, and the fetch goes on.
    }
  }
}
