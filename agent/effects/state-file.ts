import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { mergeMemories, trustMemoriesSchema, type TrustMemories } from "../core/acceptance.ts";
import { PullError } from "../core/errors.ts";
import { EMPTY_RECORD, recordSchema, type AgentRecord } from "../core/machine.ts";
import type { Log } from "../core/ports.ts";
import { readChecked, writeChecked } from "./checked-file.ts";
import type { History } from "./history.ts";

/**
 * The agent's record on disk. The highest accepted sequence is kept three times (in
 * the record, in a file of its own and in the history), so that no single loss lets a
 * mirror replay an old release. A copy of the record lies outside of the directory: what
 * is lost in the middle of an activation would else make the unproven system look like
 * the one to go back to.
 */
export class StateFile {
  readonly #recordPath: string;
  readonly #trustPath: string;
  readonly #directory: string;
  readonly #copyDirectory: string;
  readonly #copyPath: string;
  readonly #history: History;
  readonly #log: Log;
  #trustOnDisk: TrustMemories = [];

  constructor(paths: { state: string; runtime: string }, history: History, log: Log) {
    const directory = paths.state;
    this.#directory = directory;
    this.#copyDirectory = paths.runtime;
    this.#copyPath = join(paths.runtime, "state.json");
    this.#recordPath = join(directory, "state.json");
    this.#trustPath = join(directory, "trust.json");
    this.#history = history;
    this.#log = log;
  }

  /** Makes the state directory, readable by its owner alone. */
  async prepare(): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    await chmod(this.#directory, 0o700);
  }

  /**
   * Reads the record. What is damaged or missing is put together again from the other
   * copies with an alarm; when nothing is left of a host that had a history, throws
   * STATE_CORRUPT or STATE_LOST unless `acceptLoss`.
   */
  async load({ acceptLoss = false } = {}): Promise<AgentRecord> {
    const [record, trust] = await Promise.all([
      readChecked(this.#recordPath, recordSchema),
      readChecked(this.#trustPath, trustMemoriesSchema),
    ]);
    for (const part of [record, trust]) {
      if (part.kind === "damaged") this.#log.error(`state: ${part.why}`, { code: "STATE_CORRUPT" });
    }
    this.#trustOnDisk = trust.kind === "read" ? trust.value : [];
    if (record.kind === "read") {
      return {
        ...record.value,
        trust: mergeMemories([...record.value.trust, ...this.#trustOnDisk]),
      };
    }
    const copy = await readChecked(this.#copyPath, recordSchema);
    if (copy.kind === "read") {
      this.#log.error(`state: the record was lost; its copy in ${this.#copyDirectory} is used`, {
        code: record.kind === "missing" ? "STATE_LOST" : "STATE_CORRUPT",
      });
      return {
        ...copy.value,
        trust: mergeMemories([...copy.value.trust, ...this.#trustOnDisk]),
      };
    }
    if (record.kind === "missing" && trust.kind === "missing" && !(await this.#history.exists())) {
      return EMPTY_RECORD;
    }
    const remembered = mergeMemories([
      ...this.#trustOnDisk,
      ...(await this.#history.read()).flatMap((entry) => entry.trust ?? []),
    ]);
    if (remembered.length > 0 || acceptLoss) {
      this.#log.error("state: the record was lost; it starts anew with what is remembered", {
        code: record.kind === "missing" ? "STATE_LOST" : "STATE_CORRUPT",
        remembered,
      });
      return { ...EMPTY_RECORD, trust: remembered };
    }
    throw new PullError(
      record.kind === "damaged" ? "STATE_CORRUPT" : "STATE_LOST",
      `nothing readable is left in ${this.#directory} of the releases this host accepted, so an ` +
        "old one could not be told from a new one; `nixos-pull apply --accept-state-loss` starts anew",
    );
  }

  /** Writes the record, durably, before whatever it announces is done. */
  async save(record: AgentRecord): Promise<void> {
    if (JSON.stringify(record.trust) !== JSON.stringify(this.#trustOnDisk)) {
      await writeChecked(this.#trustPath, record.trust);
      this.#trustOnDisk = record.trust;
    }
    await this.#saveCopy(record);
    await writeChecked(this.#recordPath, record);
  }

  /** The copy comes first, so that it is never behind. Without it the record still counts. */
  async #saveCopy(record: AgentRecord): Promise<void> {
    try {
      await mkdir(this.#copyDirectory, { recursive: true, mode: 0o700 });
      await writeChecked(this.#copyPath, record);
    } catch (error) {
      this.#log.warn(`state: the record has no copy: ${(error as Error).message}`);
    }
  }
}
