import { setTimeout as sleep } from "node:timers/promises";
import { memoryOf } from "../core/acceptance.ts";
import { judgeActivation, planRollback, setsProfile, type Verdict } from "../core/activation.ts";
import { backoffMs } from "../core/backoff.ts";
import { PullError, toPullError } from "../core/errors.ts";
import { checkHealth } from "../core/health.ts";
import {
  advance,
  isPastTheLine,
  isTransient,
  type AgentRecord,
  type Event,
  type Reason,
  type State,
  type StateName,
  type StateOf,
} from "../core/machine.ts";
import type { ActivationMode, Release } from "../core/manifest.ts";
import type { Observation } from "../core/plan.ts";
import type { NixStore } from "../core/ports.ts";
import type { HistoryEntry } from "../effects/history.ts";
import { removeStaging } from "../effects/staging.ts";
import type { AgentTools, FoundRelease, TickOutcome } from "./agent.ts";
import { IMPORTED_ROOTS, fetchClosure } from "./closure-fetch.ts";

/** Names of the agent's garbage collector roots. */
const ROOT = { pending: "pending", current: "current", previous: "previous" } as const;

/** How long another switch-to-configuration is waited for: half a minute. */
const LOCK_WAIT_MS = 3_000;
const LOCK_TRIES = 10;

/** What the host is at this moment. */
export async function observe(store: NixStore): Promise<Observation> {
  const [profile, running] = await Promise.all([store.profileToplevel(), store.runningToplevel()]);
  return { profile, running };
}

/** What an effect found out, beside the event that it makes. */
type Details = Pick<HistoryEntry, "lastLines" | "deltas">;
/** An event before it has its time. */
type Happening = Event extends infer E ? (E extends Event ? Omit<E, "at"> : never) : never;

/** One pass through the state machine: states are executed, events are recorded. */
export class ReleaseRun {
  record: AgentRecord;
  readonly #tools: AgentTools;
  readonly #signal: AbortSignal | undefined;
  #details: Details = {};

  constructor(tools: AgentTools, record: AgentRecord, signal: AbortSignal | undefined) {
    this.#tools = tools;
    this.record = record;
    this.#signal = signal;
  }

  /**
   * Ends what an earlier run left half done, since the host may be between two systems.
   * Gives the error where it is still not done.
   */
  async finishBegun(): Promise<PullError | null> {
    if (!isPastTheLine(this.record.state)) return null;
    this.#tools.log.warn(`going on where an earlier run stopped, in ${this.record.state.name}`);
    const error = await this.#runSteps();
    return isPastTheLine(this.record.state) ? error : null;
  }

