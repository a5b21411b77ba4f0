import type { ArchiveListener } from "../../../core/ports.ts";
import type { AgentTools } from "../../agent-tools.ts";
import { attemptFailed, type RetryTools } from "../retry.ts";
import { ROOT } from "../roots.ts";
import type { Step } from "../step.ts";

/** What fetching takes. */
export type FetchStepTools = RetryTools &
  Pick<AgentTools, "roots" | "closures" | "activator" | "log"> & {
    readonly onArchiveRead?: ArchiveListener;
  };

/** Brings the closure into the store and holds it there. */
export const fetchStep: Step<"Fetching", FetchStepTools> = async (state, { signal }, tools) => {
  const { roots, closures, activator, log, onArchiveRead } = tools;
  const { release } = state;
  await roots.hold(ROOT.pending, release.toplevel);
  const summary = await closures.fetch(release, { signal, onArchiveRead });
  const { deltasUsed: used, deltasFailed: failed } = summary;
  const details = used + failed > 0 ? { deltas: { used, failed } } : {};
  log.info(`imported ${summary.newPaths} new of ${summary.paths} paths`, { ...summary });
  if (!(await activator.canActivate(release.toplevel))) {
    const message = `${release.toplevel}: expected an executable bin/switch-to-configuration`;
    return { event: attemptFailed(state, { code: "NOT_A_SYSTEM", message }, tools), details };
  }
  return { event: { type: "ClosureImported" }, details };
};
