import type { Release } from "../../core/formats/manifest.ts";
import type { AgentTools } from "../agent-tools.ts";
import { ROOT } from "./roots.ts";

/** Time for another agent to take over, in seconds. */
const TAKE_OVER_SECONDS = 90;

/** What arming a deadline takes. */
export type DeadlineTools = Pick<
  AgentTools,
  "settings" | "services" | "deadline" | "roots" | "ownProgram"
>;

/** Has the host go back by itself if no agent commits the release in time. */
export async function armDeadline(release: Release, tools: DeadlineTools): Promise<void> {
  const { settings, services, deadline } = tools;
  const { timeout } = settings.activation;
  const { health } = settings;
  // The switch itself, the health gate and the commit, each with its own limit.
  const ms = 2 * timeout + health.settle + health.timeout;
  await holdOwnProgram(tools);
  const command = await deadline.command(release.toplevel);
  await services.armDeadline(Math.ceil(ms / 1000) + TAKE_OVER_SECONDS, command);
}

/** Has this agent go back after a boot from which no agent comes. */
export async function armBootDeadline(release: Release, tools: DeadlineTools): Promise<void> {
  await holdOwnProgram(tools);
  await tools.deadline.armForBoot(release.toplevel);
}

/** Keeps the program that goes back: the new system may bring another one along. */
async function holdOwnProgram({ roots, ownProgram }: DeadlineTools): Promise<void> {
  const ownPath = storePathAround(ownProgram.at(-1) ?? "");
  if (ownPath !== null) await roots.hold(ROOT.agent, ownPath);
}

/** The store path that a file lies in, or null if it is not in the store. */
function storePathAround(file: string): string | null {
  return /^\/nix\/store\/[^/]+/.exec(file)?.[0] ?? null;
}
