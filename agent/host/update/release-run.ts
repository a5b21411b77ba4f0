import { memoryOf } from "../../core/release/acceptance.ts";
import { setTimeout as sleep } from "node:timers/promises";
import {
  failureText,
  judgeActivation,
  planRollback,
  provingMode,
  setsProfile,
  type Verdict,
} from "../../core/update/activation.ts";
import { backoffMs } from "../../core/update/backoff.ts";
import { judgeBootDefault } from "../../core/update/health.ts";
import { hookVariables, type HookFacts, type HookName } from "../../core/update/hook.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import {
  advance,
  denialOf,
  isExpected,
  isPastTheLine,
  isTransient,
  type AgentRecord,
  type Event,
  type Reason,
  type State,
  type StateName,
  type StateOf,
} from "../../core/update/machine.ts";
import type { ActivationMode, Release } from "../../core/formats/manifest.ts";
import { DEFAULT_INTERVAL_MS, type Settings } from "../../core/settings.ts";
import { allowFetch } from "../../core/schedule/waiting.ts";
import { missingBootSpace, needsReboot } from "../../effects/host/boot-links.ts";
import type { HistoryEntry } from "../../effects/state/history.ts";
import { removeStaging } from "../../effects/nix/staging.ts";
import type { AgentTools, FoundRelease, TickOutcome } from "../agent.ts";
import { fetchClosure } from "../fetch/fetch-closure.ts";
import { passHealthGate } from "./health-gate.ts";
import { abandonImported } from "../fetch/imported-paths.ts";
import { observe } from "./observe.ts";

/** Names of the agent's garbage collector roots. */
const ROOT = {
  pending: "pending",
  current: "current",
  previous: "previous",
  previousProfile: "previous-profile",
  previousRunning: "previous-running",
  agent: "agent",
} as const;

/** How long another switch-to-configuration is waited for: half a minute. */
const LOCK_WAIT_MS = 3_000;
const LOCK_TRIES = 10;

/** An agent that is ended this often in one state is being ended by what it does. */
const MAX_RESTARTS = 10;

/** So often in a row a way back is tried before another release may take its place. */
const MAX_ROLLBACKS = 3;

/** So many newer releases are gone after in one poll. */
const MAX_NEWER = 3;

/** More often than this, looking at the mirrors would only slow a fetch down. */
const MIN_WATCH_MS = 10_000;

/** What an effect found out, beside the event that it makes. */
type Details = Pick<HistoryEntry, "lastLines" | "deltas">;
/** An event before it has its time. */
type Happening = Event extends infer E ? (E extends Event ? Omit<E, "at"> : never) : never;

/** A look at the mirrors while a release is fetched. */
interface ReleaseWatch {
  readonly found: () => FoundRelease | null;
  readonly end: () => void;
}

