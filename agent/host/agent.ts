import { join } from "node:path";
import * as z from "zod";
import { memoryOfManifest, mergeMemories, type TrustMemories } from "../core/release/acceptance.ts";
import {
  NO_COUNTS,
  countPoll,
  countersSchema,
  type AgentCounters,
} from "../core/metrics/counters.ts";
import { ERROR_CODES, PullError, toPullError } from "../core/errors.ts";
import {
  isPastTheLine,
  judgeBoot,
  type AgentRecord,
  type BootVerdict,
} from "../core/update/machine.ts";
import { passageOf, stageRelease } from "../core/release/barrier.ts";
import { driftOf, type Drift } from "../core/update/drift.ts";
import { isHeld, type HoldRead } from "../core/schedule/hold.ts";
import { hostWaits } from "../core/schedule/host-rules.ts";
import {
  ACTIVATION_MODES,
  releaseFor,
  sha256Schema,
  type Manifest,
  type Release,
  type SignedManifest,
} from "../core/formats/manifest.ts";
import { decide, type Decision, type Insistence } from "../core/update/plan.ts";
import type {
  Activator,
  Clock,
  Deadline,
  Disk,
  GcRoots,
  HealthProbe,
  HookRunner,
  Log,
  Mirror,
  NixStore,
  RebootLock,
  ServiceManager,
  Successor,
} from "../core/ports.ts";
import { rolloutWaits } from "../core/release/rollout.ts";
import type { Settings } from "../core/settings.ts";
import { storePathSchema } from "../core/formats/store-path.ts";
import { waitSchema, type Wait } from "../core/schedule/waiting.ts";
import { readChecked, writeChecked } from "../effects/files/checked-file.ts";
import { readConfirmation } from "../effects/state/confirmation-file.ts";
import type { History } from "../effects/state/history.ts";
import { readHold } from "../effects/state/hold-file.ts";
import type { ManifestCache } from "../effects/state/manifest-cache.ts";
import { tryLock } from "../effects/process/process-lock.ts";
import type { StateFile } from "../effects/state/state-file.ts";
import { previewFetch, type FetchPreview } from "./fetch/preview.ts";
import type { FetchProgress, FetchTools } from "./fetch/tools.ts";
import {
  acceptHere,
  poll,
  verdictSchema,
  type MirrorVerdict,
  type PollOutcome,
} from "./poll/poll.ts";
import { observe } from "./update/observe.ts";
import { rebootIfDue, releaseRebootSlot } from "./update/reboot.ts";
import { ReleaseRun } from "./update/release-run.ts";

/** Everything the agent acts through. */
export interface AgentTools {
  readonly settings: Settings;
  readonly mirrors: readonly Mirror[];
  readonly cache: ManifestCache;
  readonly store: NixStore;
  readonly roots: GcRoots;
  readonly activator: Activator;
  readonly services: ServiceManager;
  readonly probe: HealthProbe;
  readonly runHook: HookRunner;
  /** Null where no FleetLock server is configured. */
  readonly rebootLock: RebootLock | null;
  /** The program and script that this process runs. */
  readonly ownProgram: readonly string[];
  readonly deadline: Deadline;
  readonly successor: Successor;
  /** Whether this process is the service, which systemd starts again when it ends. */
  readonly isService: boolean;
  readonly disk: Disk;
  readonly staging: FetchTools["staging"];
  readonly indexes: FetchTools["indexes"];
  readonly applyIndexPatch: FetchTools["applyIndexPatch"];
  readonly deltas: FetchTools["deltas"];
  readonly clock: Clock;
  /** Uniform in [0, 1); jitter only. */
  readonly random: () => number;
  readonly onArchiveRead?: FetchTools["onArchiveRead"];
  readonly log: Log;
  readonly state: StateFile;
  readonly history: History;
  readonly onProgress?: ((progress: FetchProgress) => void) | undefined;
  /** This machine's hashed identity; absent where no binding is looked at. */
  readonly machineId?: (() => Promise<string | null>) | undefined;
}

