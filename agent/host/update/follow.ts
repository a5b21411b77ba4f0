import type { Release } from "../../core/formats/manifest.ts";
import { allowFetch } from "../../core/schedule/waiting.ts";
import { isPastTheLine } from "../../core/update/states.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { FoundRelease, TickOutcome } from "../poll/finding.ts";
import { callOffBoot } from "./call-off.ts";
import { watchWhileFetching } from "./fetch-watch.ts";
import { removeLeftovers } from "./leftovers.ts";
import { isBarred } from "./resume.ts";
import { runSteps, type Pass } from "./run.ts";
import type { StepTools } from "./steps/steps.ts";

/** At most this many newer releases are followed in one poll. */
const MAX_NEWER = 3;

/** What following a release takes. */
export type FollowTools = StepTools & Pick<AgentTools, "timers" | "watchdog">;

/**
 * Acts on what a poll found, and on what is published meanwhile: at most `newer` times, then
 * the next poll goes on. Throws what `runSteps` throws.
 */
export async function follow(
  finding: FoundRelease,
  pass: Pass<FollowTools>,
  newer = MAX_NEWER,
): Promise<TickOutcome> {
  const { journal, tools } = pass;
  const { release, decision } = finding;
  const untouched = (): TickOutcome => ({ ...finding, record: journal.record, updated: false });
  await journal.remember(finding.memories, release);
  const calledOff = await callOffBoot(finding, pass);
  if (calledOff && isPastTheLine(journal.record.state)) {
    return { ...untouched(), error: calledOff.error };
  }
  if (calledOff && release) {
    return follow(await finding.lookAgain(journal.record, { askMirrors: false }), pass, newer);
  }
  if (!release || !decision) {
    // The release that was under way is no longer this host's. If the mirrors could not be
    // read, it may still be.
    if (finding.error?.code === "HOST_NOT_IN_RELEASE") await withdraw(finding.error.message, pass);
    return untouched();
  }
  switch (decision.kind) {
    case "active":
    case "adopt":
      // A host between two systems goes on trying to get back.
      if (isPastTheLine(journal.record.state)) return untouched();
      if (decision.kind === "adopt" || journal.record.state.name !== "Idle") {
        const previous = journal.record.committed?.previous ?? null;
        await journal.happened({ type: "AlreadyActive", release, previous });
        await removeLeftovers(journal.record, tools);
      }
      return untouched();
    case "denied":
    case "drifted":
      await withdraw(`release ${release.sequence} is ${decision.kind}`, pass);
      return untouched();
    case "backoff":
      return untouched();
    case "waiting":
      if (isPastTheLine(journal.record.state)) return untouched();
      if (allowFetch(decision.waits)) return bringIn(release, finding, pass, newer);
      await withdrawAllBut(release, pass);
      return untouched();
    case "update":
      return bringIn(release, finding, pass, newer);
    default:
      return decision satisfies never;
  }
}

/**
 * Fetches a release and activates it, unless it has to wait at that moment or the mirrors have
 * another one: the download may have outlasted a window, and meanwhile somebody may have held
 * the host, paused the release or published a newer one.
 */
async function bringIn(
  release: Release,
  finding: FoundRelease,
  pass: Pass<FollowTools>,
  newer: number,
): Promise<TickOutcome> {
  const { journal, tools } = pass;
  await accept(release, pass);
  const askMirrors = journal.record.state.name !== "Imported";
  if (askMirrors) {
    const watch = watchWhileFetching(release, finding, journal, tools);
    const signals = [pass.signal, watch.replaced].filter((signal) => signal !== undefined);
    const fetching = { ...pass, signal: AbortSignal.any(signals) };
    const error = await runSteps(fetching, "Imported").finally(watch.end);
    const instead = watch.found();
    if (instead && error?.code === "INTERRUPTED" && !pass.signal?.aborted) {
      tools.log.info(`release ${release.sequence} is not fetched any further`);
      if (newer > 0) return follow(instead, pass, newer - 1);
    }
    if (error !== null) return { ...finding, record: journal.record, updated: false, error };
  }
  const now = await finding.lookAgain(journal.record, { askMirrors, enough: "answer" });
  if (now.release?.digest !== release.digest) {
    const why = now.release ? `release ${now.release.sequence} is newer` : now.error?.message;
    tools.log.info(`release ${release.sequence} is not activated: ${why}`);
    if (newer > 0) return follow(now, pass, newer - 1);
  }
  await journal.remember(now.memories, now.release);
  if (now.release?.digest !== release.digest || now.decision?.kind !== "update") {
    return { ...now, record: journal.record, updated: false };
  }
  const error = await runSteps(pass);
  const { committed, pendingReboot } = journal.record;
  const taken = pendingReboot?.trial ? pendingReboot.release.digest : committed?.digest;
  const updated = error === null && taken === release.digest;
  return { ...now, record: journal.record, updated, error };
}

/** Begins with a release, unless it is under way already. */
async function accept(release: Release, { journal, tools }: Pass<FollowTools>): Promise<void> {
  const { state } = journal.record;
  const isUnderWay =
    "release" in state &&
    state.name !== "Failed" &&
    state.release.digest === release.digest &&
    state.release.mode === release.mode &&
    state.release.specialisation === release.specialisation;
  // Somebody may have removed the root of what was brought in.
  const isLost =
    state.name === "Imported" && (await tools.store.invalidPaths([release.toplevel])).length > 0;
  if (isUnderWay && !isBarred(state) && !isLost) return;
  tools.log.info(`release ${release.sequence}: ${release.toplevel}, to ${release.mode}`);
  await journal.happened({ type: "ReleaseAccepted", release });
}

/** Ends what is under way, as far as the host is untouched. */
async function withdraw(message: string, { journal, tools }: Pass<FollowTools>): Promise<void> {
  const { state, unfinishedWayBack, unfinishedRevert } = journal.record;
  if (state.name === "Idle" || isPastTheLine(state)) return;
  await journal.happened({ type: "ReleaseWithdrawn", message });
  // A way back that goes on needs what holds its systems.
  const owed = {
    ...(unfinishedWayBack && { unfinishedWayBack }),
    ...(unfinishedRevert && { unfinishedRevert }),
  };
  await removeLeftovers({ ...journal.record, ...owed }, tools);
}

/** Withdraws what was begun for another system; what was begun for this one only pauses. */
async function withdrawAllBut(
  { toplevel, sequence }: Release,
  pass: Pass<FollowTools>,
): Promise<void> {
  const { state } = pass.journal.record;
  if ("release" in state && state.release.toplevel === toplevel) return;
  await withdraw(`release ${sequence} takes its place, and waits`, pass);
}
