import { setTimeout as sleep } from "node:timers/promises";
import { formatDuration } from "../../core/text/duration.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import { isHeld } from "../../core/schedule/hold.ts";
import type { Settings } from "../../core/settings.ts";
import { isOpen, nextOpening, spreadOf, type Window } from "../../core/schedule/window.ts";
import { readHold } from "../../effects/state/hold-file.ts";
import type { AgentTools } from "../agent.ts";
import type { ReleaseRun } from "./release-run.ts";

/** A host that does not come up as the pending system is not rebooted for ever. */
const MAX_REBOOTS = 3;

/**
 * Reboots for a pending system where the policy allows it now, after the grace period;
 * with FleetLock only while holding a slot. Gives the error that stood in the way.
 */
export async function rebootIfDue(
  run: ReleaseRun,
  tools: AgentTools,
  signal: AbortSignal | undefined,
): Promise<PullError | null> {
  const { settings, log, services, rebootLock } = tools;
  const { pendingReboot } = run.record;
  const { policy, grace } = settings.reboot;
  if (pendingReboot === null || policy === "never") return null;
  const { wayBack, release, requested } = pendingReboot;
  // A system that failed does its work badly or not at all: leaving it waits for nothing.
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
      if (!run.record.holdsRebootSlot) await run.happened({ type: "RebootSlotTaken" });
      await rebootLock.take();
    }
    log.warn(`rebooting for ${name} in ${formatDuration(grace)}`);
    await sleep(grace, undefined, signal ? { signal } : {});
    // The grace period is there for people to say no.
    if (!(await mayReboot())) {
      await giveBackSlot(run, tools);
      return null;
    }
    await run.happened({ type: "RebootRequested" });
    await services.reboot();
    return null;
  } catch (error) {
    return toPullError(error);
  }
}

/** Whether a host whose policy is `window` may reboot now. */
function isRebootWindowOpen(settings: RebootSettings, now: Date): boolean {
  return isOpen(
    rebootWindows(settings),
    now,
    spreadOf(settings.hostname, settings.maintenance.jitter),
  );
}

/** When it may next, after `now`. */
export function nextRebootWindow(settings: RebootSettings, now: Date): Date | null {
  const spread = spreadOf(settings.hostname, settings.maintenance.jitter);
  return nextOpening(rebootWindows(settings), now, spread);
}

type RebootSettings = Pick<Settings, "hostname" | "reboot" | "maintenance">;

function rebootWindows({ reboot, maintenance }: RebootSettings): readonly Window[] {
  return reboot.window ? [reboot.window] : maintenance.windows;
}

/** Whether this host's rules let it reboot now. */
async function isAllowed({ settings, log, clock }: AgentTools): Promise<boolean> {
  const now = clock.now();
  if (settings.reboot.policy === "never") return false;
  if (settings.reboot.policy === "window" && !isRebootWindowOpen(settings, now)) return false;
  if (!isHeld(await readHold(settings.paths.state), now)) return true;
  log.info("a reboot is pending, but this host is held", { code: "HELD" });
  return false;
}

/**
 * Gives a reboot slot back once no reboot is pending any more, or it may not come now: other
 * hosts wait for the slot. Tried again at the next poll.
 */
export async function releaseRebootSlot(run: ReleaseRun, tools: AgentTools): Promise<void> {
  const { pendingReboot, holdsRebootSlot } = run.record;
  if (!holdsRebootSlot) return;
  if (pendingReboot && (pendingReboot.wayBack || (await isAllowed(tools)))) return;
  await giveBackSlot(run, tools);
}

async function giveBackSlot(
  run: ReleaseRun,
  { rebootLock, log }: Pick<AgentTools, "rebootLock" | "log">,
): Promise<void> {
  if (!rebootLock) return;
  try {
    await rebootLock.release();
    await run.happened({ type: "RebootSlotReleased" });
  } catch (error) {
    const { code, message } = toPullError(error);
    log.warn(`the reboot slot is still held: ${message}`, { code });
  }
}
