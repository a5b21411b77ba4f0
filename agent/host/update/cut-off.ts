import type { AgentTools } from "../agent-tools.ts";

/** Whether the host was booted since the state was entered: everything that ran was cut off. */
export async function wasCutOff(
  { bootId }: { bootId: string },
  { services }: Pick<AgentTools, "services">,
): Promise<boolean> {
  return (await services.bootId()) !== bootId;
}
