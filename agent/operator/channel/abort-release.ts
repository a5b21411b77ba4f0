import { PullError } from "../../core/errors.ts";
import {
  activationOf,
  comparePositions,
  entryOf,
  haveOtherSystems,
  positionOf,
  systemOf,
  type HostEntry,
  type Manifest,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import { findRelease } from "../mirror/retained-releases.ts";
import { changeRelease, type ChangeOptions } from "./next-release.ts";
import { describeRelease } from "./position.ts";
import type { PublishedRelease } from "./published-release.ts";
import { keptHold } from "./rollout-request.ts";

/**
 * Gives every host the system back that it had in an earlier release: in `to`, or else in the
 * newest retained one that differs from the current one. All hosts go back at once. A host that
 * had no system then is held. Throws PUBLISH_FAILED if there is no such release, or if it lies
 * before a barrier.
 */
export async function abortRelease(
  options: ChangeOptions,
  { to }: { to?: number | undefined },
): Promise<PublishedRelease> {
  return changeRelease(options, async (current, { open }) => {
    const retained = await open.writer.retained.signedReleases(current.channel, open.trust);
    const { manifest: earlier } =
      to === undefined
        ? releaseBefore(current, retained)
        : findRelease(retained, { epoch: positionOf(current).epoch, sequence: to }, "--to");
    expectPastBarrier(earlier, current.barrier);
    options.onWarning(`going back to the systems of ${describeRelease(earlier)}`);
    const hosts = Object.entries(current.hosts).map(([hostname, entry]): [string, HostEntry] => {
      const before = entryOf(earlier, hostname);
      if (before) return [hostname, withSystemOf(before, entry)];
      const held = `${describeRelease(current)} was aborted, and no earlier release names this host`;
      options.onWarning(
        `${hostname} is held: ${describeRelease(earlier)} does not name it. Once a release is good ` +
          `for it, \`nixos-pull release edit --free ${hostname}\` lets it go on`,
      );
      return [hostname, { ...entry, activation: activationOf(current, entry), turn: { held } }];
    });
    const { defaults } = earlier;
    return { ...current, defaults, rollout: undefined, hosts: Object.fromEntries(hosts) };
  });
}

function expectPastBarrier(earlier: Manifest, barrier: Manifest["barrier"]): void {
  if (!barrier) return;
  const position = { epoch: barrier.epoch ?? 0, sequence: barrier.sequence };
  if (comparePositions(positionOf(earlier), position) >= 0) return;
  throw new PullError(
    "PUBLISH_FAILED",
    `${describeRelease(earlier)} lies before the barrier at release ${barrier.sequence}: hosts ` +
      "may be unable to go back behind it; `release edit --no-barrier` removes the barrier",
  );
}

/** The host's entry with an earlier system and the way in which that one was activated. */
function withSystemOf(before: HostEntry, entry: HostEntry): HostEntry {
  const { activation } = before;
  const { activation: _, turn: __, platform: ___, ...kept } = entry;
  const system = { ...systemOf(before), ...(activation && { activation }) };
  return { ...kept, ...keptHold(entry), ...system };
}

/** The release to which hosts go back from the current one. Throws PUBLISH_FAILED. */
function releaseBefore(current: Manifest, retained: readonly SignedManifest[]): SignedManifest {
  const older = retained.filter(
    ({ manifest }) => comparePositions(positionOf(manifest), positionOf(current)) < 0,
  );
  const at = older.findIndex(({ manifest }) => haveOtherSystems(current, manifest));
  const found = older[at];
  if (!found) {
    throw new PullError(
      "PUBLISH_FAILED",
      `no earlier release with other systems than ${describeRelease(current)} is retained here`,
    );
  }
  // Aborting an abort would bring the bad systems back.
  const same = older.slice(at + 1).find(({ manifest }) => !haveOtherSystems(current, manifest));
  if (!same) return found;
  throw new PullError(
    "PUBLISH_FAILED",
    `${describeRelease(current)} has the systems of ${describeRelease(same.manifest)} and may be ` +
      `an abort of ${describeRelease(found.manifest)}; --to has to name the release`,
  );
}
