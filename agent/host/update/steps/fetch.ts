import { toPullError } from "../../../core/errors.ts";
import type { ArchiveListener, CollectionListener, FetchSummary } from "../../../core/ports.ts";
import type { AgentTools } from "../../agent-tools.ts";
import { activeToplevel } from "../../observe.ts";
import { attemptFailed, type RetryTools } from "../retry.ts";
import { ROOT } from "../roots.ts";
import type { Step } from "../step.ts";

/** What fetching takes. */
export type FetchStepTools = RetryTools &
  Pick<AgentTools, "roots" | "closures" | "activator" | "systems" | "history" | "clock" | "log"> & {
    readonly onArchiveRead?: ArchiveListener;
  };

/**
 * Brings the closure into the store and holds it there. The next attempt soon follows one that
 * brought something, as over a link that breaks often. A system that does not go with this host
 * is refused before anything is touched.
 */
export const fetchStep: Step<"Fetching", FetchStepTools> = async (state, { signal }, tools) => {
  const { roots, closures, activator, systems, history, clock, log, onArchiveRead } = tools;
  const { release } = state;
  await roots.hold(ROOT.pending, release.toplevel);
  const attempt = { ...state, advanced: false };
  const onAdvance = (): void => {
    attempt.advanced = true;
  };
  const onCollected: CollectionListener = async ({ wanted, freed }) => {
    const message = `the store had no room: ${freed} bytes of garbage were collected, for ${wanted}`;
    const { sequence, toplevel } = release;
    await history.append({
      ...{ at: clock.now().toISOString(), event: "GarbageCollected", state: state.name },
      ...{ sequence, toplevel, message },
    });
  };
  // If it came here and failed, what it is made of may be damaged: then that is not its fault.
  const verify = (state.undone ?? 0) > 0;
  const how = { signal, onArchiveRead, onAdvance, onCollected };
  let summary: FetchSummary;
  try {
    summary = await closures.fetch(release, { ...how, verify });
    if (!verify && !(await activator.canActivate(release.toplevel))) {
      summary = await closures.fetch(release, { ...how, verify: true });
    }
  } catch (thrown) {
    const error = toPullError(thrown);
    if (!attempt.advanced || error.code === "INTERRUPTED") throw error;
    return { event: attemptFailed(attempt, error, tools) };
  }
  const { deltasUsed: used, deltasFailed: failed } = summary;
  const details = used + failed > 0 ? { deltas: { used, failed } } : {};
  log.info(`imported ${summary.newPaths} new of ${summary.paths} paths`, { ...summary });
  if (!(await activator.canActivate(release.toplevel))) {
    const message = `${release.toplevel}: expected an executable bin/switch-to-configuration`;
    return { event: attemptFailed(state, { code: "NOT_A_SYSTEM", message }, tools), details };
  }
  const name = await systems.name(release.toplevel);
  if (name !== null && name !== release.hostname) {
    const message =
      `${release.toplevel} calls itself ${JSON.stringify(name)}: expected ` +
      `${JSON.stringify(release.hostname)}, or no name of its own`;
    return { event: attemptFailed(state, { code: "HOSTNAME_MISMATCH", message }, tools), details };
  }
  // Throws if the system does not have it.
  await activeToplevel(release, tools);
  return { event: { type: "ClosureImported" }, details };
};
