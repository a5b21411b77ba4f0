import { PullError } from "../core/errors.ts";
import type { AgentTools } from "./agent-tools.ts";

/**
 * Does work that only one process of a host may do at a time. Throws AGENT_BUSY if another one
 * does such work right now.
 */
export async function withUpdateLock<T>(
  { state, locks }: Pick<AgentTools, "state" | "locks">,
  work: () => Promise<T>,
): Promise<T> {
  await state.prepare();
  const release = await locks.take("update");
  if (!release) {
    throw new PullError(
      "AGENT_BUSY",
      `another nixos-pull is in the middle of an update (${locks.fileOf("update")} is locked); ` +
        "`nixos-pull status` shows how far it is",
    );
  }
  try {
    await state.removeUnfinished();
    return await work();
  } finally {
    await release();
  }
}
