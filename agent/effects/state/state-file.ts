import { chmod, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as z from "zod";
import {
  mergeMemories,
  trustMemoriesSchema,
  type TrustMemories,
} from "../../core/release/acceptance.ts";
import { PullError, toPullError, type ErrorCode } from "../../core/errors.ts";
import { readRecord, type ReadRecord } from "../../core/update/read-record.ts";
import { EMPTY_RECORD, type AgentRecord, type SavedRecord } from "../../core/update/record.ts";
import type { Log, Recollection, StateStore } from "../../core/ports.ts";
import { readChecked, writeChecked, type CheckedRead } from "../files/checked-file.ts";
import { TEMPORARY } from "../files/durable-file.ts";
import { ifMissing } from "../files/missing-file.ts";
import { expectPrivate, type PrivateDirectory } from "../files/private-directory.ts";
import type { History } from "./history.ts";
import { makeDirectory } from "../files/make-directory.ts";

/** What the record is kept with. */
export interface StateFileTools {
  readonly history: History;
  readonly log: Log;
  /** This machine's hashed identity; null if it has none. */
  readonly machineId: () => Promise<string | null>;
}

/**
 * The agent's record on disk. The highest accepted sequence is kept in the record, in a file of its
 * own, in the history and, if the settings name a place, once more outside of the state directory,
 * so that no single loss lets a mirror replay an old release. A copy of the record lies outside of
 * the directory. Without it, a loss in the middle of an activation would make the unproven system
 * look like the one to go back to.
 */
export class StateFile implements StateStore {
  readonly #recordPath: string;
  readonly #trustPaths: readonly string[];
  readonly #directory: string;
  readonly #copyDirectory: string;
  readonly #copyPath: string;
  readonly #history: History;
  readonly #log: Log;
  readonly #machineId: () => Promise<string | null>;
  /** How often the record was written, as far as its files and the history tell. */
  #writes = 0;
  /** The memories that `recall` found in each of their files. */
  #trustOnDisk: (TrustMemories | null)[] = [];
  #alarms: readonly PullError[] = [];
  /** What `recall` read; its state may stand for another version's. */
  #read: ReadRecord | null = null;
  /** What is wrong with the copy of a record that is right itself. */
  #copyAlarm: PullError | null = null;

  constructor(
    paths: { state: string; runtime: string; memories?: string },
    { history, log, machineId }: StateFileTools,
  ) {
    const directory = paths.state;
    this.#directory = directory;
    this.#copyDirectory = paths.runtime;
    this.#copyPath = join(paths.runtime, "state.json");
    this.#recordPath = join(directory, "state.json");
    this.#trustPaths = [
      join(directory, "trust.json"),
      ...(paths.memories === undefined ? [] : [paths.memories]),
    ];
    this.#history = history;
    this.#log = log;
    this.#machineId = machineId;
  }

  /**
   * Makes the state directory, readable by its owner alone. Throws STATE_UNSAFE if others could
   * have changed what is in it or in the directory of the copy: the agent does as root what its
   * state says.
   */
  async prepare(): Promise<void> {
    await makeDirectory(this.#directory, 0o700);
    await expectPrivate(this.#directory, unsafeIf(this.#directory));
    await chmod(this.#directory, 0o700);
    await ifMissing(expectPrivate(this.#copyDirectory, unsafeIf(this.#copyDirectory)), null);
  }

  /** Removes unfinished files of agents that were killed. The caller holds the update lock. */
  async removeUnfinished(): Promise<void> {
    for (const directory of [this.#directory, this.#copyDirectory]) {
      const names = await ifMissing(readdir(directory), []);
      for (const name of names.filter((it) => TEMPORARY.test(it))) {
        await rm(join(directory, name), { force: true });
      }
    }
  }

  /**
   * Reads the record. If something is damaged or missing, it is rebuilt from the other copies.
   * Throws only the operating system's errors.
   */
  async recall(): Promise<Recollection> {
    const machineId = await this.#machineId();
    const [record, copy, ...trust] = await Promise.all([
      readRecordFile(this.#recordPath, machineId),
      readRecordFile(this.#copyPath, machineId),
      ...this.#trustPaths.map((path) => readChecked(path, trustMemoriesSchema)),
    ]);
    this.#trustOnDisk = trust.map((part) => (part.kind === "read" ? part.value : null));
    this.#alarms = [record, ...trust].flatMap((part) =>
      part.kind === "damaged" ? [new PullError("STATE_CORRUPT", `state: ${part.why}`)] : [],
    );
    const known = this.#trustOnDisk.flatMap((memories) => memories ?? []);
    this.#copyAlarm = null;
    this.#writes = Math.max(writesOf(record), writesOf(copy), await this.#history.lastWrite());
    if (record.kind === "read") {
      this.#copyAlarm = this.#alarmOf(copy, record);
      const { record: saved } = this.#use(record.value);
      const memories = mergeMemories([...saved.trust, ...known]);
      if (memories.length > 0 && trust[0]?.kind === "missing") {
        this.#alarm("STATE_LOST", `state: ${this.#trustPaths[0]} was lost; another copy is used`);
      }
      // Between the first record and the second, the first line of the history is written.
      const hasPast = saved.state.name !== "Idle" || saved.committed !== null;
      if (hasPast && (await this.#history.isEmpty())) {
        this.#alarm("STATE_LOST", "state: the history was lost; nothing else was");
      }
      const alarms = [...this.#alarms, ...(this.#copyAlarm ? [this.#copyAlarm] : [])];
      return { record: { ...recordIn(saved), trust: memories }, alarms };
    }
    const isStale = copy.kind === "read" && writesOf(copy) < this.#writes;
    if (isStale) {
      this.#alarm(
        "STATE_LOST",
        `state: the copy of the record in ${this.#copyDirectory} is out of date and is not used: ` +
          `expected write ${this.#writes}, found write ${writesOf(copy)}`,
      );
    } else if (copy.kind === "read") {
      this.#alarm(
        record.kind === "damaged" ? "STATE_CORRUPT" : "STATE_LOST",
        `state: the record was lost; its copy in ${this.#copyDirectory} is used`,
      );
      const { record: saved } = this.#use(copy.value);
      const memories = mergeMemories([...saved.trust, ...known]);
      return { record: { ...recordIn(saved), trust: memories }, alarms: this.#alarms };
    }
    if ([record, copy, ...trust].every(isMissing) && !(await this.#history.exists())) {
      return { record: EMPTY_RECORD, alarms: [] };
    }
    const remembered = mergeMemories([
      ...known,
      ...(await this.#history.read()).flatMap((entry) => entry.trust ?? []),
    ]);
    const code = record.kind === "damaged" ? "STATE_CORRUPT" : "STATE_LOST";
    if (remembered.length > 0) {
      this.#alarm(code, "state: the record was lost; it starts anew with what is remembered");
      return { record: { ...EMPTY_RECORD, trust: remembered }, alarms: this.#alarms };
    }
    this.#alarm(
      code,
      `nothing readable is left in ${this.#directory} of the releases this host accepted, so an ` +
        "old one could not be told from a new one; `nixos-pull apply --accept-state-loss` starts anew",
    );
    return { record: null, alarms: this.#alarms };
  }

  /**
   * Reads the record, and logs an error for everything that is wrong. If nothing is left of a
   * host that had a history, it throws STATE_CORRUPT or STATE_LOST, unless `acceptLoss`.
   */
  async load({ acceptLoss = false } = {}): Promise<AgentRecord> {
    const { record, alarms } = await this.recall();
    const last = alarms.at(-1);
    if (record === null && !acceptLoss && last) {
      for (const { code, message } of alarms.slice(0, -1)) this.#log.error(message, { code });
      throw last;
    }
    for (const { code, message } of alarms) this.#log.error(message, { code });
    return record ?? EMPTY_RECORD;
  }

  /** After `load`: writes what was damaged or missing again, and notes that in the history. */
  async mend(record: AgentRecord, now: Date): Promise<void> {
    const alarms = this.#alarms;
    if (alarms.length > 0) await this.save(record);
    else if (this.#copyAlarm) await this.#saveCopy(await this.#saved(record, this.#writes));
    await this.#saveTrust(record);
    this.#alarms = [];
    for (const { code, message } of alarms) {
      const at = now.toISOString();
      await this.#history.append({
        ...{ at, event: "StateMended", state: record.state.name, code, message },
      });
    }
  }

  /**
   * Writes the record durably, and gives how often it was written by now. The caller does what
   * it announces only afterwards.
   */
  async save(record: AgentRecord): Promise<number> {
    const writes = this.#writes + 1;
    const saved = await this.#saved(record, writes);
    await this.#saveTrust(record);
    await this.#saveCopy(saved);
    await writeChecked(this.#recordPath, saved);
    this.#writes = writes;
    return writes;
  }

  async #saved(record: AgentRecord, writes: number): Promise<object> {
    const machineId = await this.#machineId();
    const { written = null, record: read } = this.#read ?? {};
    return {
      ...record,
      // The state of another version stays what it is until something happens in it.
      ...(written !== null && record.state === read?.state && { state: written }),
      ...(writes > 0 && { writes }),
      ...(machineId !== null && { machineId }),
    };
  }

  /** Goes on with a record that was read. */
  #use(read: ReadRecord): ReadRecord {
    this.#read = read;
    for (const problem of read.problems) this.#alarm("STATE_UNKNOWN", `state: ${problem}`);
    return read;
  }

  /** What is wrong with the copy of a record that is right; null for one that is lost by a boot. */
  #alarmOf(copy: CheckedRead<ReadRecord>, record: CheckedRead<ReadRecord>): PullError | null {
    const where = `state: the copy of the record in ${this.#copyDirectory}`;
    if (copy.kind === "damaged") return new PullError("STATE_CORRUPT", `${where}: ${copy.why}`);
    // One that is ahead was written just before the agent ended.
    return copy.kind === "read" && writesOf(copy) < writesOf(record)
      ? new PullError("STATE_LOST", `${where} is out of date: it could not be written`)
      : null;
  }

  /**
   * The copy is written first, so that it is never older. If it cannot be, the record counts, and
   * the history tells that the copy is out of date.
   */
  async #saveCopy(record: object): Promise<void> {
    try {
      await makeDirectory(this.#copyDirectory, 0o700);
      await writeChecked(this.#copyPath, record);
    } catch (error) {
      this.#log.warn(`state: the record has no copy: ${(error as Error).message}`);
    }
  }

  async #saveTrust({ trust }: AgentRecord): Promise<void> {
    const text = JSON.stringify(trust);
    for (const [at, path] of this.#trustPaths.entries()) {
      if (JSON.stringify(this.#trustOnDisk[at] ?? []) === text) continue;
      try {
        await makeDirectory(dirname(path));
        await writeChecked(path, trust);
        this.#trustOnDisk[at] = trust;
      } catch (error) {
        if (at === 0) throw error;
        // The state directory has it: a host must not stop because one more copy is missing.
        const { code, message } = toPullError(error);
        this.#log.error(`state: no copy outside of the state directory: ${message}`, { code });
      }
    }
  }

  #alarm(code: ErrorCode, message: string): void {
    this.#alarms = [...this.#alarms, new PullError(code, message)];
  }
}

/** Reads a record that this machine wrote; that of another one is as good as damaged. */
async function readRecordFile(
  path: string,
  machineId: string | null,
): Promise<CheckedRead<ReadRecord>> {
  const file = await readChecked(path, z.unknown());
  if (file.kind !== "read") return file;
  const value = readRecord(file.value);
  if (!value) return { kind: "damaged", why: `${path} is not a record of any version` };
  const { machineId: written = machineId } = value.record;
  if (machineId === null || written === machineId) return { kind: "read", value };
  const why =
    `${path} was written by another machine: expected machine id ${machineId}, found ${written}; ` +
    "a restored backup, or a copied disk";
  return { kind: "damaged", why };
}

/** How often a record was written that was read; 0 for one that was not. */
function writesOf(read: CheckedRead<ReadRecord>): number {
  return read.kind === "read" ? (read.value.record.writes ?? 0) : 0;
}

/** The record without what belongs to its file. */
function recordIn({ writes: _, machineId: __, ...record }: SavedRecord): AgentRecord {
  return record;
}

/** What is expected of a directory with the agent's memory. The settings may name a link to it. */
export function unsafeIf(directory: string): PrivateDirectory {
  const user = process.geteuid?.() ?? 0;
  return {
    code: "STATE_UNSAFE",
    followLink: true,
    advice: (owner) =>
      owner === 0 && user !== 0
        ? "it is of root's agent: run this as root"
        : "others could have changed what this host remembers: look at what lies there, then run " +
          `\`chown ${user} ${directory} && chmod go-w ${directory}\``,
  };
}

function isMissing({ kind }: CheckedRead<unknown>): boolean {
  return kind === "missing";
}