/** What a poll and the decision about it came to. */
export interface Finding {
  readonly verdicts: readonly MirrorVerdict[];
  /** Null where no release was accepted or it does not name this host. */
  readonly release: Release | null;
  /** The release that comes after `release`, where that stands before it as a barrier. */
  readonly next?: Release | undefined;
  readonly decision: Decision | null;
  readonly error: PullError | null;
}

/** Which release of a manifest a host follows now, and what it does about it. */
interface Choice {
  readonly release: Release;
  readonly next?: Release | undefined;
  readonly decision: Decision;
}

/** A finding with what is to be remembered of it. */
export interface FoundRelease extends Finding {
  readonly memories: TrustMemories;
  /**
   * Decides once more, as things are now: fetching may have taken hours. With `askMirrors`
   * a newer release counts, and what stands where no mirror has one is still to be acceptable;
   * `signal` ends the asking (INTERRUPTED).
   */
  readonly lookAgain: (
    record: AgentRecord,
    how: { readonly askMirrors: boolean; readonly signal?: AbortSignal | undefined },
  ) => Promise<FoundRelease>;
}

/** What a decision is made for, beside the record. */
interface Occasion {
  readonly insistence: Insistence;
  readonly signal: AbortSignal | undefined;
}

/** What a tick did. */
export interface TickOutcome extends Finding {
  readonly record: AgentRecord;
  /** True where this tick made the host into the release. */
  readonly updated: boolean;
}

/** What a tick would do, with what else stands in its way. */
export interface CheckOutcome extends Finding {
  readonly record: AgentRecord;
  /** Null where nothing would be brought in. */
  readonly preview: FetchPreview | null;
  readonly drift: Drift | null;
  readonly hold: HoldRead;
}

/** What `status` shows of the last poll. */
export const pollReportSchema = z.strictObject({
  at: z.iso.datetime(),
  verdicts: z.array(verdictSchema),
  decision: z.string().nullable(),
  sequence: z.int().positive().nullable(),
  code: z.enum(ERROR_CODES).nullable(),
  message: z.string().nullable(),
  /** The release that waits, and what for. */
  waiting: z
    .strictObject({
      release: z.strictObject({
        sequence: z.int().positive(),
        digest: sha256Schema,
        toplevel: storePathSchema,
        mode: z.enum(ACTIVATION_MODES),
      }),
      waits: z.array(waitSchema),
    })
    .optional(),
  /** How each mirror last served an archive. */
  archives: z
    .array(
      z.strictObject({
        mirror: z.string(),
        at: z.iso.datetime(),
        /** Absent where it served what was asked. */
        code: z.enum(ERROR_CODES).optional(),
        message: z.string().optional(),
      }),
    )
    .optional(),
});
export type ArchiveVerdict = NonNullable<PollReport["archives"]>[number];
export type PollReport = z.infer<typeof pollReportSchema>;

const POLL_REPORT = "poll.json";
const COUNTERS = "counters.json";
const LOCK = "update.lock";

/** One host's agent: each method runs to a safe end and leaves the record true. */
export class Agent {
  readonly #tools: AgentTools;

  constructor(tools: AgentTools) {
    this.#tools = tools;
  }

