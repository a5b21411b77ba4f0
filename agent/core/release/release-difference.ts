import {
  activationOf,
  describePosition,
  entryOf,
  type Activation,
  type ArchiveReference,
  type HostEntry,
  type Manifest,
  type Rollout,
  type Stage,
  type SupportedRelease,
  type Wave,
} from "../formats/manifest.ts";
import { placeOf } from "./release-history.ts";

/**
 * What a release changes on hosts, as a difference from another one: what a person has to see
 * before he signs it. Every key of a manifest has its place in a closed list here, so that a new
 * key that nobody shows does not compile.
 */

/** One thing that a release says. What it says several of (checks, waves) has one fact for each. */
interface Fact {
  readonly what: string;
  readonly value: string;
}

/** One thing that is said otherwise: null if it was not said before, or no longer is. */
export interface Change {
  readonly what: string;
  readonly before: string | null;
  readonly after: string | null;
}

/** What changes for one host. */
export interface HostDifference {
  readonly hostname: string;
  readonly kind: "added" | "removed" | "changed";
  /** The systems, for whoever compares them further; null if there is none. */
  readonly before: HostEntry | null;
  readonly after: HostEntry | null;
  readonly changes: readonly Change[];
}

/** The difference between two releases. */
export interface ReleaseDifference {
  /** What concerns the release as a whole. */
  readonly release: readonly Change[];
  /** Hosts for which something changes, by name. */
  readonly hosts: readonly HostDifference[];
  /** How many hosts stay as they are. */
  readonly unchanged: number;
}

/** How each key of an object is shown. */
type Shown<T> = {
  readonly [Key in keyof Required<T>]: (value: Exclude<T[Key], undefined>) => readonly Fact[];
};

function factsOf<T extends object>(
  shown: Shown<T>,
  value: { readonly [Key in keyof T]?: T[Key] | undefined },
): Fact[] {
  const keys = Object.keys(shown) as (keyof T)[];
  return keys.flatMap((key) => {
    const part = value[key];
    return part === undefined ? [] : shown[key](part as Exclude<T[keyof T], undefined>);
  });
}

const fact = (what: string, value: string): readonly Fact[] => [{ what, value }];

/** Not shown by itself; the reason stands where it is used. */
const nothing = (): readonly Fact[] => [];

/** The facts of an object on one line: `mode switch; check …`. */
function onOneLine<T extends object>(shown: Shown<T>, value: T): string {
  return factsOf(shown, value)
    .map(({ what, value: text }) => (what === "" ? text : `${what} ${text}`))
    .join("; ");
}

/** Checks are shown with all that they have, since a command is run as root. */
function checkFacts(checks: NonNullable<Activation["checks"]>): readonly Fact[] {
  if (checks.length === 0) return fact("checks", "none");
  return checks.map(({ kind, name, ...rest }) => ({
    what: kind === "command" ? "command run as root" : "check",
    value: `${JSON.stringify(name)}: ${kind} ${JSON.stringify(rest)}`,
  }));
}

const ACTIVATION: Shown<Activation> = {
  mode: (mode) => fact("mode", mode),
  specialisation: (name) => fact("specialisation", name),
  checks: checkFacts,
};

const ARCHIVE: Shown<ArchiveReference> = {
  sha256: (sha256) => fact("", sha256),
  size: (size) => fact("", `${size} bytes`),
  index: ({ sha256, size, json, patches }) => [
    ...fact("index", `${sha256}, ${size} bytes`),
    ...(json === undefined ? [] : fact("index before compression", json)),
    ...(patches ?? []).map((patch) => ({ what: "patch", value: JSON.stringify(patch) })),
  ],
};

/** The same for every system. */
const SYSTEM = {
  toplevel: (toplevel: string) => fact("system", toplevel),
  closureSize: (size: number) => fact("closure", `${size} bytes`),
  archive: (archive: ArchiveReference) => fact("archive", onOneLine(ARCHIVE, archive)),
  platform: (platform: string) => fact("platform", platform),
};

const STAGE: Shown<Stage> = {
  epoch: (epoch) => fact("epoch", String(epoch)),
  sequence: (sequence) => fact("release", String(sequence)),
  digest: (digest) => fact("digest", digest),
  ...SYSTEM,
  activation: (activation) => factsOf(ACTIVATION, activation),
};

const HOST: Shown<HostEntry> = {
  ...SYSTEM,
  activation: (activation) => factsOf(ACTIVATION, activation),
  groups: (groups) => fact("groups", groups.map((group) => `@${group}`).join(" ") || "none"),
  turn: (turn) => fact("turn", turn === "now" ? "now" : `held: ${turn.held}`),
  // The host becomes this system first.
  through: (stages) =>
    stages.map((stage) => ({ what: "first becomes", value: onOneLine(STAGE, stage) })),
  machineId: (id) => fact("machine", id),
};

const WAVE: Shown<Wave> = {
  hosts: (hosts) => fact("", hosts.join(" ")),
  groups: (groups) => fact("", groups.map((group) => `@${group}`).join(" ")),
  share: (share) => fact("", `${share * 100} % of all`),
  after: (after) => fact("after", after),
  over: (over) => fact("over", over),
};