/** One pass through the state machine: states are executed, events are recorded. */
export class ReleaseRun {
  record: AgentRecord;
  readonly #tools: AgentTools;
  readonly #signal: AbortSignal | undefined;
  /** Says that what is being fetched is no longer wanted. */
  #replaced: AbortSignal | undefined;
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
    await this.#noticeReboot();
    const { state } = this.record;
    if (!isPastTheLine(state)) return null;
    this.#tools.log.warn(`going on where an earlier run stopped, in ${state.name}`);
    if (isExpected(state.name, "AgentRestarted")) await this.happened({ type: "AgentRestarted" });
    const restarts = "restarts" in state ? state.restarts : 0;
    if (restarts >= MAX_RESTARTS && (state.name === "Activating" || state.name === "Verifying")) {
      const message = `the agent was ended ${restarts} times in ${state.name}`;
      await this.happened(rejected("RESTART_LOOP", message));
    }
    const error = await this.#runSteps();
    if (!error || !isPastTheLine(this.record.state)) return null;
    if (!this.#isBarred()) return error;
    this.#tools.log.error(`${error.message}; looking for a release that works instead`, {
      code: error.code,
    });
    return null;
  }

  /** Whether the way back failed so often that another release is the better hope. */
  #isBarred(): boolean {
    const { state } = this.record;
    return (
      (state.name === "RollingBack" && state.rollbackAttempts >= MAX_ROLLBACKS) ||
      (state.name === "Reverting" && state.failures >= MAX_ROLLBACKS)
    );
  }

  /** Makes an earlier generation what this host is. Throws ROLLBACK_FAILED, INTERRUPTED, … */
  async revert(from: string | null, target: StateOf<"Reverting">["target"]): Promise<void> {
    const reason: Reason = { code: "RELEASE_DENIED", message: "rolled back by hand" };
    await this.happened({ type: "RevertBegun", from, target, reason });
    const error = await this.#runSteps();
    if (error) throw error;
  }

  /** Whether a system is being activated or was booted, and is not committed yet. */
  async isUnproven(toplevel: string): Promise<boolean> {
    const { state, pendingReboot } = this.record;
    if (isPastTheLine(state)) return "release" in state && state.release.toplevel === toplevel;
    return (
      pendingReboot?.release.toplevel === toplevel &&
      !pendingReboot.wayBack &&
      pendingReboot.bootId !== (await this.#tools.services.bootId())
    );
  }

  /** Rolls back a system that is not committed yet, whatever became of its agent. */
  async passDeadline(toplevel: string): Promise<void> {
    if (!(await this.isUnproven(toplevel))) return;
    await this.#noticeReboot();
    const { state } = this.record;
    if (state.name === "Staged" || state.name === "Activating" || state.name === "Verifying") {
      await this.happened(
        rejected("DEADLINE_PASSED", `still ${state.name} when the deadline passed`),
      );
    }
    const error = await this.#runSteps();
    if (error && isPastTheLine(this.record.state)) throw error;
  }

  /** After the reboot that a system was waiting for, it has to prove itself. */
  async #noticeReboot(): Promise<void> {
    const { pendingReboot, state } = this.record;
    if (pendingReboot === null || isPastTheLine(state)) return;
    const bootId = await this.#tools.services.bootId();
    if (bootId !== pendingReboot.bootId) await this.happened({ type: "RebootNoticed", bootId });
  }

  /**
   * Acts on what a poll found, and on what is published while it does: `newer` times, then
   * the next poll goes on.
   */
  async follow(finding: FoundRelease, newer = MAX_NEWER): Promise<TickOutcome> {
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
      case "waiting":
        // A host between two systems goes on trying to get back.
        if (isPastTheLine(this.record.state)) return untouched();
        if (!allowFetch(decision.waits)) {
          await this.#withdrawAllBut(release);
          return untouched();
        }
        return this.#bringIn(release, finding, newer);
      case "update":
        return this.#bringIn(release, finding, newer);
      default:
        return decision satisfies never;
    }
  }

  /**
   * Fetches a release and activates it, unless at that moment something is waited for or it
   * is no longer what the mirrors have: the download may have outlasted a window, and somebody
   * may have held the host, paused the release or published another one meanwhile.
   */
  async #bringIn(release: Release, finding: FoundRelease, newer: number): Promise<TickOutcome> {
    if (!this.#isUnderWay(release) || this.#isBarred() || (await this.#isLost(release))) {
      this.#tools.log.info(`release ${release.sequence}: ${release.toplevel}, to ${release.mode}`);
      await this.happened({ type: "ReleaseAccepted", release });
    }
    const askMirrors = this.record.state.name !== "Imported";
    const watch = askMirrors ? this.#watch(release, finding) : null;
    const begun = await this.#runSteps("Imported").finally(() => watch?.end());
    const instead = watch?.found();
    if (instead && begun?.code === "INTERRUPTED" && !this.#signal?.aborted) {
      this.#tools.log.info(`release ${release.sequence} is not fetched any further`);
      if (newer > 0) return this.follow(instead, newer - 1);
    }
    if (begun !== null) return { ...finding, record: this.record, updated: false, error: begun };
    const now = await finding.lookAgain(this.record, { askMirrors });
    if (now.release?.digest !== release.digest) {
      const why = now.release ? `release ${now.release.sequence} is newer` : now.error?.message;
      this.#tools.log.info(`release ${release.sequence} is not activated: ${why}`);
      if (newer > 0) return this.follow(now, newer - 1);
    }
    await this.#remember(now.memories, now.release);
    if (now.release?.digest !== release.digest || now.decision?.kind !== "update") {
      return { ...now, record: this.record, updated: false };
    }
    const error = await this.#runSteps();
    const updated = error === null && this.record.committed?.digest === release.digest;
    return { ...now, record: this.record, updated, error };
  }

  /**
   * Asks the mirrors, as often as polls do, while a release is fetched, until `end`. Ends the
   * fetch where they have something else for this host, and `found` gives that: over a slow
   * link the rest may take hours.
   */
  #watch(release: Release, finding: FoundRelease): ReleaseWatch {
    const asking = new AbortController();
    const fetching = new AbortController();
    this.#replaced = fetching.signal;
    const { signal } = asking;
    let found: FoundRelease | null = null;
    const watch = async (): Promise<void> => {
      while (!found) {
        await sleep(watchIntervalOf(this.#tools.settings), undefined, { signal });
        const now = await finding.lookAgain(this.record, { askMirrors: true, signal });
        if (signal.aborted || isStillWanted(release, now)) continue;
        found = now;
        fetching.abort();
      }
    };
    // Ended, or of no use: what the mirrors have is looked at after the fetch in any case.
    watch().catch(() => undefined);
    return {
      found: () => found,
      end: () => {
        asking.abort();
        this.#replaced = undefined;
      },
    };
  }

  /** Whether the store no longer has what was brought in: somebody removed its root. */
  async #isLost({ toplevel }: Release): Promise<boolean> {
    if (this.record.state.name !== "Imported") return false;
    return (await this.#tools.store.invalidPaths([toplevel])).length > 0;
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

  /** Withdraws what was begun for another system; what was begun for this one only pauses. */
  async #withdrawAllBut({ toplevel, sequence }: Release): Promise<void> {
    const { state } = this.record;
    if ("release" in state && state.release.toplevel === toplevel) return;
    await this.#withdraw(`release ${sequence} takes its place, and waits`);
  }

  /**
   * Executes states until there is nothing more to do now, or `until` is reached; gives the
   * error that ended it.
   */
  async #runSteps(until?: StateName): Promise<PullError | null> {
    let failure: PullError | null = null;
    for (;;) {
      const { state } = this.record;
      if (state.name === "Idle" || state.name === "Failed") return failure;
      if (state.name === until) return failure;
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
      if (event.type === "ActivationRejected" || event.type === "ActivationInterrupted") {
        failure = new PullError(event.reason.code, event.reason.message);
        this.#tools.log.error(`${failure.message}; going back`, { code: failure.code });
      }
      if (event.type === "AttemptFailed") {
        failure ??= new PullError(event.reason.code, event.reason.message);
      }
      await this.happened(event);
      if (event.type === "AttemptFailed" && isPastTheLine(state)) await this.#removePreparations();
      if (event.type === "RollbackFailed" || event.type === "RevertFailed") return failure;
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
      const signals = [this.#signal, this.#replaced].filter((signal) => signal !== undefined);
      const summary = await fetchClosure(release, this.#tools, AbortSignal.any(signals));
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

    Imported: async ({ release }) => {
      const { store, services, roots, settings } = this.#tools;
      await this.#requireBootSpace(release);
      // Left of the line, so that one that fails costs nothing but the attempt.
      await this.#runHook("preActivate", settings.hooks.preActivate, {
        ...{ release, toplevel: release.toplevel, result: "" },
        previous: await store.profileToplevel(),
      });
      const host = await observe(store);
      const { profile } = host;
      // What failed here before, and could not be left, is nothing to go back to.
      const isFailed = host.running !== null && denialOf(this.record, host.running) !== undefined;
      const running = isFailed && profile !== null ? profile : host.running;
      const generation = await store.profileGeneration();
      const troubles = await services.unitTroubles();
      const failedUnits = [...(troubles?.failed ?? [])];
      const restartedUnits = [...(troubles?.restarts.keys() ?? [])];
      // The way back must outlive a garbage collection in the middle of the way there.
      if (profile !== null) await roots.hold(ROOT.previousProfile, profile);
      if (running !== null) await roots.hold(ROOT.previousRunning, running);
      return {
        type: "BaselineRecorded",
        baseline: { profile, generation, running, failedUnits, restartedUnits },
        bootId: await services.bootId(),
      };
    },

    Staged: async ({ release, attempts }) => {
      if (await this.#tools.activator.hasCheck(release.toplevel)) {
        const { verdict } = await this.#activate(release.toplevel, "check");
        const failure = failureText(verdict);
        if (failure !== null) {
          const message = `switch-to-configuration check: ${failure}`;
          return verdict.kind === "locked"
            ? this.#notBegun(attempts, message)
            : rejected("ACTIVATION_FAILED", message);
        }
      }
      if (provingMode(release.mode) === null) return this.#beginBootCommit(release);
      if (release.mode !== "dry-activate") await this.#armDeadline(release);
      return { type: "ActivationBegun" };
    },

    Activating: async (state) => {
      const { release } = state;
      if (await this.#wasCutOff(state)) {
        return this.#interrupted(state, "ACTIVATION_INTERRUPTED", "the host went down meanwhile");
      }
      const mode = provingMode(release.mode) ?? "test";
      const { verdict, timedOut } = await this.#activate(release.toplevel, mode);
      switch (verdict.kind) {
        case "activated":
          return { type: "ActivationSucceeded" };
        case "unitsFailed":
          // Units that failed before are not the new system's fault, so the health gate
          // judges; where units cannot be seen, nothing else could.
          return (await this.#tools.services.unitTroubles()) === null
            ? rejected("ACTIVATION_FAILED", `switch-to-configuration ${mode}: ${verdict.message}`)
            : { type: "ActivationSucceeded", message: verdict.message };
        case "rebootNeeded":
          return setsProfile(release.mode)
            ? this.#beginBootCommit(release)
            : rejected("ACTIVATION_FAILED", `${mode}: it takes effect only with a reboot`);
        case "locked": {
          const message = `switch-to-configuration ${mode}: another one held the lock all the time`;
          // This run did nothing; what the run of an agent before did is not known.
          return state.restarts === 0
            ? this.#notBegun(state.attempts, message)
            : this.#interrupted(state, "SWITCH_LOCKED", message);
        }
        case "interrupted":
          return this.#interrupted(
            state,
            "ACTIVATION_INTERRUPTED",
            `switch-to-configuration ${mode}: ${verdict.message}`,
          );
        case "failed":
          return rejected(
            timedOut ? "ACTIVATION_TIMEOUT" : "ACTIVATION_FAILED",
            `switch-to-configuration ${mode}: ${verdict.message}`,
          );
        default:
          return verdict satisfies never;
      }
    },

    Verifying: async (state) => {
      const { release, baseline, afterBoot } = state;
      if (!afterBoot && (await this.#wasCutOff(state))) {
        return this.#interrupted(state, "ACTIVATION_INTERRUPTED", "the host went down meanwhile");
      }
      if (release.mode === "dry-activate") return { type: "HealthConfirmed" };
      if (!afterBoot) await this.#makeWay(release);
      const problem = await passHealthGate(
        { release, baseline, afterBoot, trust: this.record.trust },
        this.#tools,
        this.#signal,
      );
      if (problem?.code === "HEALTH_MIRROR") {
        return this.#interrupted(state, problem.code, problem.message);
      }
      if (problem) return { type: "ActivationRejected", reason: problem };
      if (afterBoot || !setsProfile(release.mode)) return { type: "HealthConfirmed" };
      return { type: "CommitBegun", rebootNeeded: await this.#needsReboot(release) };
    },

    Committing: async (state) => {
      const { release, rebootNeeded } = state;
      const { store, services } = this.#tools;
      if ((await store.profileToplevel()) !== release.toplevel) {
        await store.setProfile(release.toplevel);
      }
      // A power cut may have brought the old system back after the new one was proven.
      const { running } = await observe(store);
      const proven = release.mode === "switch" && !rebootNeeded;
      const mode = proven && running !== null && running !== release.toplevel ? "switch" : "boot";
      const { verdict } = await this.#activate(release.toplevel, mode);
      const failure = failureText(verdict);
      if (failure !== null && verdict.kind !== "unitsFailed") {
        const message = `switch-to-configuration ${mode}: ${failure}`;
        if (verdict.kind === "locked") return this.#interrupted(state, "SWITCH_LOCKED", message);
        return verdict.kind === "interrupted"
          ? this.#interrupted(state, "ACTIVATION_INTERRUPTED", message)
          : rejected("ACTIVATION_FAILED", message);
      }
      const problem = judgeBootDefault(release, await observe(store));
      if (problem !== null) return rejected("HEALTH_FAILED", problem);
      if (rebootNeeded) await this.#armBootDeadline(release);
      return { type: "BootDefaultSet", bootId: await services.bootId() };
    },

    Committed: async ({ release, baseline }) => {
      const { roots, log, store, settings } = this.#tools;
      await roots.hold(ROOT.current, release.toplevel);
      if (baseline.profile === null) await roots.release(ROOT.previous);
      else await roots.hold(ROOT.previous, baseline.profile);
      await this.#removeLeftovers();
      const { keep } = settings.generations;
      if (keep !== undefined && setsProfile(release.mode)) await store.pruneGenerations(keep);
      const reboot = this.record.pendingReboot === null ? "" : "; a reboot is needed";
      log.info(`release ${release.sequence} is active: ${release.toplevel}${reboot}`);
      await this.#runLateHook("postCommit", settings.hooks.postCommit, {
        ...{ release, toplevel: release.toplevel, previous: baseline.profile },
        result: this.record.pendingReboot === null ? "committed" : "reboot-needed",
      });
      return { type: "LeftoversRemoved", retryAt: this.#retryAt(1, "INTERNAL") };
    },

    RollingBack: async ({ release, baseline }) => {
      const { store, log, services, settings } = this.#tools;
      const host = await observe(store);
      // A system that was booted runs now, though its mode alone would not have made it so.
      const booted = release.mode === "boot" && host.running === release.toplevel;
      const plan = planRollback(booted ? "switch" : release.mode, baseline);
      if (plan.restoreProfile && host.profile !== baseline.profile) {
        await store.restoreProfile(baseline.generation);
      }
      // Whoever booted the new kernel leaves it only by another boot.
      const { bootedSystem } = settings.paths;
      let needsBoot =
        booted &&
        baseline.profile !== null &&
        (await needsReboot(bootedSystem, store.realPath(baseline.profile)));
      for (const { toplevel, mode } of plan.runs) {
        log.warn(`going back: ${toplevel}, ${mode}`);
        const { verdict } = await this.#activate(toplevel, mode);
        const failure = failureText(verdict);
        // Units that fail in the old system did not fail because of the way back.
        if (failure !== null && verdict.kind !== "unitsFailed") {
          throw new PullError("ROLLBACK_FAILED", `${toplevel} ${mode}: ${failure}`);
        }
        if (verdict.kind === "rebootNeeded") needsBoot = true;
      }
      return {
        type: "RollbackSucceeded",
        ...(needsBoot && { rebootFrom: await services.bootId() }),
      };
    },

    Reverting: async ({ from, target: { toplevel, generation } }) => {
      const { store, log, settings } = this.#tools;
      if ((await store.profileGeneration()) !== generation) await store.restoreProfile(generation);
      log.info(`activating ${toplevel}, generation ${generation}`);
      const { verdict } = await this.#activate(toplevel, "switch");
      const failure = failureText(verdict);
      if (failure !== null && verdict.kind !== "unitsFailed") {
        throw new PullError("ROLLBACK_FAILED", `${toplevel}: ${failure}`);
      }
      if (verdict.kind === "rebootNeeded") log.warn(`${toplevel} takes effect with a reboot`);
      await this.#removeLeftovers();
      await this.#runLateHook("postRollback", settings.hooks.postRollback, {
        ...{ release: null, toplevel, previous: from, result: "reverted" },
      });
      return { type: "RevertSucceeded" };
    },

    RolledBack: async ({ release, attempts, reason, baseline }) => {
      await this.#removeLeftovers();
      this.#tools.log.warn(`release ${release.sequence} was rolled back`);
      await this.#runLateHook("postRollback", this.#tools.settings.hooks.postRollback, {
        ...{ release, toplevel: baseline.profile, previous: release.toplevel },
        ...{ result: "rolled-back", code: reason.code },
      });
      return { type: "LeftoversRemoved", retryAt: this.#retryAt(attempts + 1, reason.code) };
    },
  };

  async #execute(state: State): Promise<Happening> {
    const effect = this.#effects[state.name] as (state: State) => Promise<Happening | null>;
    const event = await effect(state);
    if (!event) throw new Error(`state ${state.name} has nothing to do`);
    return event;
  }

  /** Runs a hook, where there is one and the release changes anything. Throws HOOK_FAILED, INTERRUPTED. */
  async #runHook(
    name: HookName,
    command: readonly string[] | undefined,
    facts: HookFacts,
  ): Promise<void> {
    if (command === undefined || facts.release?.mode === "dry-activate") return;
    const { log, runHook, settings } = this.#tools;
    log.info(`hook ${name}: ${command.join(" ")}`);
    const variables = hookVariables(name, facts);
    try {
      await runHook({ command, variables, timeoutMs: settings.hooks.timeout }, this.#signal);
    } catch (thrown) {
      const error = toPullError(thrown);
      if (error.code !== "HOOK_FAILED") throw error;
      throw new PullError("HOOK_FAILED", `${name}: ${error.message}`, { cause: error });
    }
  }

  /** Runs a hook when all is done: where it fails, that is noted and changes nothing. */
  async #runLateHook(
    name: HookName,
    command: readonly string[] | undefined,
    facts: HookFacts,
  ): Promise<void> {
    try {
      await this.#runHook(name, command, facts);
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      if (code !== "HOOK_FAILED") throw thrown;
      this.#tools.log.warn(message, { code });
      const { release } = facts;
      await this.#tools.history.append({
        at: this.#tools.clock.now().toISOString(),
        ...{ event: "HookFailed", state: this.record.state.name },
        ...(release && { sequence: release.sequence, mode: release.mode }),
        ...(facts.toplevel !== null && { toplevel: facts.toplevel }),
        ...{ code, message },
      });
    }
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
          retryAt: this.#retryAt(state.attempts + 1, reason.code),
        };
      case "Activating":
      case "Verifying":
      case "Committing":
        // A full disk or a missing program is no fault of the system.
        return isTransient(error.code)
          ? this.#interrupted(state, error.code, error.message)
          : { type: "ActivationRejected", reason };
      case "RollingBack":
        return { type: "RollbackFailed", message: error.message };
      case "Reverting":
        return { type: "RevertFailed", message: error.message };
      case "Committed":
      case "RolledBack":
      case "Idle":
      case "Failed":
        return null;
      default:
        return state satisfies never;
    }
  }

  /** Runs switch-to-configuration, waiting a while for another one that holds the lock. */
  async #activate(
    toplevel: string,
    mode: ActivationMode | "check",
  ): Promise<{ verdict: Verdict; timedOut: boolean }> {
    const { activator, log } = this.#tools;
    for (let tries = 1; ; tries++) {
      log.info(`switch-to-configuration ${mode}`);
      const result = await activator.activate(toplevel, mode, this.#signal);
      const verdict = judgeActivation(result);
      this.#details = { lastLines: [...result.lastLines] };
      if (verdict.kind !== "locked" || tries >= LOCK_TRIES) {
        return { verdict, timedOut: result.timedOut };
      }
      log.warn("another switch-to-configuration runs; waiting for it");
      await sleep(LOCK_WAIT_MS, undefined, this.#signal ? { signal: this.#signal } : {});
    }
  }

  /** Another switch-to-configuration held the lock: nothing was done, so there is nothing to undo. */
  #notBegun(attempts: number, message: string): Happening {
    const code = "SWITCH_LOCKED";
    const retryAt = this.#retryAt(attempts + 1, code);
    return { type: "AttemptFailed", reason: { code, message }, retryAt };
  }

  /** Undoes an activation that is not known to be bad, unless that happens again and again. */
  #interrupted(state: { attempts: number }, code: Reason["code"], message: string): Happening {
    const most = this.#tools.settings.activation.attempts;
    return state.attempts + 1 < most
      ? { type: "ActivationInterrupted", reason: { code, message } }
      : rejected(code, `${message}, ${most} times`);
  }

  /** Whether the host was booted since the state was entered. */
  async #wasCutOff(state: { bootId: string }): Promise<boolean> {
    return (await this.#tools.services.bootId()) !== state.bootId;
  }

  /** Begins to commit what can only be proven by a boot; all that can be known now is that it has an agent. */
  async #beginBootCommit(release: Release): Promise<Happening> {
    try {
      await this.#proveAgent(release);
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      if (code !== "HEALTH_FAILED") throw thrown;
      return rejected(code, message);
    }
    return { type: "CommitBegun", rebootNeeded: true };
  }

  /** Throws HEALTH_FAILED where the release brings an agent that does not start. */
  async #proveAgent(release: Release): Promise<void> {
    const { successor, log } = this.#tools;
    if (await successor.prove(release.toplevel, this.#signal)) return;
    log.warn(`release ${release.sequence} has no nixos-pull: this host will follow no other`);
  }

  /**
   * Has the new system's agent, where it is another one, judge the new system: that it
   * does so is the proof that the host can go on being updated. Throws INTERRUPTED for
   * this agent to end, HEALTH_FAILED where the new one does not even start.
   */
  async #makeWay(release: Release): Promise<void> {
    const { successor, services, isService } = this.#tools;
    const { differs, hasUnit } = await successor.look();
    if (!differs) return;
    await this.#proveAgent(release);
    if (!hasUnit) return;
    if (isService) throw new PullError("INTERRUPTED", "making way for the new system's agent");
    await services.restartAgent();
  }

  async #armDeadline(release: Release): Promise<void> {
    const { settings, services } = this.#tools;
    const { timeout } = settings.activation;
    const { health } = settings;
    // The switch itself, the health gate and the commit, each with its own limit, and
    // the time in which another agent takes over.
    const seconds = Math.ceil((2 * timeout + health.settle + health.timeout) / 1000) + 90;
    await this.#holdOwnProgram();
    await services.armDeadline(seconds, await this.#tools.deadline.command(release.toplevel));
  }

  /** Has this agent go back after a boot from which no agent comes. */
  async #armBootDeadline(release: Release): Promise<void> {
    await this.#holdOwnProgram();
    await this.#tools.deadline.armForBoot(release.toplevel);
  }

  async #holdOwnProgram(): Promise<void> {
    const { roots, ownProgram } = this.#tools;
    const ownPath = storePathAround(ownProgram.at(-1) ?? "");
    if (ownPath !== null) await roots.hold(ROOT.agent, ownPath);
  }

  async #needsReboot(release: Release): Promise<boolean> {
    const { settings, store } = this.#tools;
    return needsReboot(settings.paths.bootedSystem, store.realPath(release.toplevel));
  }

  async #requireBootSpace(release: Release): Promise<void> {
    const { settings, store } = this.#tools;
    const { boot, bootedSystem } = settings.paths;
    const missing = await missingBootSpace(boot, bootedSystem, store.realPath(release.toplevel));
    if (missing) {
      throw new PullError(
        "DISK_FULL",
        `${boot}: expected ${missing.needed} bytes free for a kernel and initrd, found ${missing.free}`,
      );
    }
  }

  #retryAt(attempts: number, code: Reason["code"]): string {
    const { settings, clock, random } = this.#tools;
    const { retryBase: base, retryMax: max } = settings.limits;
    // What cannot mend itself is only looked at again in case the host was changed.
    const wait = isTransient(code) ? backoffMs(attempts, { base, max }, random()) : max;
    return new Date(clock.now().getTime() + wait).toISOString();
  }

  async #removeLeftovers(): Promise<void> {
    const { roots, settings } = this.#tools;
    await this.#removePreparations();
    await roots.release(ROOT.pending);
    await abandonImported(this.#tools);
    await removeStaging(settings.paths.staging);
  }

  /** Removes what an activation needs for as long as it runs, and its boot, where it has one. */
  async #removePreparations(): Promise<void> {
    const { roots, services } = this.#tools;
    await services.disarmDeadline();
    await roots.release(ROOT.previousProfile);
    await roots.release(ROOT.previousRunning);
    if (this.record.pendingReboot === null || this.record.pendingReboot.wayBack) {
      await this.#tools.deadline.disarmForBoot();
      await roots.release(ROOT.agent);
    }
  }
}

function rejected(code: Reason["code"], message: string): Happening {
  return { type: "ActivationRejected", reason: { code, message } };
}

/** The store path that a file lies in, or null where it is not in the store. */
function storePathAround(file: string): string | null {
  return /^\/nix\/store\/[^/]+/.exec(file)?.[0] ?? null;
}

/** How often mirrors are asked while a release is fetched, milliseconds. */
function watchIntervalOf({ poll }: Settings): number {
  return Math.max(poll.kind === "interval" ? poll.interval : DEFAULT_INTERVAL_MS, MIN_WATCH_MS);
}

/** Whether what was found lately still asks for this system, or for nothing. */
function isStillWanted({ toplevel }: Release, { release, decision, error }: FoundRelease): boolean {
  if (!release) return error?.code !== "HOST_NOT_IN_RELEASE";
  if (release.toplevel !== toplevel) return false;
  return decision?.kind !== "waiting" || allowFetch(decision.waits);
}