  /**
   * One round: finishes what was begun, polls, decides and, where there is something
   * to do, does it. Throws AGENT_BUSY where another process does so right now, and the
   * errors of the state file; everything else is in the outcome.
   */
  async tick(options: {
    insistence: Insistence;
    acceptStateLoss?: boolean;
    signal?: AbortSignal | undefined;
  }): Promise<TickOutcome> {
    return this.#exclusively(async () => {
      const { state, successor } = this.#tools;
      await successor.look();
      const loaded = await state.load({ acceptLoss: options.acceptStateLoss ?? false });
      await state.mend(loaded, this.#tools.clock.now());
      const archives = new Map<string, ArchiveVerdict>();
      const tools: AgentTools = {
        ...this.#tools,
        onArchiveRead: (mirror, error) => {
          const at = this.#tools.clock.now().toISOString();
          const why = error ? { code: error.code, message: error.message } : {};
          archives.set(mirror, { mirror, at, ...why });
        },
      };
      const run = new ReleaseRun(tools, loaded, options.signal);
      try {
        const unfinished = await run.finishBegun();
        if (isPastTheLine(run.record.state)) {
          const nothing = { verdicts: [], release: null, decision: null };
          return { ...nothing, error: unfinished, record: run.record, updated: false };
        }
        const finding = await this.#find(run.record, options.insistence, options.signal);
        const followed = await run.follow(finding);
        await releaseRebootSlot(run, this.#tools);
        const error = await rebootIfDue(run, this.#tools, options.signal);
        const outcome = {
          ...followed,
          record: run.record,
          error: followed.error ?? error,
        };
        await this.#report(outcome, archives);
        return outcome;
      } finally {
        await this.#tools.cache.save();
      }
    });
  }

  /** What a tick would do now, without doing or writing anything. */
  async check(options: {
    insistence: Insistence;
    signal?: AbortSignal | undefined;
  }): Promise<CheckOutcome> {
    const { state, settings, store, clock } = this.#tools;
    const record = await state.load();
    const finding = await this.#find(record, options.insistence, options.signal);
    const drift = isPastTheLine(record.state) ? null : driftOf(record, await observe(store));
    const found = await readHold(settings.paths.state);
    const hold: HoldRead = isHeld(found, clock.now()) ? found : { kind: "none" };
    const outcome = { ...finding, record, drift, hold };
    if (finding.decision?.kind !== "update" || !finding.release) {
      return { ...outcome, preview: null };
    }
    try {
      const preview = await previewFetch(finding.release, this.#tools, options.signal);
      return { ...outcome, preview };
    } catch (error) {
      return { ...outcome, preview: null, error: toPullError(error) };
    }
  }

  /**
   * Goes back to the profile's previous generation (or `generation`) and denies the
   * system that is left, so that the next poll does not bring it back. Gives the
   * toplevel. Throws NOTHING_TO_ROLL_BACK, PROFILE_FAILED, ROLLBACK_FAILED, …
   */
  async rollBack(generation: number | null): Promise<{ toplevel: string; generation: number }> {
    return this.#exclusively(async () => {
      const { store, activator, state } = this.#tools;
      const run = new ReleaseRun(this.#tools, await state.load(), undefined);
      const unfinished = await run.finishBegun();
      // Where one generation does not come up, a person may choose another.
      if (unfinished && run.record.state.name !== "Reverting") throw unfinished;
      const from = await store.profileToplevel();
      const target = await store.findGeneration(generation);
      if (!target) {
        throw new PullError(
          "NOTHING_TO_ROLL_BACK",
          generation === null
            ? "the system profile has no generation before the current one"
            : `the system profile has no generation ${generation}`,
        );
      }
      if (target.generation === (await store.profileGeneration())) {
        throw new PullError(
          "NOTHING_TO_ROLL_BACK",
          `generation ${target.generation} is the current one`,
        );
      }
      if (!(await activator.canActivate(target.toplevel))) {
        throw new PullError(
          "NOT_A_SYSTEM",
          `${target.toplevel} has no bin/switch-to-configuration`,
        );
      }
      await run.revert(from, target);
      return target;
    });
  }

  /**
   * What the deadline timer runs: takes over from the agent, whatever became of it, and
   * rolls the release back unless it is committed. Throws ROLLBACK_FAILED, …
   */
  async passDeadline(toplevel: string): Promise<void> {
    const { services, state, log } = this.#tools;
    const found = new ReleaseRun(this.#tools, await state.load(), undefined);
    if (!(await found.isUnproven(toplevel))) return;
    log.error("the deadline passed without a commit; taking over from the agent", {
      code: "DEADLINE_PASSED",
    });
    await services.stopAgent();
    try {
      await this.#exclusively(async () => {
        const run = new ReleaseRun(this.#tools, await state.load(), undefined);
        await run.passDeadline(toplevel);
        // There may be no agent that would.
        const error = await rebootIfDue(run, this.#tools, undefined);
        if (error) log.error(error.message, { code: error.code });
      });
    } finally {
      await services.startAgent();
    }
  }

  /** What is known of the system that was booted: whether a pending one proved itself. */
  async judgeBoot(): Promise<BootVerdict> {
    const { services, state } = this.#tools;
    return judgeBoot(await state.load({ acceptLoss: true }), await services.bootId());
  }

  /** What the last poll found, or null. */
  async lastPoll(): Promise<PollReport | null> {
    const path = join(this.#tools.settings.paths.state, POLL_REPORT);
    const read = await readChecked(path, pollReportSchema);
    return read.kind === "read" ? read.value : null;
  }

  /** What was counted since the state directory was made. */
  async counters(): Promise<AgentCounters> {
    const path = join(this.#tools.settings.paths.state, COUNTERS);
    const read = await readChecked(path, countersSchema);
    return read.kind === "read" ? read.value : NO_COUNTS;
  }

  async #find(
    record: AgentRecord,
    insistence: Insistence,
    signal: AbortSignal | undefined,
  ): Promise<FoundRelease> {
    const { accepted, error, verdicts } = await this.#poll(record, signal);
    const occasion = { insistence, signal };
    return accepted
      ? this.#judge(record, accepted.signed, verdicts, occasion)
      : this.#nothing(record, error, verdicts, occasion);
  }

  #poll(record: AgentRecord, signal: AbortSignal | undefined): Promise<PollOutcome> {
    const { settings, mirrors, cache, clock } = this.#tools;
    return poll(settings, mirrors, cache, record.trust, clock.now(), signal);
  }

  #nothing(
    { trust }: AgentRecord,
    error: PullError | null,
    verdicts: readonly MirrorVerdict[],
    { insistence, signal }: Occasion,
    memories: TrustMemories = trust,
  ): FoundRelease {
    return {
      ...{ verdicts, error, memories, release: null, decision: null },
      lookAgain: (record) => this.#find(record, insistence, signal),
    };
  }

  /** What an accepted manifest asks of this host now. */
  async #judge(
    record: AgentRecord,
    signed: SignedManifest,
    verdicts: readonly MirrorVerdict[],
    occasion: Occasion,
  ): Promise<FoundRelease> {
    const { settings } = this.#tools;
    const memories = mergeMemories([...record.trust, memoryOfManifest(signed)]);
    try {
      const machineId = await this.#tools.machineId?.();
      const entry = releaseFor(signed, settings.hostname, machineId);
      const release = { ...entry, mode: settings.activation.mode ?? entry.mode };
      return {
        ...{ verdicts, error: null, memories },
        ...(await this.#choose(record, signed.manifest, release, occasion.insistence)),
        lookAgain: (current, { askMirrors, signal = occasion.signal }) =>
          askMirrors
            ? this.#findAgain(current, signed, verdicts, occasion, signal)
            : this.#judge(current, signed, verdicts, occasion),
      };
    } catch (thrown) {
      return this.#nothing(record, toPullError(thrown), verdicts, occasion, memories);
    }
  }

  /**
   * Asks the mirrors whether there is a newer manifest than `signed`. Where none can be read
   * that one stands, unless it has expired meanwhile.
   */
  async #findAgain(
    record: AgentRecord,
    signed: SignedManifest,
    before: readonly MirrorVerdict[],
    occasion: Occasion,
    signal: AbortSignal | undefined,
  ): Promise<FoundRelease> {
    const { accepted, verdicts } = await this.#poll(record, signal);
    if (accepted) {
      // What was found to be the newest stands by what all mirrors said then.
      const isNews = accepted.signed.digest !== signed.digest;
      return this.#judge(record, accepted.signed, isNews ? verdicts : before, occasion);
    }
    const { settings, clock, log } = this.#tools;
    for (const { mirror, code, message } of verdicts) {
      if (code !== undefined) log.warn(`asked again: ${mirror}: ${message}`, { code });
    }
    try {
      acceptHere(signed, settings, record.trust, clock.now());
    } catch (thrown) {
      return this.#nothing(record, toPullError(thrown), before, occasion);
    }
    return this.#judge(record, signed, before, occasion);
  }

