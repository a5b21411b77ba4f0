import type { NarMember } from "../../core/formats/archive-index.ts";
import type { FetchSummary, Mirror, Staging } from "../../core/ports.ts";
import { DEFAULT_GAP, planRuns, wantedBytesOf, type Run } from "../../core/transfer/fetch-plan.ts";
import { readRun } from "../../core/transfer/run-reader.ts";
import { withFailover } from "../poll/mirror-failover.ts";
import { DeltaReader } from "./delta-reader.ts";
import type { ImportStream } from "./import-stream.ts";
import { makeNars } from "./make-nars.ts";
import {
  portionsOf,
  type FetchPlan,
  type PlannedDelta,
  type Portion,
} from "../../core/transfer/closure-plan.ts";
import type { FetchTools } from "./tools.ts";

/** What was read. */
export type ReadSummary = Pick<FetchSummary, "bytesReceived" | "deltasUsed" | "deltasFailed">;

/** Where NARs are read to. */
export interface ReadContext {
  readonly staging: Staging;
  /** What `staging` said is missing of the plan's NARs. */
  readonly missing: ReadonlyMap<string, number>;
  readonly imports: ImportStream;
  readonly tools: FetchTools;
  readonly signal: AbortSignal;
}

/**
 * Brings the plan's NARs into staging, from there, by deltas or whole, from one mirror after
 * the other, no faster than the imports make room. Throws what the last mirror threw, what
 * an import threw, INTERRUPTED, the system's errors.
 */
export async function readNars(plan: FetchPlan, context: ReadContext): Promise<ReadSummary> {
  const reading = new NarReading(plan, context);
  await reading.takeStaged();
  await withFailover(context.tools, (mirror) => reading.readFrom(mirror));
  return reading.summary;
}

/** What all mirrors together have brought so far. */
class NarReading {
  readonly summary = { bytesReceived: 0, deltasUsed: 0, deltasFailed: 0 };
  readonly #plan: FetchPlan;
  readonly #context: ReadContext;
  /** NARs that came whole. They are staged, or imported and gone from staging again. */
  readonly #done = new Set<string>();
  /** What became of the paths whose delta was tried. */
  readonly #tried = new Map<string, "made" | "given up">();
  /** Bytes of `summary.bytesReceived` and of everything that is still to come. */
  #total = 0;

  constructor(plan: FetchPlan, context: ReadContext) {
    this.#plan = plan;
    this.#context = context;
  }

  /** Hands the NARs of an earlier attempt to the imports. */
  async takeStaged(): Promise<void> {
    const { paths, nars } = this.#plan;
    const { missing, staging, tools } = this.#context;
    const byDelta = new Set(paths.flatMap(({ delta }) => delta?.member ?? []));
    await tools.deltas.removeUnfinished(staging.directory);
    for (const member of nars.values()) {
      if (!missing.has(member.name) && !byDelta.has(member.name)) await this.#found(member);
    }
  }

  /** Reads everything that is left from one mirror. Throws what it throws. */
  async readFrom(mirror: Mirror): Promise<void> {
    const { imports, signal } = this.#context;
    const portions = portionsOf(this.#plan, imports.batchBytes);
    this.#total = this.summary.bytesReceived + this.#bytesLeft(portions);
    const untried = portions
      .flatMap(({ deltas }) => deltas)
      .filter(({ path }) => mirror.ranges && !this.#tried.has(path));
    const reader = new DeltaReader(
      untried.map(({ delta }) => delta),
      mirror,
      { signal, onBytes: this.#onBytes },
    );
    try {
      for (const { deltas, nars } of portions) {
        const failed = await this.#makeByDeltas(deltas, mirror, reader);
        await this.#readWhole(new Set([...nars, ...failed]), mirror);
      }
    } finally {
      await reader.close();
    }
  }

  readonly #onBytes = (count: number): void => {
    this.summary.bytesReceived += count;
    this.#context.tools.onProgress?.({
      received: this.summary.bytesReceived,
      total: this.#total,
    });
  };

