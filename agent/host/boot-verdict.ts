import { judgeBoot, type BootVerdict } from "../core/update/machine.ts";
import type { AgentTools } from "./agent-tools.ts";

/** What is known of the system that was booted: whether a pending one proved itself. */
export async function bootVerdict({
  services,
  state,
}: Pick<AgentTools, "services" | "state">): Promise<BootVerdict> {
  return judgeBoot(await state.load({ acceptLoss: true }), await services.bootId());
}
