import { PullError, toPullError } from "../../core/errors.ts";
import type { Release } from "../../core/formats/manifest.ts";
import type { AgentTools } from "../agent-tools.ts";
import { rejected, type Happening } from "./happening.ts";

/** What proving a release's agent takes. */
export type ProofTools = Pick<AgentTools, "successor" | "log">;

/** Throws HEALTH_FAILED if the release brings an agent that does not start. */
async function proveAgent(
  release: Release,
  signal: AbortSignal | undefined,
  { successor, log }: ProofTools,
): Promise<void> {
  if (await successor.prove(release.toplevel, signal)) return;
  log.warn(`release ${release.sequence} has no nixos-pull: this host will follow no other`);
}

/**
 * Begins to commit a release that only a boot can prove. All that can be known before the boot
 * is that the release has an agent that starts.
 */
export async function beginBootCommit(
  release: Release,
  signal: AbortSignal | undefined,
  tools: ProofTools,
): Promise<Happening> {
  try {
    await proveAgent(release, signal, tools);
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    if (code !== "HEALTH_FAILED") throw thrown;
    return rejected(code, message);
  }
  return { type: "CommitBegun", rebootNeeded: true };
}

/** What making way takes. */
export type TakeOverTools = ProofTools & Pick<AgentTools, "services" | "isService">;

/**
 * Has the new system's agent, if it is another one, judge the new system: that proves that the
 * host can go on being updated. Throws INTERRUPTED for this agent to end, HEALTH_FAILED if the
 * new one does not even start.
 */
export async function makeWay(
  release: Release,
  signal: AbortSignal | undefined,
  tools: TakeOverTools,
): Promise<void> {
  const { differs, hasUnit } = await tools.successor.look();
  if (!differs) return;
  await proveAgent(release, signal, tools);
  if (!hasUnit) return;
  if (tools.isService) throw new PullError("INTERRUPTED", "making way for the new system's agent");
  await tools.services.restartAgent();
}
