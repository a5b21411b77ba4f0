import { PullError } from "../../../core/errors.ts";
import type { Release } from "../../../core/formats/manifest.ts";
import { provingMode } from "../../../core/update/activation.ts";
import {
  denialOf,
  snippetsOf,
  type AgentRecord,
  type FailingSnippets,
} from "../../../core/update/record.ts";
import type { Baseline, StateOf } from "../../../core/update/states.ts";
import { snippetText } from "../../../core/update/switch-output.ts";
import { failureOf, type SwitchVerdict } from "../../../core/update/switch-verdict.ts";
import { lastingUnits } from "../../../core/update/unit-states.ts";
import type { AgentTools } from "../../agent-tools.ts";
import { observe } from "../../observe.ts";
import { armDeadline, type DeadlineTools } from "../arm-deadline.ts";
import type { Happening } from "../happening.ts";
import { runHook, type HookTools } from "../hooks.ts";
import { notBegun } from "../not-begun.ts";
import { attemptFailed, type RetryTools } from "../retry.ts";
import { ROOT } from "../roots.ts";
import type { Step } from "../step.ts";
import { runSwitch, type SwitchTools } from "../switch-run.ts";
import { beginBootCommit, type ProofTools } from "../take-over.ts";

/** What recording the way back takes. */
export type BaselineTools = HookTools &
  Pick<AgentTools, "boot" | "store" | "services" | "systems" | "roots" | "settings">;

/** Records the system to go back to, and holds it: a garbage collection may come at any time. */
export const recordBaseline: Step<"Imported", BaselineTools> = async (state, context, tools) => {
  const { store, services, roots } = tools;
  const { release } = state;
  await requireBootSpace(release, context.record, tools);
  // Before anything on the host changes: a hook that fails here costs only the attempt.
  await runHook(
    "preActivate",
    {
      ...{ release, toplevel: release.toplevel, result: "" },
      previous: await store.profileToplevel(),
    },
    context,
    tools,
  );
  const baseline =
    context.record.unfinishedWayBack?.baseline ?? (await observeBaseline(context.record, tools));
  const { profile, running } = baseline;
  if (profile !== null) await roots.hold(ROOT.previousProfile, profile);
  if (running !== null) await roots.hold(ROOT.previousRunning, running);
  const failing = running === null ? null : await failingIn(running, context.record, tools);
  return {
    event: {
      ...{ type: "BaselineRecorded", baseline, bootId: await services.bootId() },
      ...(failing && { failing }),
    },
  };
};

/**
 * Snippets that fail in the system that runs: as recorded when it was activated, and as the journal
 * has them if it was booted. They are recorded now: a boot of the release has a journal of its own.
 * What a switch by hand left failing is not known.
 */
async function failingIn(
  toplevel: string,
  record: AgentRecord,
  { services, store }: Pick<AgentTools, "services" | "store">,
): Promise<FailingSnippets> {
  const isBooted = (await store.bootedToplevel()) === toplevel;
  const inBoot = isBooted ? ((await services.failedInBoot()) ?? []).map(snippetText) : [];
  return { toplevel, snippets: [...new Set([...snippetsOf(record, toplevel), ...inBoot])] };
}

/** The host as it is, which is what it goes back to. Never a system that was not proven. */
async function observeBaseline(
  record: AgentRecord,
  tools: Pick<AgentTools, "store" | "services" | "systems">,
): Promise<Baseline> {
  const { store, services } = tools;
  // What really runs, a specialisation too: that is gone back to.
  const runs = await store.runningToplevel();
  const found = await store.profileToplevel();
  const before = record.pendingReboot?.baseline;
  const unproven = record.pendingReboot?.release.toplevel;
  // The boot default waits for its boot, and nothing has judged it yet.
  const waits = before !== undefined && found === unproven && runs !== found;
  const profile = waits ? before.profile : found;
  const generation = waits ? before.generation : await store.profileGeneration();
  // A system that failed here and could not be left is no system to go back to.
  const left = record.denied.filter(({ specialisation }) => typeof specialisation === "string");
  const host = await observe(tools, unproven, ...left.map(({ toplevel }) => toplevel));
  const isFailed =
    host.running !== null &&
    denialOf(record, {
      toplevel: host.running,
      ...(host.specialisation !== undefined && { specialisation: host.specialisation }),
    }) !== undefined;
  const isLeft = record.pendingReboot?.wayBack === true && host.running === unproven;
  const running = (isFailed || isLeft) && profile !== null ? profile : runs;
  // Nor does what fails in it excuse the next one: what counts is what failed before it.
  if (isLeft && before !== undefined) return { ...before, profile, generation, running };
  const troubles = await services.unitTroubles();
  const active = await services.activeUnits();
  return {
    ...{ profile, generation, running },
    failedUnits: [...(troubles?.failed ?? [])],
    restartedUnits: [...(troubles?.restarts.keys() ?? [])],
    ...(active && { activeUnits: lastingUnits(active) }),
  };
}

/** Throws DISK_FULL if the boot loader's directory has no room for the release. */
async function requireBootSpace(
  release: Release,
  { unfinishedWayBack }: AgentRecord,
  { boot, store, settings }: Pick<AgentTools, "boot" | "store" | "settings">,
): Promise<void> {
  const { keep } = settings.generations;
  const spared = unfinishedWayBack?.baseline.generation ?? (await store.profileGeneration());
  // The release itself will be one of those that are kept.
  const beside = keep === undefined ? Number.POSITIVE_INFINITY : keep - 1;
  const generations = await store.splitGenerations(beside, spared);
  const missing = await boot.missingSpace(release.toplevel, generations);
  if (!missing) return;
  throw new PullError(
    "DISK_FULL",
    `${missing.directory}: expected ${missing.needed} bytes free for a kernel and initrd, ` +
      `found ${missing.free}`,
  );
}

/** What the last checks before an activation take. */
export type StageTools = SwitchTools & ProofTools & DeadlineTools & RetryTools;

/**
 * Runs the system's own checks before a live switch, and arms the deadline. The checks of `boot`
 * and `dry-activate` are others than those of `check`, and are asked by these themselves.
 */
export const stage: Step<"Staged", StageTools> = async (state, context, tools) => {
  const { release } = state;
  const { signal } = context;
  const action = provingMode(release.mode);
  if (action === null) return { event: await beginBootCommit(release, signal, tools) };
  if (action === "dry-activate") return { event: { type: "ActivationBegun" } };
  let details = {};
  if (await tools.activator.hasCheck(release.toplevel)) {
    const run = await runSwitch(
      {
        ...{ toplevel: release.toplevel, action: "check", knownSnippets: [] },
        ranBefore: state.baseline.running,
      },
      signal,
      tools,
    );
    ({ details } = run);
    const event = await judgeCheck(state, run.verdict, signal, tools);
    if (event) return { event, details };
  }
  await armDeadline(release, tools);
  return { event: { type: "ActivationBegun" }, details };
};

/** What a run of `check` leads to; null if nothing speaks against a switch. It touched nothing. */
async function judgeCheck(
  state: StateOf<"Staged">,
  verdict: SwitchVerdict,
  signal: AbortSignal | undefined,
  tools: StageTools,
): Promise<Happening | null> {
  if (verdict.kind === "notBegun") return notBegun(state, verdict, signal, tools);
  const failure = failureOf(verdict);
  if (failure === null) return null;
  const message = `not begun: switch-to-configuration check: ${failure}`;
  return attemptFailed(state, { code: "SWITCH_REFUSED", message }, tools);
}
