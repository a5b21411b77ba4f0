import { PullError, toPullError } from "../../core/errors.ts";
import { isHeld } from "../../core/schedule/hold.ts";
import {
  isOpen,
  nextOpening,
  spreadOf,
  type Spread,
  type Window,
} from "../../core/schedule/window.ts";
import type { Settings } from "../../core/settings.ts";
import { formatDuration } from "../../core/text/duration.ts";
import type { HookFacts } from "../../core/update/hook.ts";
import type { PendingReboot } from "../../core/update/record.ts";
import { isPastTheLine } from "../../core/update/states.ts";
import type { AgentTools } from "../agent-tools.ts";
import { runHook, runLateHook, type LateHookTools } from "./hooks.ts";
import { whyTaken } from "./pending-boot.ts";
import type { Pass } from "./run.ts";

/** A host that does not come up as the pending system is not rebooted for ever. */
const MAX_REBOOTS = 3;

/** What deciding about a reboot takes. */
type RebootRuleTools = Pick<AgentTools, "settings" | "clock" | "commands" | "log">;

/** What rebooting takes. */
export type RebootTools = RebootRuleTools &
  LateHookTools &
  Pick<AgentTools, "services" | "rebootLock" | "timers" | "store">;

/**
 * Reboots for a pending system if the policy allows it now and nobody blocks it, after the
 * grace period. With FleetLock the host reboots only while it holds a slot. Gives the error that
 * stood in the way.
 */
export async function rebootIfDue(pass: Pass<RebootTools>): Promise<PullError | null> {
  const { journal, tools, signal } = pass;
  const { settings, log, services, timers } = tools;
  const { pendingReboot } = journal.record;
  const { policy, grace } = settings.reboot;
  if (pendingReboot === null) return null;
  const { wayBack, release, requested } = pendingReboot;
  if (policy === "never" && !wayBack) return null;
  // A system that failed does its work badly or not at all, so leaving it waits for nothing.
  const mayReboot = async (): Promise<boolean> =>
    wayBack || ((await isAllowed(tools)) && !(await isTaken(pendingReboot, tools)));
  if (!(await mayReboot())) return null;
  const name = `${wayBack ? "the way back from " : ""}release ${release.sequence}`;
  if (requested >= MAX_REBOOTS) {
    // Others may reboot while this host waits for a person.
    if (journal.record.holdsRebootSlot) await giveBackSlot(pass);
    return new PullError(
      "REBOOT_LOOP",
      `${name}: a reboot was asked for ${MAX_REBOOTS} times and did not come`,
    );
  }
  try {
    await requireNobodyBlocks(name, wayBack, tools);
    await takeSlot(wayBack, pass);
    const announcement = `rebooting for ${name} in ${formatDuration(grace)}`;
    log.warn(announcement);
    await services.warnUsers(`nixos-pull: ${announcement}`);
    await timers.sleep(grace, signal);
    // The grace period is there for people to say no.
    if (!(await mayReboot())) {
      await giveBackSlot(pass);
      return null;
    }
    await requireNobodyBlocks(name, wayBack, tools);
    await prepareReboot(pendingReboot, pass);
    await requestReboot(name, wayBack, pass);
    return null;
  } catch (thrown) {
    const error = toPullError(thrown);
    // Others may reboot while this host waits for somebody.
    if (error.code === "REBOOT_BLOCKED" || error.code === "HOOK_FAILED") {
      if (journal.record.holdsRebootSlot) await giveBackSlot(pass);
    }
    return error;
  }
}

/** Whether a person did what keeps the boot from being the pending system's; a poll calls it off. */
async function isTaken(pending: PendingReboot, tools: RebootTools): Promise<boolean> {
  const why = await whyTaken(pending, tools);
  if (why !== null) tools.log.warn(`no reboot: ${why}`, { code: "CHANGED_BY_HAND" });
  return why !== null;
}

/**
 * Asks for the reboot, which is counted first: it ends this agent. One that is refused does not
 * count, since somebody may have begun to block it just now, and holds no slot. Throws REBOOT_BLOCKED then, and what
 * the request threw otherwise.
 */
async function requestReboot(
  name: string,
  wayBack: boolean,
  pass: Pass<RebootTools>,
): Promise<void> {
  const { journal, tools } = pass;
  await journal.happened({ type: "RebootRequested" });
  try {
    await tools.services.reboot({ force: wayBack });
  } catch (thrown) {
    await journal.happened({ type: "RebootRefused" });
    if (journal.record.holdsRebootSlot) await giveBackSlot(pass);
    await requireNobodyBlocks(name, wayBack, tools);
    throw thrown;
  }
}

