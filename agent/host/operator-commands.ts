import { identifies, type Confirmable, type Confirmation } from "../core/schedule/confirmation.ts";
import { PullError, toPullError } from "../core/errors.ts";
import { restartedHold, type Hold } from "../core/schedule/hold.ts";
import type { HistoryEntry } from "../core/update/history-entry.ts";
import { isPastTheLine } from "../core/update/states.ts";
import type { AgentTools } from "./agent-tools.ts";
import { readPollReport } from "./poll/poll-report.ts";

/** What a person decides about this host, apart from the agent's own work. */

/** What every command takes: where it lies, and what notes it. */
export type CommandTools = Pick<AgentTools, "commands" | "state" | "history" | "clock">;

/**
 * Holds the host as it is. A waiting service wakes up for it; one at work heeds it at its next
 * decision. Throws the operating system's errors.
 */
export async function holdHost(tools: CommandTools, wish: Omit<Hold, "at">): Promise<Hold> {
  const { commands, state, clock } = tools;
  const hold = { at: clock.now().toISOString(), ...wish };
  await state.prepare();
  await commands.hold(hold);
  const message = [...(hold.until === null ? [] : [`until ${hold.until}`]), hold.reason ?? ""];
  await note(tools, { event: "Held", message: message.filter((it) => it !== "").join(": ") });
  return hold;
}

/**
 * Begins a hold anew that was made while the clock was ahead. A hold that cannot be written
 * stays what it was, and is tried again.
 */
export async function restartHold({
  commands,
  clock,
  log,
}: Pick<AgentTools, "commands" | "clock" | "log">): Promise<void> {
  const hold = restartedHold(await commands.readHold(), clock.now());
  if (!hold) return;
  try {
    await commands.hold(hold);
    log.warn(`the hold was made while the clock was ahead; it ends at ${hold.until} now`);
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    log.error(`the hold could not be corrected: ${message}`, { code });
  }
}

/** Ends a hold, damaged or not; gives whether there was one. */
export async function unholdHost(tools: CommandTools): Promise<boolean> {
  const ended = await tools.commands.unhold();
  if (ended) await note(tools, { event: "HoldEnded" });
  return ended;
}

/** What confirming takes. */
export type ConfirmTools = CommandTools & Pick<AgentTools, "settings" | "files">;

/**
 * Confirms the release that waits. `wanted`, its sequence number or digest, makes sure that it
 * is the one that the person means. Throws NOTHING_TO_CONFIRM.
 */
export async function confirmRelease(
  tools: ConfirmTools,
  wanted: string | undefined,
): Promise<Confirmation> {
  const { settings, commands, state, clock } = tools;
  if (settings.activation.confirm !== "required") {
    const message = "this host asks for no confirmation: activation.confirm is none";
    throw new PullError("NOTHING_TO_CONFIRM", message);
  }
  const release = await waitingRelease(tools);
  if (!release) {
    const message = "no release waits here; `nixos-pull check` says what there is";
    throw new PullError("NOTHING_TO_CONFIRM", message);
  }
  const { sequence, digest, toplevel, mode } = release;
  if (wanted !== undefined && !identifies(wanted, release)) {
    throw new PullError(
      "NOTHING_TO_CONFIRM",
      `expected the release that waits, ${sequence} with digest ${digest}, found ${wanted}`,
    );
  }
  const confirmation = { at: clock.now().toISOString(), sequence, digest, toplevel, mode };
  await state.prepare();
  await commands.confirm(confirmation);
  await note(tools, { event: "ReleaseConfirmed", sequence, toplevel, mode });
  return confirmation;
}

/** The release that the last poll found to be waiting, or else the one that is not activated yet. */
async function waitingRelease({
  files,
  state,
}: Pick<ConfirmTools, "files" | "state">): Promise<Confirmable | null> {
  const poll = await readPollReport(files);
  if (poll?.release && poll.waits.length > 0) return poll.release;
  const { record } = await state.recall();
  if (!record || isPastTheLine(record.state)) return null;
  return "release" in record.state ? record.state.release : null;
}

/**
 * Adds a line to the history, if there is one: a history without a record would look like a
 * record that was lost.
 */
async function note(
  { history, state, clock }: CommandTools,
  entry: Omit<HistoryEntry, "at" | "state">,
): Promise<void> {
  const { record } = await state.recall();
  if (record === null || !(await history.exists())) return;
  await history.append({ at: clock.now().toISOString(), state: record.state.name, ...entry });
}