  /** Decides about a release, or about one that stands before it, as things are at this moment. */
  async #choose(
    record: AgentRecord,
    manifest: Manifest,
    release: Release,
    insistence: Insistence,
  ): Promise<Choice> {
    const { settings, store, clock } = this.#tools;
    const { state } = settings.paths;
    const now = clock.now();
    const orders = { hold: await readHold(state), confirmation: await readConfirmation(state) };
    if (orders.hold.kind === "damaged") {
      this.#tools.log.error(`hold: ${orders.hold.why}; this host counts as held`, {
        code: "STATE_CORRUPT",
      });
    }
    const host = await observe(store);
    const policy = rolloutWaits(manifest, settings.hostname, record, now);
    const decideOn = (one: Release): Decision => {
      const waits: Wait[] = [...policy, ...hostWaits(settings, orders, one, now)];
      const driftPolicy = settings.drift;
      return decide({ record, release: one, host, now, insistence, waits, driftPolicy });
    };
    const decision = decideOn(release);
    const passage = passageOf(manifest, settings.hostname, record);
    // What the host is already, it need not become by way of another one.
    const isThere = decision.kind === "active" || decision.kind === "adopt";
    if (passage.kind !== "through" || isThere) return { release, decision };
    const earlier = stageRelease(passage.stage, release);
    const stage = { ...earlier, mode: settings.activation.mode ?? earlier.mode };
    return { release: stage, next: release, decision: decideOn(stage) };
  }

  async #report(
    outcome: TickOutcome,
    archives: ReadonlyMap<string, ArchiveVerdict>,
  ): Promise<void> {
    const { settings, clock } = this.#tools;
    const last = await this.lastPoll();
    const before = last?.archives ?? [];
    const known = new Map([...before.map((it) => [it.mirror, it] as const), ...archives]);
    const waiting = waitingOf(outcome);
    const report: PollReport = {
      at: clock.now().toISOString(),
      verdicts: [...outcome.verdicts],
      decision: outcome.updated ? "applied" : (outcome.decision?.kind ?? null),
      sequence: outcome.release?.sequence ?? null,
      code: outcome.error?.code ?? null,
      message: outcome.error?.message ?? null,
      ...(waiting && { waiting }),
      // In the configuration's order, without mirrors that it no longer names.
      archives: settings.mirrors.flatMap((mirror) => known.get(mirror) ?? []),
    };
    await writeChecked(join(settings.paths.state, POLL_REPORT), report);
    if (waiting && namesOf(waiting) !== namesOf(last?.waiting)) {
      const { sequence, toplevel, mode } = waiting.release;
      const [first] = waiting.waits;
      await this.#tools.history.append({
        ...{ at: report.at, event: "ReleaseWaits", state: outcome.record.state.name },
        ...{ sequence, toplevel, mode },
        ...(first && { code: first.reason }),
        message: waiting.waits.map(({ message }) => message).join("; "),
      });
    }
    const poll = { failed: outcome.error !== null, updated: outcome.updated };
    const counters = countPoll(await this.counters(), poll);
    await writeChecked(join(settings.paths.state, COUNTERS), counters);
  }

  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const { state, settings } = this.#tools;
    await state.prepare();
    const lock = await tryLock(join(settings.paths.state, LOCK));
    if (!lock) {
      throw new PullError(
        "AGENT_BUSY",
        `another nixos-pull is in the middle of an update (${settings.paths.state}/${LOCK} is locked); ` +
          "`nixos-pull status` shows how far it is",
      );
    }
    try {
      await state.removeUnfinished();
      return await work();
    } finally {
      await lock.release();
    }
  }
}

/** What a tick found to be waiting. */
function waitingOf({ release, decision }: TickOutcome): PollReport["waiting"] {
  if (!release || decision?.kind !== "waiting") return undefined;
  const { sequence, digest, toplevel, mode } = release;
  return { release: { sequence, digest, toplevel, mode }, waits: [...decision.waits] };
}

/** Two polls that found this to be the same have nothing new for the history. */
function namesOf(waiting: PollReport["waiting"]): string {
  return JSON.stringify(waiting && [waiting.release.digest, waiting.waits.map((it) => it.reason)]);
}