  /** Acts on what a poll found. */
  async follow(finding: FoundRelease): Promise<TickOutcome> {
    const { release, decision } = finding;
    const untouched = (): TickOutcome => ({ ...finding, record: this.record, updated: false });
    await this.#remember(finding.memories, release);
    if (!release || !decision) {
      // The release that was under way is no longer this host's; where the mirrors could
      // not be read, it may still be.
      if (finding.error?.code === "HOST_NOT_IN_RELEASE") {
        await this.#withdraw(finding.error.message);
      }
      return untouched();
    }
    switch (decision.kind) {
      case "active":
      case "adopt":
        if (decision.kind === "adopt" || this.record.state.name !== "Idle") {
          const previous = this.record.committed?.previous ?? null;
          await this.happened({ type: "AlreadyActive", release, previous });
          await this.#removeLeftovers();
        }
        return untouched();
      case "denied":
      case "drifted":
        await this.#withdraw(`release ${release.sequence} is ${decision.kind}`);
        return untouched();
      case "backoff":
        return untouched();
      case "update": {
        if (!this.#isUnderWay(release)) {
          this.#tools.log.info(
            `release ${release.sequence}: ${release.toplevel}, to ${release.mode}`,
          );
          await this.happened({ type: "ReleaseAccepted", release });
        }
        const error = await this.#runSteps();
        const updated = error === null && this.record.committed?.digest === release.digest;
        return { ...finding, record: this.record, updated, error };
      }
      default:
        return decision satisfies never;
    }
  }

  #isUnderWay(release: Release): boolean {
    const { state } = this.record;
    return (
      "release" in state &&
      state.name !== "Failed" &&
      state.release.digest === release.digest &&
      state.release.mode === release.mode
    );
  }

  /** Records an event: the state file first, then the history. */
  async happened(happening: Happening): Promise<void> {
    const event: Event = { ...happening, at: this.#tools.clock.now().toISOString() };
    const before = this.record.state;
    const next = advance(this.record, event);
    await this.#tools.state.save(next);
    this.record = next;
    const release =
      "release" in event ? event.release : "release" in before ? before.release : undefined;
    const reason = "reason" in event ? event.reason : undefined;
    const message = "message" in event ? event.message : reason?.message;
    await this.#tools.history.append({
      at: event.at,
      event: event.type,
      state: next.state.name,
      ...(release && {
        sequence: release.sequence,
        toplevel: release.toplevel,
        mode: release.mode,
      }),
      ...(reason && { code: reason.code }),
      ...(message !== undefined && { message }),
      ...this.#details,
    });
    this.#details = {};
    this.#tools.log.debug(`${before.name} → ${next.state.name}`, { event: event.type });
  }

  /** Keeps what was accepted, in the record and in the history. */
  async #remember(memories: AgentRecord["trust"], release: Release | null): Promise<void> {
    if (JSON.stringify(memories) === JSON.stringify(this.record.trust)) return;
    const next = { ...this.record, trust: memories };
    await this.#tools.state.save(next);
    this.record = next;
    const trust = memoryOf(memories, this.#tools.settings.channel);
    await this.#tools.history.append({
      at: this.#tools.clock.now().toISOString(),
      event: "ManifestAccepted",
      state: next.state.name,
      ...(trust && { sequence: trust.sequence, trust }),
      ...(release && { toplevel: release.toplevel }),
    });
  }

  async #withdraw(message: string): Promise<void> {
    const { state } = this.record;
    if (state.name === "Idle" || isPastTheLine(state)) return;
    await this.happened({ type: "ReleaseWithdrawn", message });
    await this.#removeLeftovers();
  }

  /** Executes states until there is nothing more to do now; gives the error that ended it. */
  async #runSteps(): Promise<PullError | null> {
    let failure: PullError | null = null;
    for (;;) {
      const { state } = this.record;
      if (state.name === "Idle" || state.name === "Failed") return failure;
      if (this.#signal?.aborted) return new PullError("INTERRUPTED", `stopped in ${state.name}`);
      let event: Happening;
      try {
        event = await this.#execute(state);
      } catch (thrown) {
        const error = toPullError(thrown);
        if (error.code === "INTERRUPTED") return error;
        failure = error;
        const next = this.#onError(state, error);
        if (!next) throw error;
        event = next;
      }
      if (event.type === "ActivationRejected") {
        failure = new PullError(event.reason.code, event.reason.message);
        this.#tools.log.error(`${failure.message}; going back`, { code: failure.code });
      }
      if (event.type === "AttemptFailed") {
        failure ??= new PullError(event.reason.code, event.reason.message);
      }
      await this.happened(event);
      if (event.type === "RollbackFailed") return failure;
    }
  }

  /** The effect of each state, as a total map: a state without one does not compile. */
  readonly #effects: {
    [Name in StateName]: (state: StateOf<Name>) => Promise<Happening | null>;
  } = {
    Idle: async () => null,
    Failed: async () => null,
    Candidate: async () => ({ type: "FetchBegun" }),

    Fetching: async ({ release }) => {
      const { roots, activator, log } = this.#tools;
      await roots.hold(ROOT.pending, release.toplevel);
      const summary = await fetchClosure(release, this.#tools, this.#signal);
      const { deltasUsed: used, deltasFailed: failed } = summary;
      if (used + failed > 0) this.#details = { deltas: { used, failed } };
      log.info(`imported ${summary.newPaths} new of ${summary.paths} paths`, { ...summary });
      if (!(await activator.canActivate(release.toplevel))) {
        throw new PullError(
          "NOT_A_SYSTEM",
          `${release.toplevel}: expected an executable bin/switch-to-configuration`,
        );
      }
      return { type: "ClosureImported" };
    },

    Imported: async () => {
      const { store } = this.#tools;
      const { profile, running } = await observe(store);
      const generation = await store.profileGeneration();
      return { type: "BaselineRecorded", baseline: { profile, generation, running } };
    },

    Staged: async ({ release, baseline }) => {
      const { store } = this.#tools;
      if (setsProfile(release.mode) && (await store.profileToplevel()) !== release.toplevel) {
        try {
          await store.setProfile(release.toplevel);
        } catch (error) {
          // It may have got as far as the link; the record says what was there before.
          if ((await store.profileToplevel()) === release.toplevel) {
            await store.restoreProfile(baseline.generation);
          }
          throw error;
        }
      }
      return { type: "ActivationBegun" };
    },

    Activating: async ({ release, baseline, attempts }) => {
      const { log, store } = this.#tools;
      log.info(`switch-to-configuration ${release.mode}`);
      const { verdict, timedOut } = await this.#activate(release.toplevel, release.mode);
      if (verdict.kind === "activated") {
        return { type: "ActivationSucceeded", rebootNeeded: verdict.rebootNeeded };
      }
      const message = `switch-to-configuration ${release.mode}: ${verdict.message}`;
      if (verdict.kind === "locked") {
        // Nothing was done, so that the profile is all there is to put back.
        if (setsProfile(release.mode)) await store.restoreProfile(baseline.generation);
        const reason: Reason = { code: "SWITCH_LOCKED", message };
        return { type: "AttemptFailed", reason, retryAt: this.#retryAt(attempts + 1, reason) };
      }
      const code = timedOut ? "ACTIVATION_TIMEOUT" : "ACTIVATION_FAILED";
      return { type: "ActivationRejected", reason: { code, message } };
    },

    Verifying: async ({ release, rebootNeeded }) => {
      const problem = checkHealth(release, await observe(this.#tools.store), rebootNeeded);
      return problem === null
        ? { type: "HealthConfirmed" }
        : { type: "ActivationRejected", reason: { code: "HEALTH_FAILED", message: problem } };
    },

    Committed: async ({ release, baseline }) => {
      const { roots, log } = this.#tools;
      await roots.hold(ROOT.current, release.toplevel);
      if (baseline.profile !== null) await roots.hold(ROOT.previous, baseline.profile);
      await this.#removeLeftovers();
      log.info(`release ${release.sequence} is active: ${release.toplevel}`);
      return { type: "LeftoversRemoved" };
    },

    RollingBack: async ({ release, baseline }) => {
      const { store, log } = this.#tools;
      const plan = planRollback(release.mode, baseline);
      if (plan.restoreProfile && (await store.profileToplevel()) !== baseline.profile) {
        await store.restoreProfile(baseline.generation);
      }
      for (const { toplevel, mode } of plan.runs) {
        log.warn(`going back: ${toplevel}, ${mode}`);
        const { verdict } = await this.#activate(toplevel, mode);
        if (verdict.kind !== "activated") {
          throw new PullError("ROLLBACK_FAILED", `${toplevel} ${mode}: ${verdict.message}`);
        }
      }
      return { type: "RollbackSucceeded" };
    },

    RolledBack: async ({ release }) => {
      await this.#removeLeftovers();
      this.#tools.log.warn(`release ${release.sequence} was rolled back`);
      return { type: "LeftoversRemoved" };
    },
  };

  /** Runs switch-to-configuration, waiting a while for another one that holds the lock. */
  async #activate(
    toplevel: string,
    mode: ActivationMode,
  ): Promise<{ verdict: Verdict; timedOut: boolean }> {
    for (let tries = 1; ; tries++) {
      const result = await this.#tools.activator.activate(toplevel, mode);
      const verdict = judgeActivation(result);
      this.#details = { lastLines: [...result.lastLines] };
      if (verdict.kind !== "locked" || tries === LOCK_TRIES) {
        return { verdict, timedOut: result.timedOut };
      }
      this.#tools.log.warn(`${verdict.message}; waiting for it`);
      await sleep(LOCK_WAIT_MS);
    }
  }

  async #execute(state: State): Promise<Happening> {
    const effect = this.#effects[state.name] as (state: State) => Promise<Happening | null>;
    const event = await effect(state);
    if (!event) throw new Error(`state ${state.name} has nothing to do`);
    return event;
  }

  /** What an error in a state means; null where the state stays and is tried again later. */
  #onError(state: State, error: PullError): Happening | null {
    const reason: Reason = { code: error.code, message: error.message };
    switch (state.name) {
      case "Candidate":
      case "Fetching":
      case "Imported":
      case "Staged":
        return {
          type: "AttemptFailed",
          reason,
          retryAt: this.#retryAt(state.attempts + 1, reason),
        };
      case "Activating":
      case "Verifying":
        return { type: "ActivationRejected", reason };
      case "RollingBack":
        return { type: "RollbackFailed", message: error.message };
      case "Committed":
      case "RolledBack":
      case "Idle":
      case "Failed":
        return null;
      default:
        return state satisfies never;
    }
  }

  #retryAt(attempts: number, reason: Reason): string {
    const { settings, clock, random } = this.#tools;
    const { retryBase: base, retryMax: max } = settings.limits;
    // What cannot mend itself is only looked at again in case the host was changed.
    const wait = isTransient(reason.code) ? backoffMs(attempts, { base, max }, random()) : max;
    return new Date(clock.now().getTime() + wait).toISOString();
  }

  async #removeLeftovers(): Promise<void> {
    const { roots, settings } = this.#tools;
    await roots.release(ROOT.pending);
    await roots.release(IMPORTED_ROOTS);
    await removeStaging(settings.paths.staging);
  }
}
