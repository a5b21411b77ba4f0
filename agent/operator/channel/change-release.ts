import { PullError } from "../../core/errors.ts";
import {
  activationOf,
  entryOf,
  type ActivationMode,
  type HostEntry,
  type Manifest,
} from "../../core/formats/manifest.ts";
import { resumeRollout } from "../../core/release/rollout.ts";
import { withBarrier, type BarrierRequest } from "./barriers.ts";
import { changeRelease, type ChangeOptions } from "./next-release.ts";
import { describeRelease } from "./position.ts";
import type { PublishedRelease } from "./published-release.ts";
import { rolloutFor, type RolloutRequest } from "./rollout-request.ts";

/** From now on no host begins an update to the release, not even one whose turn has come. */
export async function pauseRelease(
  options: ChangeOptions,
  reason: string,
): Promise<PublishedRelease> {
  return changeRelease(options, (current, { frame }) => {
    const before = current.rollout ?? rolloutFor({ notBefore: current.createdAt }, current);
    const rollout = rolloutFor({ paused: reason }, frame, before);
    return { ...current, rollout };
  });
}

/**
 * The rollout goes on where it was paused. With `catchUp` the pause moves no turn: every host
 * whose turn came meanwhile begins at once.
 */
export async function resumeRelease(
  options: ChangeOptions,
  { catchUp }: { catchUp: boolean },
): Promise<PublishedRelease> {
  return changeRelease(options, (current, { frame }) => {
    const { rollout } = current;
    if (!rollout?.paused) {
      throw new PullError("PUBLISH_FAILED", `${describeRelease(current)} is not paused`);
    }
    const { paused: _, ...running } = rollout;
    return {
      ...current,
      rollout: catchUp ? running : resumeRollout(rollout, new Date(frame.createdAt)),
    };
  });
}

/** What `release edit` changes. What is left out stays as it is. */
export interface ReleaseEdit extends RolloutRequest {
  /** Every host goes at once. */
  readonly everyone: boolean;
  /** Hosts whose turn is now, whatever the rollout says. */
  readonly now: readonly string[];
  /** Hosts that are held, with the reason. */
  readonly hold: ReadonlyMap<string, string>;
  /** Hosts that follow the rollout again: no longer held or sent now. */
  readonly free: readonly string[];
  readonly groups: ReadonlyMap<string, readonly string[]>;
  readonly modes: ReadonlyMap<string, ActivationMode>;
  readonly remove: readonly string[];
  readonly barrier: BarrierRequest;
}

/** The next release: the same systems, with another policy. */
export async function editRelease(
  options: ChangeOptions,
  edit: ReleaseEdit,
): Promise<PublishedRelease> {
  return changeRelease(options, async (current, { open, frame }) => {
    const retained = await open.writer.retained.signedReleases(current.channel, open.trust);
    return {
      defaults: current.defaults,
      rollout: edit.everyone ? undefined : rolloutFor(edit, frame, current.rollout),
      ...withBarrier(edit.barrier, editedHosts(current, edit), current, retained),
    };
  });
}

/** The hosts of a release with their new policies. Throws PUBLISH_FAILED for an unknown host. */
function editedHosts(current: Manifest, edit: ReleaseEdit): Manifest["hosts"] {
  const hosts = { ...current.hosts };
  const find = (hostname: string): HostEntry => {
    const entry = entryOf({ hosts }, hostname);
    if (entry) return entry;
    throw new PullError("PUBLISH_FAILED", `${describeRelease(current)} names no host ${hostname}`);
  };
  for (const hostname of edit.free) {
    const { turn: _, ...entry } = find(hostname);
    hosts[hostname] = entry;
  }
  for (const hostname of edit.now) hosts[hostname] = { ...find(hostname), turn: "now" };
  for (const [hostname, held] of edit.hold) hosts[hostname] = { ...find(hostname), turn: { held } };
  for (const [hostname, groups] of edit.groups) {
    hosts[hostname] = { ...find(hostname), groups: [...groups] };
  }
  for (const [hostname, mode] of edit.modes) {
    const entry = find(hostname);
    hosts[hostname] = { ...entry, activation: { ...activationOf(current, entry), mode } };
  }
  for (const hostname of edit.remove) find(hostname);
  return Object.fromEntries(
    Object.entries(hosts).filter(([hostname]) => !edit.remove.includes(hostname)),
  );
}
