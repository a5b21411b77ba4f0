import { toPullError } from "../../core/errors.ts";
import { directoriesAmong } from "../../core/formats/mirror-address.ts";
import type { AgentTools } from "../agent-tools.ts";
import { signedReport, type SignedReportTools } from "./host-report.ts";

/** What leaving reports on sticks takes. */
export type StickReportTools = SignedReportTools & Pick<AgentTools, "outlets" | "log">;

/**
 * Leaves a signed report on every stick that is there and can be written, if the settings ask
 * for that: it travels home with the stick. What goes wrong is a warning.
 */
export async function handReport(tools: StickReportTools): Promise<void> {
  const { settings, outlets, log } = tools;
  const sticks = directoriesAmong(settings.mirrors);
  if (!settings.sticks.reports || sticks.length === 0) return;
  let envelope: string | null = null;
  for (const { address } of sticks) {
    try {
      envelope ??= (await signedReport(tools)).envelope;
      await outlets.leaveOnStick(address, envelope);
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      log.warn(`${address}: the report could not be left there: ${message}`, { code });
    }
  }
}