const ROLLOUT: Shown<Rollout> = {
  start: (start) => fact("rollout starts", start),
  salt: (salt) => fact("order of hosts", JSON.stringify(salt)),
  waves: (waves) => waves.map((wave) => ({ what: "wave", value: onOneLine(WAVE, wave) })),
  paused: ({ reason, since }) => fact("paused", `since ${since}: ${reason}`),
};

const SUPPORTED: Shown<SupportedRelease> = {
  epoch: (epoch) => fact("epoch", String(epoch)),
  sequence: (sequence) => fact("release", String(sequence)),
  digest: (digest) => fact("digest", digest),
  requires: (features) => fact("for agents with", features.join(", ") || "no special feature"),
  until: (time) => fact("until", time),
};

const MANIFEST: Shown<Manifest> = {
  // One number, and readers refuse any other.
  formatVersion: nothing,
  channel: (channel) => fact("channel", channel),
  epoch: ({ number, reason }) => fact("epoch", `${number}, begun because: ${reason}`),
  sequence: (sequence) => fact("sequence", String(sequence)),
  createdAt: (time) => fact("created", time),
  expiresAt: (time) => fact("expires", time),
  history: ({ since, releases }) => {
    const last = releases.at(-1);
    return fact(
      "comes after",
      last
        ? `release ${describePosition(placeOf(last))} with digest ${last.digest}; names ` +
            `${releases.length} since release ${describePosition(placeOf(since))}`
        : "no release",
    );
  },
  requires: (features) => fact("only agents with", features.join(", ") || "no special feature"),
  // Hosts whose agents lack a feature follow these instead.
  supported: (releases) =>
    releases.map((release) => ({ what: "also supported", value: onOneLine(SUPPORTED, release) })),
  defaults: ({ activation }) =>
    factsOf(ACTIVATION, activation).map(({ what, value }) => ({ what: `default ${what}`, value })),
  barrier: (barrier) =>
    fact("hosts must reach first", `release ${describePosition(placeOf(barrier))}`),
  rollout: (rollout) => factsOf(ROLLOUT, rollout),
  // Host by host, below.
  hosts: nothing,
};

/** What a release changes, from the release `before`, or from nothing. */
export function differenceOf(before: Manifest | null, after: Manifest): ReleaseDifference {
  const release = changesOf(before ? factsOf(MANIFEST, before) : [], factsOf(MANIFEST, after));
  const names = new Set([...Object.keys(before?.hosts ?? {}), ...Object.keys(after.hosts)]);
  const hosts: HostDifference[] = [];
  let unchanged = 0;
  for (const hostname of [...names].sort()) {
    const difference = hostDifference(hostname, before, after);
    if (difference) hosts.push(difference);
    else unchanged += 1;
  }
  return { release, hosts, unchanged };
}

function hostDifference(
  hostname: string,
  before: Manifest | null,
  after: Manifest,
): HostDifference | null {
  const [old, next] = [before ? entryOf(before, hostname) : undefined, entryOf(after, hostname)];
  const changes = changesOf(hostFacts(before, old), hostFacts(after, next));
  if (changes.length === 0) return null;
  const kind = !old ? "added" : next ? "changed" : "removed";
  return { hostname, kind, before: old ?? null, after: next ?? null, changes };
}

/** A host's facts; its mode also if it is the default, since that decides what happens there. */
function hostFacts(release: Manifest | null, entry: HostEntry | undefined): Fact[] {
  if (!release || !entry) return [];
  const { mode } = activationOf(release, entry);
  return factsOf(HOST, { ...entry, activation: { ...entry.activation, mode } });
}

/**
 * What the facts say otherwise. What was said once and is said once is one change; else what is
 * no longer said, and then what is new.
 */
function changesOf(before: readonly Fact[], after: readonly Fact[]): Change[] {
  const changes: Change[] = [];
  for (const what of new Set([...before, ...after].map((it) => it.what))) {
    const [old, next] = [valuesOf(before, what), valuesOf(after, what)];
    if (old.length <= 1 && next.length <= 1) {
      const change = { what, before: old[0] ?? null, after: next[0] ?? null };
      if (change.before !== change.after) changes.push(change);
      continue;
    }
    if (sameTexts(old, next)) continue;
    const [gone, come] = [without(old, next), without(next, old)];
    // Only their order changed, which may matter (waves, barriers).
    const [removed, added] = gone.length + come.length > 0 ? [gone, come] : [old, next];
    changes.push(...removed.map((value) => ({ what, before: value, after: null })));
    changes.push(...added.map((value) => ({ what, before: null, after: value })));
  }
  return changes;
}

function valuesOf(facts: readonly Fact[], what: string): string[] {
  return facts.filter((it) => it.what === what).map(({ value }) => value);
}

function sameTexts(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((text, at) => text === other[at]);
}

/** The values without those of `other`, each as often as it is there. */
function without(values: readonly string[], other: readonly string[]): string[] {
  const left = [...other];
  return values.filter((value) => {
    const at = left.indexOf(value);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
}
