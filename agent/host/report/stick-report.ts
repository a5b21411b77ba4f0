import { fileURLToPath } from "node:url";
import { toPullError } from "../../core/errors.ts";
import { writeOnStick } from "../../effects/report/stick-report-writer.ts";
import type { AgentTools } from "../agent.ts";
import { signedReport } from "./host-report.ts";

/**
 * Leaves a signed report on every stick that is there and can be written, where the
 * settings ask for that: it travels home with the stick. What goes wrong is a warning.
 */
export async function handReport(tools: AgentTools): Promise<void> {
  const { settings, log } = tools;
  const sticks = settings.mirrors.filter((address) => address.startsWith("file:"));
  if (!settings.sticks.reports || sticks.length === 0) return;
  let envelope: string | null = null;
  for (const address of sticks) {
    try {
      envelope ??= (await signedReport(tools)).envelope;
      await writeOnStick(fileURLToPath(address), `${settings.hostname}.json`, envelope);
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      log.warn(`${address}: the report could not be left there: ${message}`, { code });
    }
  }
}
