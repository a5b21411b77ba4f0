import { identifies, type Confirmable, type Confirmation } from "../core/schedule/confirmation.ts";
import { PullError } from "../core/errors.ts";
import type { Hold } from "../core/schedule/hold.ts";
import { isPastTheLine } from "../core/update/machine.ts";
import { writeConfirmation } from "../effects/state/confirmation-file.ts";
import type { HistoryEntry } from "../effects/state/history.ts";
import { removeHold, writeHold } from "../effects/state/hold-file.ts";
import { Agent, type AgentTools } from "./agent.ts";

/** What a person decides about this host from outside of the agent's own work. */

/**
 * Holds the host as it is. A waiting service wakes up for it; one at work minds it
 * at its next decision.
 */
export async function holdHost(tools: AgentTools, wish: Omit<Hold, "at">): Promise<Hold> {
  const { settings, state, clock } = tools;
  const hold = { at: clock.now().toISOString(), ...wish };
  await state.prepare();
  await writeHold(settings.paths.state, hold);
  const message = [...(hold.until === null ? [] : [`until ${hold.until}`]), hold.reason ?? ""];
  await note(tools, { event: "Held", message: message.filter((it) => it !== "").join(": ") });
  return hold;
}

/** Ends a hold, damaged or not; gives whether there was one. */
export async function unholdHost(tools: AgentTools): Promise<boolean> {
  const ended = await removeHold(tools.settings.paths.state);
  if (ended) await note(tools, { event: "HoldEnded" });
  return ended;
}

/**
 * Confirms the release that waits; `wanted`, its sequence number or digest, makes sure that it
 * is the one that is meant. Throws NOTHING_TO_CONFIRM.
 */
export async function confirmRelease(
  tools: AgentTools,
  wanted: string | undefined,
): Promise<Confirmation> {
  const { settings, state, clock } = tools;
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
  await writeConfirmation(settings.paths.state, confirmation);
  await note(tools, { event: "ReleaseConfirmed", sequence, toplevel, mode });
  return confirmation;
}

/** What the last poll found to be waiting, or what was fetched and is not activated yet. */
async function waitingRelease(tools: AgentTools): Promise<Confirmable | null> {
  const { waiting } = (await new Agent(tools).lastPoll()) ?? {};
  if (waiting) return waiting.release;
  const { record } = await tools.state.recall();
  if (!record || isPastTheLine(record.state)) return null;
  return "release" in record.state ? record.state.release : null;
}

/**
 * Adds a line to the history, where there is one: a history without a record would look like
 * a record that was lost.
 */
async function note(
  { history, state, clock }: AgentTools,
  entry: Omit<HistoryEntry, "at" | "state">,
): Promise<void> {
  const { record } = await state.recall();
  if (record === null || !(await history.exists())) return;
  await history.append({ at: clock.now().toISOString(), state: record.state.name, ...entry });
}
