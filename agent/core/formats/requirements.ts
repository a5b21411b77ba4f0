import { FEATURES, type Feature } from "./compatibility.ts";
import type { HealthCheck } from "./health-check.ts";
import type { ArchiveIndex, IndexedPath } from "./index-schema.ts";
import type {
  Activation,
  ActivationMode,
  ArchiveReference,
  HostEntry,
  IndexPatch,
  Manifest,
  Rollout,
  Stage,
  Wave,
} from "./manifest.ts";

/**
 * Which features a release requires: what it really uses of what a later version added. Every key of
 * what is signed has its place in a closed map here, and so has every value of an enumeration, so
 * that a new one does not compile without a decision:
 *
 * - `base` for what 0.1.0 reads,
 * - the name of a feature if an older agent must not follow a release that has it: it restricts the
 *   host, or an older agent would refuse the whole manifest for it,
 * - `ignorable` if an older agent does right without it.
 */
export type Need<V, F extends string = Feature> =
  "base" | "ignorable" | F | ((value: V) => Iterable<F>);

/** What a value of an enumeration needs. */
type Decision<F extends string = Feature> = "base" | F;

/** What each key of an object needs. */
export type Needs<T, F extends string = Feature> = {
  readonly [Key in keyof Required<T>]: Need<Exclude<T[Key], undefined>, F>;
};

/** The features that a value uses, by the map of its keys. */
export function* featuresOf<T extends object, F extends string>(
  needs: Needs<T, F>,
  value: { readonly [Key in keyof T]?: T[Key] | undefined },
): Generator<F> {
  for (const key of Object.keys(needs) as (keyof T)[]) {
    const part = value[key];
    if (part === undefined) continue;
    const need: Need<Exclude<T[keyof T], undefined>, F> = needs[key];
    if (typeof need === "function") yield* need(part as Exclude<T[keyof T], undefined>);
    else if (need !== "base" && need !== "ignorable") yield need;
  }
}

const all =
  <T extends object, F extends string>(needs: Needs<T, F>) =>
  (value: T): Iterable<F> =>
    featuresOf(needs, value);

const each =
  <T extends object, F extends string>(needs: Needs<T, F>) =>
  (values: readonly T[]): F[] =>
    values.flatMap((value) => [...featuresOf(needs, value)]);

/** What a value of an enumeration needs, by the map of all its values. */
const one =
  <V extends string>(needs: Readonly<Record<V, Decision>>) =>
  (value: V): Feature[] => {
    const need: string = needs[value];
    return FEATURES.filter((feature) => feature === need);
  };

const CHECKS: { readonly [Kind in HealthCheck["kind"]]: Needs<HealthCheck & { kind: Kind }> } = {
  command: { kind: "base", name: "base", timeout: "base", command: "base" },
  http: { kind: "base", name: "base", timeout: "base", url: "base", status: "base" },
  tcp: { kind: "base", name: "base", timeout: "base", host: "base", port: "base" },
};

function checkFeatures(check: HealthCheck): Iterable<Feature> {
  switch (check.kind) {
    case "command":
      return featuresOf(CHECKS.command, check);
    case "http":
      return featuresOf(CHECKS.http, check);
    case "tcp":
      return featuresOf(CHECKS.tcp, check);
    default:
      return check satisfies never;
  }
}

const MODES: Readonly<Record<ActivationMode, Decision>> = {
  ...{ switch: "base", boot: "base", test: "base", "dry-activate": "base" },
};

const ACTIVATION: Needs<Activation> = {
  mode: one(MODES),
  specialisation: "base",
  checks: (checks) => checks.flatMap((check) => [...checkFeatures(check)]),
};

const PATCH: Needs<IndexPatch> = {
  ...{ base: "base", archive: "base", offset: "base", size: "base", sha256: "base" },
};

const ARCHIVE: Needs<ArchiveReference> = {
  ...{ sha256: "base", size: "base" },
  index: all<ArchiveReference["index"], Feature>({
    ...{ sha256: "base", size: "base", json: "base" },
    patches: each(PATCH),
  }),
};

const SYSTEM = {
  toplevel: "base",
  closureSize: "base",
  archive: all(ARCHIVE),
  platform: "base",
} as const;

const STAGE: Needs<Stage> = {
  ...SYSTEM,
  ...{ epoch: "base", sequence: "base", digest: "base" },
  activation: all(ACTIVATION),
};

const HOST: Needs<HostEntry> = {
  ...SYSTEM,
  activation: (activation) => featuresOf(ACTIVATION, activation),
  groups: "base",
  turn: "base",
  through: each(STAGE),
  machineId: "base",
};

const WAVE: Needs<Wave> = {
  ...{ hosts: "base", groups: "base", share: "base", after: "base", over: "base" },
};

const ROLLOUT: Needs<Rollout> = {
  ...{ start: "base", salt: "base", paused: "base" },
  waves: each(WAVE),
};

const MANIFEST: Needs<Manifest> = {
  // The frame, which is frozen.
  ...{ formatVersion: "base", channel: "base", epoch: "base", sequence: "base" },
  ...{ createdAt: "base", expiresAt: "base", history: "base", requires: "base", supported: "base" },
  defaults: ({ activation }) => featuresOf(ACTIVATION, activation),
  barrier: "base",
  rollout: all(ROLLOUT),
  hosts: (hosts) => Object.values(hosts).flatMap((entry) => [...featuresOf(HOST, entry)]),
};

const PATH: Needs<IndexedPath> = {
  ...{ path: "base", narHash: "base", narSize: "base", references: "base", signatures: "base" },
  ...{ ca: "base", nar: "base", was: "base", deltas: "base" },
};

const INDEX: Needs<ArchiveIndex> = {
  ...{ formatVersion: "base", compression: "base", archives: "base" },
  paths: each(PATH),
};

/** What a manifest requires of the agents that follow it, sorted; nothing for a plain one. */
export function requiredByManifest(manifest: Manifest): Feature[] {
  return sorted(featuresOf(MANIFEST, manifest));
}

/** What an archive's index requires of the agents that read it. */
export function requiredByIndex(index: ArchiveIndex): Feature[] {
  return sorted(featuresOf(INDEX, index));
}

function sorted(features: Iterable<Feature>): Feature[] {
  return [...new Set(features)].sort();
}
