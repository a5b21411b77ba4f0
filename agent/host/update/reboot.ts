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
import type { AgentTools } from "../agent-tools.ts";
import type { Pass } from "./run.ts";

/** A host that does not come up as the pending system is not rebooted for ever. */
const MAX_REBOOTS = 3;

/** What deciding about a reboot takes. */
type RebootRuleTools = Pick<AgentTools, "settings" | "clock" | "commands" | "log">;

/** What rebooting takes. */
export type RebootTools = RebootRuleTools & Pick<AgentTools, "services" | "rebootLock" | "timers">;

/**
 * Reboots for a pending system if the policy allows it now, after the grace period. With
 * FleetLock the host reboots only while it holds a slot. Gives the error that stood in the way.
 */
export async function rebootIfDue(pass: Pass<RebootTools>): Promise<PullError | null> {
  const { journal, tools, signal } = pass;
  const { settings, log, services, rebootLock, timers } = tools;
  const { pendingReboot } = journal.record;
  const { policy, grace } = settings.reboot;
  if (pendingReboot === null) return null;
  const { wayBack, release, requested } = pendingReboot;
  if (policy === "never" && !wayBack) return null;
  // A system that failed does its work badly or not at all, so leaving it waits for nothing.
  const mayReboot = async (): Promise<boolean> => wayBack || (await isAllowed(tools));
  if (!(await mayReboot())) return null;
  const name = `${wayBack ? "the way back from " : ""}release ${release.sequence}`;
  if (requested >= MAX_REBOOTS) {
    return new PullError(
      "REBOOT_LOOP",
      `${name}: a reboot was asked for ${MAX_REBOOTS} times and did not come`,
    );
  }
  try {
    if (rebootLock) {
      // Noted first: a slot that nobody knows of would be held for ever.
      if (!journal.record.holdsRebootSlot) await journal.happened({ type: "RebootSlotTaken" });
      await rebootLock.take().catch((error: unknown) => {
        // The way back tells others of the reboot and does not ask them.
        if (!wayBack) throw error;
        log.warn(`rebooting without a reboot slot: ${toPullError(error).message}`);
      });
    }
    log.warn(`rebooting for ${name} in ${formatDuration(grace)}`);
    await timers.sleep(grace, signal);
    // The grace period is there for people to say no.
    if (!(await mayReboot())) {
      await giveBackSlot(pass);
      return null;
    }
    await journal.happened({ type: "RebootRequested" });
    await services.reboot();
    return null;
  } catch (error) {
    return toPullError(error);
  }
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