  #bytesLeft(portions: readonly Portion[]): number {
    let bytes = 0;
    for (const { nars, deltas } of portions) {
      for (const name of nars) bytes += this.#bytesLeftOf(name);
      for (const { path, delta, member } of deltas) {
        const tried = this.#tried.get(path);
        if (tried === undefined) bytes += delta.size;
        else if (tried === "given up") bytes += this.#bytesLeftOf(member);
      }
    }
    return bytes;
  }

  #bytesLeftOf(name: string): number {
    if (this.#done.has(name)) return 0;
    return (this.#plan.nars.get(name)?.size ?? 0) - this.#heldAtFirst(name);
  }

  /** Bytes of an unfinished NAR that an earlier attempt left. */
  #heldAtFirst(name: string): number {
    return this.#context.missing.get(name) ?? 0;
  }

  /** Makes what a portion's deltas give; gives the NAR members that have to be read instead. */
  async #makeByDeltas(
    deltas: readonly PlannedDelta[],
    mirror: Mirror,
    reader: DeltaReader,
  ): Promise<string[]> {
    const { tools } = this.#context;
    const whole: string[] = [];
    const giveUp = (planned: PlannedDelta, received: boolean): void => {
      this.#giveUp(planned, received);
      whole.push(planned.member);
    };
    const untried: PlannedDelta[] = [];
    for (const planned of deltas) {
      const tried = this.#tried.get(planned.path);
      if (tried === "given up") whole.push(planned.member);
      else if (tried === undefined && mirror.ranges) untried.push(planned);
      // Reading from the start for every delta would cost more than the NARs.
      else if (tried === undefined) giveUp(planned, false);
    }
    await makeNars(untried, {
      ...{ ...this.#context, reader },
      onMade: ({ path }) => {
        this.#tried.set(path, "made");
        this.summary.deltasUsed++;
      },
      onFailed: (planned, error) => {
        this.summary.deltasFailed++;
        tools.log.warn(`${planned.path} is downloaded whole: ${error.message}`, {
          code: error.code,
        });
        giveUp(planned, error.code !== "ARCHIVE_PARTIAL");
      },
    });
    return whole;
  }

  #giveUp({ path, member, delta }: PlannedDelta, received: boolean): void {
    this.#tried.set(path, "given up");
    this.#context.imports.replace(path, member, this.#plan.nars.get(member)?.size ?? 0);
    this.#total += this.#bytesLeftOf(member) - (received ? 0 : delta.size);
  }

  /** Reads the NARs of these names that did not come yet. */
  async #readWhole(names: ReadonlySet<string>, mirror: Mirror): Promise<void> {
    let { ranges } = mirror;
    let runs = await this.#planRuns(names, ranges);
    for (let run = runs.shift(); run; run = runs.shift()) {
      await this.#readRun(run, mirror, ranges);
      if (mirror.ranges === ranges) continue;
      // This mirror always reads from the start: let one read serve all that is left.
      ranges = mirror.ranges;
      runs = await this.#planRuns(names, ranges);
    }
  }

  async #planRuns(names: ReadonlySet<string>, ranges: boolean): Promise<Run[]> {
    const { staging, imports } = this.#context;
    const { contents, nars } = this.#plan;
    const left = [...nars.values()].filter(({ name }) => names.has(name) && !this.#done.has(name));
    const missing = await staging.missing(left);
    for (const member of left) {
      // An earlier attempt staged it whole; this one tried a delta first.
      if (!missing.has(member.name)) await this.#found(member);
    }
    return ranges
      ? planRuns(contents, missing, DEFAULT_GAP, imports.batchBytes)
      : planRuns(contents, missing, Infinity);
  }

  /**
   * Reads one run. Room for a request that fits the budget is reserved before it is sent, so
   * that the mirror is never kept waiting; a request that has to bring everything waits for
   * room before each NAR.
   */
  async #readRun(run: Run, mirror: Mirror, fits: boolean): Promise<void> {
    const { staging, imports, signal } = this.#context;
    let reserved = fits ? wantedBytesOf(run) : 0;
    await imports.reserve(reserved);
    try {
      const source = mirror.readArchive(run.archive, run, signal);
      await readRun(run, this.#plan.contents, source, async (member, have, pieces) => {
        const { name, size } = member;
        if (!fits) {
          await imports.reserve(size);
          reserved += size;
        }
        // Another mirror may have brought more of it, and one without ranges starts it anew.
        this.#total += this.#heldAtFirst(name) - have;
        await staging.writeNar(member, have, pieces, this.#onBytes);
        this.#done.add(name);
        reserved -= size;
        imports.arrived(name, size);
      });
    } finally {
      imports.cancel(reserved);
    }
  }

  /** A NAR is in staging from an earlier attempt. */
  async #found({ name, size }: NarMember): Promise<void> {
    const { imports } = this.#context;
    await imports.reserve(size);
    this.#total -= this.#bytesLeftOf(name);
    this.#done.add(name);
    imports.arrived(name, size);
  }
}
