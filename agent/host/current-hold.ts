import { isHeld, type HoldRead } from "../core/schedule/hold.ts";
import type { AgentTools } from "./agent-tools.ts";

/** The hold that counts now; one that has ended is none. */
export async function currentHold({
  commands,
  clock,
}: Pick<AgentTools, "commands" | "clock">): Promise<HoldRead> {
  const hold = await commands.readHold();
  return isHeld(hold, clock.now()) ? hold : { kind: "none" };
}
