import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { PullError } from "../../core/errors.ts";
import {
  MANIFEST_FORMAT_VERSION,
  activationOf,
  comparePositions,
  describePosition,
  entryOf,
  positionOf,
  type ActivationMode,
  type HostEntry,
  type Manifest,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import type { Clock } from "../../core/ports.ts";
import { resumeRollout } from "../../core/release/rollout.ts";
import type { PublicKey } from "../../core/formats/signing-key.ts";
import { findRelease, retainedReleases, withBarrier, type BarrierRequest } from "./barriers.ts";
import { MirrorWriter } from "../mirror/mirror-writer.ts";
import type { Published } from "../publish/publish.ts";
import { putRelease, type PutOptions } from "./sign-and-place.ts";
import { carriedOn, checkWaves, rolloutFor, type RolloutRequest } from "./rollout-request.ts";

/** What every change of a release needs, like `publish --refresh`. */
export interface ChangeOptions extends PutOptions {
  /** Directory of the mirror. */
  readonly mirror: string;
  readonly channel: string;
  /** Keys beside the signers' own by which releases are verified. */
  readonly publicKeys: readonly PublicKey[];
  /** How long hosts may accept the new release, milliseconds. */
  readonly expiresInMs: number;
  readonly clock: Clock;
  readonly onWarning: (message: string) => void;
}

/** What a change decides; the rest of the manifest follows from it. */
type Contents = Pick<Manifest, "defaults" | "hosts" | "rollout" | "barrier">;

/** Where and when the new release stands. */
type Frame = Pick<Manifest, "channel" | "epoch" | "sequence" | "createdAt">;

interface Situation {
  readonly writer: MirrorWriter;
  readonly trust: TrustPolicy;
  readonly frame: Frame;
}

/** Nobody begins from now on: canaries and those that may go now included. */
export async function pauseRelease(options: ChangeOptions, reason: string): Promise<Published> {
  return change(options, (current, { frame }) => {
    const before = current.rollout ?? rolloutFor({ notBefore: current.createdAt }, current);
    const rollout = rolloutFor({ paused: reason }, frame, before);
    return { ...current, rollout };
  });
}

/** The rollout goes on where it was paused. */
export async function resumeRelease(
  options: ChangeOptions,
  { catchUp }: { catchUp: boolean },
): Promise<Published> {
  return change(options, (current, { frame }) => {
    const { rollout } = current;
    if (!rollout?.paused) {
      throw new PullError("PUBLISH_FAILED", `${releaseText(current)} is not paused`);
    }
    const { paused: _, ...running } = rollout;
    return {
      ...current,
      rollout: catchUp ? running : resumeRollout(rollout, new Date(frame.createdAt)),
    };
  });
}

/** What `release edit` changes; what is left out stays as it is. */
export interface ReleaseEdit extends RolloutRequest {
  /** Every host goes at once. */
  readonly everyone: boolean;
  /** Hosts whose turn is now, whatever the rollout says. */
  readonly now: readonly string[];
  readonly hold: ReadonlyMap<string, string>;
  /** Hosts that are neither held nor sent now any more. */
  readonly free: readonly string[];
  readonly groups: ReadonlyMap<string, readonly string[]>;
  readonly modes: ReadonlyMap<string, ActivationMode>;
  readonly remove: readonly string[];
  readonly barrier: BarrierRequest;
}

/** The same systems, and another policy. */
export async function editRelease(options: ChangeOptions, edit: ReleaseEdit): Promise<Published> {
  return change(options, async (current, { writer, trust, frame }) => {
    const hosts = { ...current.hosts };
    const alter = (hostname: string, alteration: (entry: HostEntry) => HostEntry): void => {
      const entry = entryOf({ hosts }, hostname);
      if (!entry) {
        throw new PullError("PUBLISH_FAILED", `${releaseText(current)} names no host ${hostname}`);
      }
      hosts[hostname] = alteration(entry);
    };
    for (const hostname of edit.free) alter(hostname, ({ turn: _, ...entry }) => entry);
    for (const hostname of edit.now) alter(hostname, (entry) => ({ ...entry, turn: "now" }));
    for (const [hostname, held] of edit.hold) {
      alter(hostname, (entry) => ({ ...entry, turn: { held } }));
    }
    for (const [hostname, groups] of edit.groups) {
      alter(hostname, (entry) => ({ ...entry, groups: [...groups] }));
    }
    for (const [hostname, mode] of edit.modes) {
      alter(hostname, (entry) => ({
        ...entry,
        activation: { ...activationOf(current, entry), mode },
      }));
    }
    const left = Object.entries(hosts).filter(([hostname]) => !edit.remove.includes(hostname));
    const missing = edit.remove.find((hostname) => !Object.hasOwn(hosts, hostname));
    if (missing !== undefined) {
      throw new PullError("PUBLISH_FAILED", `${releaseText(current)} names no host ${missing}`);
    }
    const retained = await retainedReleases(writer, current.channel, trust);
    return {
      defaults: current.defaults,
      rollout: edit.everyone ? undefined : rolloutFor(edit, frame, current.rollout),
      ...withBarrier(edit.barrier, Object.fromEntries(left), current, retained),
    };
  });
}

/**
 * Every host gets the system back that it had in an earlier release: in `to`, or else in the
 * newest that is retained and differs from the current one. All hosts go back at once; one
 * that had no system then is held.
 */
export async function abortRelease(
  options: ChangeOptions,
  { to }: { to?: number | undefined },
): Promise<Published> {
  return change(options, async (current, { writer, trust }) => {
    const retained = await retainedReleases(writer, current.channel, trust);
    const { manifest: earlier } =
      to === undefined
        ? releaseBefore(current, retained)
        : findRelease(retained, positionOf(current).epoch, to);
    const position = positionOf(earlier);
    const { barrier } = current;
    const atBarrier = barrier && { epoch: barrier.epoch ?? 0, sequence: barrier.sequence };
    if (atBarrier && comparePositions(position, atBarrier) < 0) {
      throw new PullError(
        "PUBLISH_FAILED",
        `${releaseText(earlier)} lies before the barrier at release ${barrier.sequence}: hosts ` +
          "may be unable to go back behind it; `release edit --no-barrier` takes it away",
      );
    }
    options.onWarning(`going back to the systems of ${releaseText(earlier)}`);
    const hosts = Object.entries(current.hosts).map(([hostname, entry]): [string, HostEntry] => {
      const before = entryOf(earlier, hostname);
      if (before) {
        const { toplevel, closureSize, archive, activation } = before;
        const { activation: _, turn: __, ...kept } = entry;
        const system = { toplevel, closureSize, archive, ...(activation && { activation }) };
        return [hostname, { ...kept, ...carriedOn(entry), ...system }];
      }
      const held = `${releaseText(current)} was aborted, and nothing is known before it`;
      options.onWarning(`${hostname} is held: ${releaseText(earlier)} does not name it`);
      return [hostname, { ...entry, activation: activationOf(current, entry), turn: { held } }];
    });
    const { defaults } = earlier;
    return { ...current, defaults, rollout: undefined, hosts: Object.fromEntries(hosts) };
  });
}

/** What the current release is to be left for. Throws PUBLISH_FAILED. */
function releaseBefore(current: Manifest, retained: readonly SignedManifest[]): SignedManifest {
  const older = retained.filter(
    ({ manifest }) => comparePositions(positionOf(manifest), positionOf(current)) < 0,
  );
  const at = older.findIndex(({ manifest }) => differs(current, manifest));
  const found = older[at];
  if (!found) {
    throw new PullError(
      "PUBLISH_FAILED",
      `no earlier release with other systems than ${releaseText(current)} is retained here`,
    );
  }
  // An abort is not undone by another one: that would bring the bad systems back.
  const same = older.slice(at + 1).find(({ manifest }) => !differs(current, manifest));
  if (!same) return found;
  throw new PullError(
    "PUBLISH_FAILED",
    `${releaseText(current)} has the systems of ${releaseText(same.manifest)} and may be an abort ` +
      `of ${releaseText(found.manifest)}; --to says which release is meant`,
  );
}

/** Whether a host that both releases name has another system in one of them. */
function differs(one: Manifest, other: Manifest): boolean {
  return Object.entries(one.hosts).some(([hostname, { toplevel }]) => {
    const entry = entryOf(other, hostname);
    return entry !== undefined && entry.toplevel !== toplevel;
  });
}

/** The release of another channel, archives and all, as the next one of `options.channel`. */
export async function promoteRelease(
  options: ChangeOptions,
  {
    from,
    keepHosts,
    rollout,
    barrier,
  }: {
    from: string;
    /** Hosts that the other release does not name keep their entry. */
    keepHosts: boolean;
    rollout: RolloutRequest;
    barrier: BarrierRequest;
  },
): Promise<Published> {
  if (from === options.channel) {
    throw new PullError("USAGE", `expected two channels, found ${from} twice`);
  }
  return withMirror(options, async (writer, trust) => {
    const source = await currentRelease(writer, from, trust);
    const current = await currentRelease(writer, options.channel, trust);
    if (!source) throw new PullError("PUBLISH_FAILED", `channel ${from} has no release`);
    if (source.rollout?.paused) {
      const { reason } = source.rollout.paused;
      throw new PullError("PUBLISH_FAILED", `${releaseText(source)} is paused: ${reason}`);
    }
    const frame = nextFrame(options, current);
    const hosts: Record<string, HostEntry> = {};
    for (const [hostname, entry] of Object.entries(current && keepHosts ? current.hosts : {})) {
      hosts[hostname] = current ? { ...entry, activation: activationOf(current, entry) } : entry;
    }
    for (const [hostname, { turn: _, through: __, ...entry }] of Object.entries(source.hosts)) {
      hosts[hostname] = {
        ...entry,
        ...carriedOn(current ? entryOf(current, hostname) : undefined),
      };
    }
    const retained = await retainedReleases(writer, options.channel, trust);
    return put(writer, options, current, frame, {
      defaults: source.defaults,
      rollout: rolloutFor(rollout, frame),
      ...withBarrier(barrier, hosts, current, retained),
    });
  });
}

/** The next release of a channel, made out of the current one. */
async function change(
  options: ChangeOptions,
  alter: (current: Manifest, situation: Situation) => Contents | Promise<Contents>,
): Promise<Published> {
  return withMirror(options, async (writer, trust) => {
    const current = await currentRelease(writer, options.channel, trust);
    if (!current) {
      throw new PullError("PUBLISH_FAILED", `channel ${options.channel} has no release`);
    }
    const frame = nextFrame(options, current);
    return put(writer, options, current, frame, await alter(current, { writer, trust, frame }));
  });
}

async function withMirror(
  options: ChangeOptions,
  work: (writer: MirrorWriter, trust: TrustPolicy) => Promise<Published>,
): Promise<Published> {
  const { signers, publicKeys, draft } = options;
  if (signers.length === 0 && draft === undefined) {
    throw new PullError(
      "USAGE",
      "expected a --key or --signer that signs the release, or --unsigned FILE",
    );
  }
  const writer = await MirrorWriter.open(options.mirror);
  try {
    const keys = [...signers.map(({ publicKey }) => publicKey), ...publicKeys];
    return await work(writer, { publicKeys: keys, threshold: 1 });
  } finally {
    await writer.close();
  }
}

async function currentRelease(
  writer: MirrorWriter,
  channel: string,
  trust: TrustPolicy,
): Promise<Manifest | null> {
  try {
    return (await writer.currentRelease(channel, trust))?.manifest ?? null;
  } catch (cause) {
    throw new PullError(
      "PUBLISH_FAILED",
      `the current release of ${channel} cannot be read with these keys ` +
        `(${(cause as Error).message}); give its --public-key`,
      { cause },
    );
  }
}

function nextFrame({ channel, clock }: ChangeOptions, current: Manifest | null): Frame {
  return {
    channel,
    ...(current?.epoch && { epoch: current.epoch }),
    sequence: (current?.sequence ?? 0) + 1,
    createdAt: clock.now().toISOString(),
  };
}

async function put(
  writer: MirrorWriter,
  options: ChangeOptions,
  current: Manifest | null,
  frame: Frame,
  { defaults, hosts, rollout, barrier }: Contents,
): Promise<Published> {
  const expiresAt = new Date(Date.parse(frame.createdAt) + options.expiresInMs).toISOString();
  const manifest: Manifest = {
    formatVersion: MANIFEST_FORMAT_VERSION,
    ...frame,
    expiresAt,
    defaults,
    ...(barrier && { barrier }),
    ...(rollout && { rollout }),
    hosts,
  };
  checkWaves(rollout?.waves, hosts);
  const { channel, epoch, sequence, createdAt } = manifest;
  return {
    ...{ channel, epoch: epoch?.number ?? 0, sequence, createdAt, expiresAt },
    ...(await putRelease(writer, manifest, options)),
    hosts: {},
    dropped: Object.keys(current?.hosts ?? {}).filter((name) => !Object.hasOwn(hosts, name)),
  };
}

function releaseText(manifest: Manifest): string {
  return `release ${describePosition(positionOf(manifest))} of ${manifest.channel}`;
}
