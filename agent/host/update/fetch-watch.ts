import type { Release } from "../../core/formats/manifest.ts";
import { allowFetch } from "../../core/schedule/waiting.ts";
import { DEFAULT_INTERVAL_MS } from "../../core/schedule/poll-schedule.ts";
import type { Settings } from "../../core/settings.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { FoundRelease } from "../poll/finding.ts";
import type { Journal } from "./journal.ts";

/** Looking at the mirrors more often than this would only slow a fetch down. */
const MIN_WATCH_MS = 10_000;

/** A look at the mirrors while a release is fetched. */
export interface FetchWatch {
  /** Aborted once the release that is being fetched is no longer wanted. */
  readonly replaced: AbortSignal;
  /** What is wanted instead; null as long as nothing is. */
  readonly found: () => FoundRelease | null;
  readonly end: () => void;
}

/**
 * Asks the mirrors as often as polls do, until `end`. Over a slow link the rest of a fetch may
 * take hours, so it is ended as soon as mirrors have something else for this host.
 */
export function watchWhileFetching(
  release: Release,
  finding: FoundRelease,
  journal: Pick<Journal, "record">,
  { settings, timers, watchdog }: Pick<AgentTools, "settings" | "timers" | "watchdog">,
): FetchWatch {
  const asking = new AbortController();
  const replacing = new AbortController();
  const { signal } = asking;
  let found: FoundRelease | null = null;
  const watch = async (): Promise<void> => {
    while (!found) {
      await timers.sleep(watchIntervalOf(settings), signal);
      const now = await finding.lookAgain(journal.record, { askMirrors: true, signal });
      if (signal.aborted || isStillWanted(release, now)) continue;
      found = now;
      replacing.abort();
    }
  };
  // Ended, or of no use: what the mirrors have is looked at after the fetch in any case.
  watchdog.beside(watch).catch(() => undefined);
  return {
    replaced: replacing.signal,
    found: () => found,
    end: () => {
      asking.abort();
    },
  };
}

function watchIntervalOf({ poll }: Pick<Settings, "poll">): number {
  return Math.max(poll.kind === "interval" ? poll.interval : DEFAULT_INTERVAL_MS, MIN_WATCH_MS);
}

/** Whether what was found lately still asks for this system, or for nothing. */
function isStillWanted({ toplevel }: Release, { release, decision, error }: FoundRelease): boolean {
  if (!release) return error?.code !== "HOST_NOT_IN_RELEASE";
  if (release.toplevel !== toplevel) return false;
  return decision?.kind !== "waiting" || allowFetch(decision.waits);
}