/** Throws REBOOT_BLOCKED with the names of those who block a reboot; nobody blocks the way back. */
async function requireNobodyBlocks(
  name: string,
  wayBack: boolean,
  { services, settings }: RebootTools,
): Promise<void> {
  if (wayBack) return;
  const blockers = await services.rebootBlockers({ users: settings.reboot.users === "wait" });
  if (blockers.length === 0) return;
  const message = `the reboot for ${name} waits for ${blockers.join(", ")}`;
  throw new PullError("REBOOT_BLOCKED", message);
}

/** Takes a slot of the FleetLock server, if there is one. Throws REBOOT_REFUSED, … */
async function takeSlot(wayBack: boolean, { journal, tools }: Pass<RebootTools>): Promise<void> {
  const { rebootLock, log } = tools;
  if (!rebootLock) return;
  // Noted first: a slot that nobody knows of would be held for ever.
  if (!journal.record.holdsRebootSlot) await journal.happened({ type: "RebootSlotTaken" });
  await rebootLock.take().catch((error: unknown) => {
    // The way back tells others of the reboot and does not ask them.
    if (!wayBack) throw error;
    log.warn(`rebooting without a reboot slot: ${toPullError(error).message}`);
  });
}

/** Runs the hook preReboot. Throws HOOK_FAILED, but for the way back, which waits for nothing. */
async function prepareReboot(
  { release, baseline, wayBack }: PendingReboot,
  { journal, tools, signal }: Pass<RebootTools>,
): Promise<void> {
  if (!tools.settings.hooks.preReboot && !tools.settings.hooks.postBoot) return;
  if (!journal.record.preparedReboot) await journal.happened({ type: "RebootPrepared" });
  const facts: HookFacts = {
    release,
    toplevel: wayBack ? baseline.profile : release.toplevel,
    previous: await tools.store.runningToplevel(),
    result: "rebooting",
  };
  const context = { record: journal.record, signal };
  if (wayBack) await runLateHook("preReboot", facts, context, tools);
  else await runHook("preReboot", facts, context, tools);
}

/**
 * Runs the hook postBoot if preReboot ran and no reboot is waited for any more: what was drained
 * goes back to work. A failure is noted and changes nothing. Throws INTERRUPTED.
 */
export async function endReboot({
  journal,
  tools,
  signal,
}: Pass<LateHookTools & Pick<AgentTools, "store">>): Promise<void> {
  const { record } = journal;
  if (!record.preparedReboot || record.pendingReboot !== null || isPastTheLine(record.state))
    return;
  const toplevel = await tools.store.runningToplevel();
  const facts: HookFacts = { release: null, toplevel, previous: null, result: "booted" };
  await runLateHook("postBoot", facts, { record, signal }, tools);
  await journal.happened({ type: "RebootEnded" });
}

type RebootSettings = Pick<Settings, "hostname" | "reboot" | "maintenance">;

/** When a host whose policy is `window` may reboot next, after `now`; null if never. */
export function nextRebootWindow(settings: RebootSettings, now: Date): Date | null {
  return nextOpening(rebootWindows(settings), now, rebootSpread(settings));
}

function rebootWindows({ reboot, maintenance }: RebootSettings): readonly Window[] {
  return reboot.window ? [reboot.window] : maintenance.windows;
}

function rebootSpread({ hostname, maintenance }: RebootSettings): Spread {
  return spreadOf(hostname, maintenance.jitter);
}

/** Whether this host's rules let it reboot now. */
async function isAllowed({ settings, log, clock, commands }: RebootRuleTools): Promise<boolean> {
  const now = clock.now();
  const { policy } = settings.reboot;
  if (policy === "never") return false;
  if (policy === "window" && !isOpen(rebootWindows(settings), now, rebootSpread(settings))) {
    return false;
  }
  if (!isHeld(await commands.readHold(), now)) return true;
  log.info("a reboot is pending, but this host is held", { code: "HELD" });
  return false;
}

/**
 * Gives a reboot slot back once no reboot is pending any more, or it may not come now: other
 * hosts wait for the slot. A slot that could not be given back is tried again at the next poll.
 */
export async function releaseRebootSlot(
  pass: Pass<RebootRuleTools & Pick<AgentTools, "rebootLock">>,
): Promise<void> {
  const { pendingReboot, holdsRebootSlot } = pass.journal.record;
  if (!holdsRebootSlot) return;
  if (pendingReboot && (pendingReboot.wayBack || (await isAllowed(pass.tools)))) return;
  await giveBackSlot(pass);
}

async function giveBackSlot({
  journal,
  tools: { rebootLock, log },
}: Pass<Pick<AgentTools, "rebootLock" | "log">>): Promise<void> {
  if (!rebootLock) return;
  try {
    await rebootLock.release();
    await journal.happened({ type: "RebootSlotReleased" });
  } catch (error) {
    const { code, message } = toPullError(error);
    log.warn(`the reboot slot is still held: ${message}`, { code });
  }
}
