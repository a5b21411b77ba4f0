import * as z from "zod";
import { parseDuration } from "../text/duration.ts";
import { openEnvelope, printableSchema, type TrustPolicy } from "./envelope.ts";
import { PullError } from "../errors.ts";
import { MAX_CHECKS, healthCheckSchema } from "./health-check.ts";
import { openEnum } from "./compatibility.ts";
import { describeIssues } from "../text/schema-issues.ts";
import { FEATURES, featuresSchema, lackedOf, withUnknownKeys } from "./compatibility.ts";
import { platformSchema } from "./platform.ts";
import { SHA256_HEX } from "./sha256.ts";
import { storePathSchema } from "./store-path.ts";

/** The release manifest: what a DSSE envelope of a channel carries. */
export const MANIFEST_FORMAT_VERSION = 1;

/** Hosts in one manifest; bounds parsing time and memory before anything is trusted. */
export const MAX_HOSTS = 100_000;

/** What `switch-to-configuration` is asked to do (NixOS manual, "Changing the Configuration"). */
export const ACTIVATION_MODES = ["switch", "boot", "test", "dry-activate"] as const;
export type ActivationMode = (typeof ACTIVATION_MODES)[number];

/** A file or directory name on a mirror: one path component, never `.` or `..`. */
export const channelSchema = z
  .string()
  .regex(
    /^[a-z0-9][a-z0-9._-]{0,63}$/,
    "expected a channel name of lower-case letters, digits, dots, dashes and underscores",
  );

/** A hostname as NixOS allows it (`networking.hostName`), or a fully qualified name. */
export const hostnameSchema = z
  .string()
  .regex(/^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,251}[a-zA-Z0-9])?$/, "expected a hostname");

export const sha256Schema = z.string().regex(SHA256_HEX, "expected a sha256 in lower-case hex");

/** A byte count that JavaScript holds exactly. */
const byteCountSchema = z.int().nonnegative();

/** A time, as manifests have it. */
export const timeSchema = z.iso.datetime({
  error: "expected a UTC time such as 2026-01-31T12:00:00.000Z",
});

/** A specialisation of a system: the name of one directory entry below `TOPLEVEL/specialisation`. */
export const specialisationSchema = z
  .string()
  .regex(
    /^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,99}$/,
    "expected a specialisation's name of letters, digits, dots, dashes and underscores",
  );

export const activationSchema = z.strictObject({
  mode: z.enum(ACTIVATION_MODES),
  /** The specialisation of the system that runs; the system itself if absent. */
  specialisation: specialisationSchema.optional(),
  /** Checks that the new system must pass, beside the host's own. */
  checks: z.array(healthCheckSchema).max(MAX_CHECKS).optional(),
});

/** What is asked of `switch-to-configuration`, and what must hold afterwards. */
export type Activation = z.infer<typeof activationSchema>;

/** Earlier indexes that one index may be described by. */
export const MAX_INDEX_PATCHES = 16;

/** A way to an index for a host that has an earlier one. */
const indexPatchSchema = z.strictObject({
  /** The earlier index, by the sha256 that its manifest gave. */
  base: sha256Schema,
  /** Where the patch lies: bytes of an archive of the mirror. */
  archive: sha256Schema,
  offset: byteCountSchema,
  size: z.int().positive(),
  sha256: sha256Schema,
});
export type IndexPatch = z.infer<typeof indexPatchSchema>;

const archiveSchema = z.strictObject({
  /** Names the file on the mirror, `archives/SHA256.tar`. */
  sha256: sha256Schema,
  /** Size of the whole archive in bytes. */
  size: byteCountSchema,
  /** The compressed index, the archive's first member. */
  index: z.strictObject({
    sha256: sha256Schema,
    size: byteCountSchema.max(256 * 1024 * 1024),
    /** sha256 of the index before compression; present if there are patches. */
    json: sha256Schema.optional(),
    patches: z.array(indexPatchSchema).max(MAX_INDEX_PATCHES).optional(),
  }),
});

/** An operator's reason, for people who read the manifest later. */
export const reasonSchema = printableSchema.min(1).max(500);

/** Groups that one host may be in. */
export const MAX_GROUPS = 32;

/** A name for hosts that a rollout treats alike. */
export const groupSchema = z
  .string()
  .regex(
    /^[a-z0-9][a-z0-9._-]{0,63}$/,
    "expected a group name of lower-case letters, digits, dots, dashes and underscores",
  );

/** A system of one host: what it is, and where it comes from. */
const system = {
  toplevel: storePathSchema,
  /** Sum of the closure's NAR sizes in bytes: what the store grows by on an empty host. */
  closureSize: byteCountSchema,
  archive: archiveSchema,
  /** What its programs run on; absent if the publisher could not tell. */
  platform: platformSchema.optional(),
};

/** The host's part of an earlier release that it has to switch to first: a barrier. */
const stageSchema = z.strictObject({
  /** Of the earlier release; absent for 0. */
  epoch: z.int().positive().optional(),
  sequence: z.int().positive(),
  digest: sha256Schema,
  ...system,
  activation: activationSchema,
});
export type Stage = z.infer<typeof stageSchema>;

/** Barriers that one host may have before it. */
export const MAX_STAGES = 8;

/** An operator's decision about one host's turn; it overrules the rollout. */
const turnSchema = z.union([z.literal("now"), z.strictObject({ held: reasonSchema })], {
  error: 'expected "now" or { held: REASON }',
});

export const hostSchema = z.strictObject({
  ...system,
  activation: activationSchema.partial().optional(),
  /** What a rollout may call this host by, beside its name. */
  groups: z.array(groupSchema).max(MAX_GROUPS).optional(),
  turn: turnSchema.optional(),
  /** Releases that this host has to switch to before this one, the oldest first. */
  through: z.array(stageSchema).max(MAX_STAGES).optional(),
  /** The one machine that may take this entry: its hashed machine-id (`status` shows it). */
  machineId: sha256Schema.optional(),
});

/**
 * A deliberate restart of a channel's numbering, signed like everything else: hosts
 * order releases by epoch, then by sequence, so a number that was driven too high by
 * mistake or by a thief can be left behind (TUF: recovery from fast-forward attacks).
 * Every later release of the channel carries it on.
 */
export const epochSchema = z.strictObject({
  number: z.int().positive(),
  /** Why, for people who read the manifest later. */
  reason: reasonSchema,
});

const MAX_DELAY_MS = 366 * 86_400_000;

/** A delay within a rollout. */
export const delaySchema = z
  .string()
  .regex(/^([0-9]+[smhd])+$/, "expected a duration such as 90s, 15m or 1d12h")
  .refine((text) => (parseDuration(text) ?? Infinity) <= MAX_DELAY_MS, {
    error: "expected a duration of at most 366d",
  });

/** Some of the hosts, and when their turn comes. */
export const waveSchema = z
  .strictObject({
    hosts: z.array(hostnameSchema).min(1).max(1_000).optional(),
    groups: z.array(groupSchema).min(1).max(32).optional(),
    /** This share of all hosts, in the release's own order; it includes the waves before. */
    share: z.number().positive().max(1).optional(),
    /** Counted from the rollout's start. */
    after: delaySchema,
    /** Their turns are spread evenly over this time; without it, all come at once. */
    over: delaySchema.optional(),
  })
  .refine(({ hosts, groups, share }) => (hosts ?? groups ?? share) !== undefined, {
    error: "expected hosts, groups or share",
  });
export type Wave = z.infer<typeof waveSchema>;

export const MAX_WAVES = 64;

/** When the turn of each host comes. Without waves it is the start for all. */
export const rolloutSchema = z.strictObject({
  /** Nothing happens before. */
  start: timeSchema,
  /**
   * Decides the order of the hosts. Each release has its own, so that it is not always the
   * same hosts that go first; a manifest with the same systems carries it on.
   */
  salt: printableSchema.min(1).max(100),
  waves: z
    .array(waveSchema)
    .min(1)
    .max(MAX_WAVES)
    .refine(isAscending, {
      error: "expected waves in the order of `after`, each with a greater share than those before",
    })
    .optional(),
  /** While it is there, no host begins. */
  paused: z.strictObject({ reason: reasonSchema, since: timeSchema }).optional(),
});
export type Rollout = z.infer<typeof rolloutSchema>;

function isAscending(waves: readonly Wave[]): boolean {
  let [share, after] = [0, 0];
  return waves.every((wave) => {
    const [before, delay] = [after, parseDuration(wave.after) ?? 0];
    after = delay;
    if (wave.share === undefined) return delay >= before;
    const grows = wave.share > share;
    share = wave.share;
    return grows && delay >= before;
  });
}

/**
 * The release that every host must have become before this one. Every later release of
 * the channel carries it on: a host may have been away for long.
 */
const barrierSchema = z.strictObject({
  /** Absent for 0. */
  epoch: z.int().positive().optional(),
  sequence: z.int().positive(),
});

/** Earlier releases that a reader takes in one manifest; publishers name fewer. */
export const MAX_HISTORY = 2_000;

/** Where a release stands in its channel. */
const placeSchema = z.strictObject({
  /** Absent for 0. */
  epoch: z.int().positive().optional(),
  sequence: z.int().positive(),
});

/** A release of a channel, by its place and the digest of its payload. */
export const namedReleaseSchema = placeSchema.extend({ digest: sha256Schema });
export type NamedRelease = z.infer<typeof namedReleaseSchema>;

/**
 * The releases of the channel before this one. Hosts refuse a release that does not know the one
 * that they accepted: its publisher had forgotten that one, or was made to forget it.
 */
const historySchema = z.strictObject({
  /** Every release from here on is named. Of older ones nothing is said. */
  since: placeSchema,
  /** The oldest first. Numbers that no release has are skipped. */
  releases: z.array(namedReleaseSchema).max(MAX_HISTORY),
});

/** Older releases that one manifest may name for agents that lack a feature. */
export const MAX_SUPPORTED = 16;

/**
 * An older release that hosts may follow whose agents lack a feature of this one, so that it brings
 * them a newer agent. It lies on the mirror under its digest.
 */
export const supportedReleaseSchema = namedReleaseSchema.extend({
  /** What it requires itself; absent for nothing. */
  requires: featuresSchema.optional(),
  /** Until then hosts follow it, and the mirror keeps it. */
  until: timeSchema,
});
export type SupportedRelease = z.infer<typeof supportedReleaseSchema>;

const manifestKeys = z.strictObject({
  formatVersion: z.literal(MANIFEST_FORMAT_VERSION),
  channel: channelSchema,
  /** Absent as long as the numbering was never restarted. */
  epoch: epochSchema.optional(),
  sequence: z.int().positive(),
  createdAt: timeSchema,
  expiresAt: timeSchema,
  history: historySchema,
  /** Features that an agent must understand to follow this release; absent for none. */
  requires: featuresSchema.optional(),
  /** The way out for agents that lack one of them, the newest first; absent for none. */
  supported: z.array(supportedReleaseSchema).max(MAX_SUPPORTED).optional(),
  /** Applies to every host that does not say otherwise. */
  defaults: z.strictObject({ activation: activationSchema }),
  barrier: barrierSchema.optional(),
  /** Absent if every host goes at once. */
  rollout: rolloutSchema.optional(),
  hosts: z
    .record(hostnameSchema, hostSchema)
    .refine((hosts) => Object.keys(hosts).length <= MAX_HOSTS, {
      error: `expected at most ${MAX_HOSTS} hosts`,
    }),
});

const HISTORY_ORDER = {
  path: ["history"],
  error: "expected earlier releases in their order, none before `since`",
};

/** The manifest as it is written and signed: a key that this version does not know is refused. */
export const manifestSchema = manifestKeys.refine(isInOrder, HISTORY_ORDER);

/**
 * The manifest as hosts read it: whatever a later version has added is left out. Whether they may
 * follow it says `requires`.
 */
export const hostManifestSchema = withUnknownKeys(manifestSchema, "ignored");

/** The part of every manifest whose form never changes. */
export const manifestFrameSchema = withUnknownKeys(
  manifestKeys.pick({
    ...{ formatVersion: true, channel: true, epoch: true, sequence: true, createdAt: true },
    ...{ expiresAt: true, history: true, requires: true, supported: true },
  }),
  "ignored",
).refine(isInOrder, HISTORY_ORDER);
export type ManifestFrame = z.infer<typeof manifestFrameSchema>;

/** Whether the history ascends, from `since` to before the release itself. */
function isInOrder({
  epoch,
  sequence,
  history,
}: Pick<z.infer<typeof manifestKeys>, "epoch" | "sequence" | "history">): boolean {
  const places = [
    ...history.releases.map((release) => [release.epoch ?? 0, release.sequence] as const),
    [epoch?.number ?? 0, sequence] as const,
  ];
  let [lastEpoch, last] = [history.since.epoch ?? 0, history.since.sequence - 1];
  return places.every(([nextEpoch, next]) => {
    const isAfter = nextEpoch > lastEpoch || (nextEpoch === lastEpoch && next > last);
    [lastEpoch, last] = [nextEpoch, next];
    return isAfter;
  });
}

export type Manifest = z.infer<typeof manifestSchema>;
export type HostEntry = Manifest["hosts"][string];
export type ArchiveReference = HostEntry["archive"];

/** Where a release stands in its channel's order. */
export interface Position {
  /** 0 if the numbering was never restarted. */
  readonly epoch: number;
  readonly sequence: number;
}

export function positionOf(manifest: Pick<Manifest, "epoch" | "sequence">): Position {
  return { epoch: manifest.epoch?.number ?? 0, sequence: manifest.sequence };
}

/** Negative if `a` comes before `b`, 0 if they are the same position. */
export function comparePositions(a: Position, b: Position): number {
  return a.epoch - b.epoch || a.sequence - b.sequence;
}

/** `7`, or `7 of epoch 2` if the numbering was restarted. */
export function describePosition({ epoch, sequence }: Position): string {
  return epoch === 0 ? String(sequence) : `${sequence} of epoch ${epoch}`;
}

/** A release whose signatures and frame are right. What it asks of hosts may be of a later version. */
export interface SignedFrame {
  readonly manifest: ManifestFrame;
  /** sha256 of the signed payload, hex. */
  readonly digest: string;
  readonly signedBy: readonly string[];
}

/** A manifest whose signatures, type and form are right. Whether to accept it is decided later. */
export interface SignedManifest extends SignedFrame {
  readonly manifest: Manifest;
}

/** One host's part of a release: all that the agent needs to switch to it. */
export const releaseSchema = z.strictObject({
  channel: channelSchema,
  /** Absent for 0. */
  epoch: z.int().positive().optional(),
  sequence: z.int().positive(),
  digest: sha256Schema,
  hostname: hostnameSchema,
  toplevel: storePathSchema,
  closureSize: byteCountSchema,
  archive: archiveSchema,
  /** A manifest with a mode that is not known is refused; a host's record may have another version's. */
  mode: openEnum(ACTIVATION_MODES),
  /** The specialisation that is activated; the system itself if absent. */
  specialisation: specialisationSchema.optional(),
  checks: z.array(healthCheckSchema).max(MAX_CHECKS),
});
export type Release = z.infer<typeof releaseSchema>;

/**
 * Verifies and parses an envelope as operators' tools do, which refuse keys that they do not know.
 * Throws the trust errors; nothing unverified is parsed.
 */
export function readManifest(bytes: Uint8Array, trust: TrustPolicy): SignedManifest {
  const { payload, digest, signedBy } = openEnvelope(bytes, trust);
  return { manifest: parseManifest(payload), digest, signedBy };
}

/**
 * Parses a payload whose signatures were verified, or that was just made. It may take many times
 * the memory of its bytes: what nobody verified is for `parseUnverified`. Throws
 * MANIFEST_INVALID, FORMAT_UNSUPPORTED, AGENT_TOO_OLD.
 */
export function parseManifest(payload: Uint8Array): Manifest {
  const json = manifestJson(payload);
  expectUnderstood((json as { requires?: unknown } | null)?.requires);
  return parsedAs(manifestSchema, json);
}

/**
 * Throws AGENT_TOO_OLD if a release requires what this version does not understand: nobody could
 * tell what it says. Operators' tools refuse such a release, hosts go the way out.
 */
export function expectUnderstood(requires: unknown): void {
  const features = featuresSchema.safeParse(requires);
  const lacks = features.success ? lackedOf(features.data, FEATURES) : [];
  if (lacks.length === 0) return;
  throw new PullError(
    "AGENT_TOO_OLD",
    `the release requires ${lacks.slice(0, 5).join(", ")}${lacks.length > 5 ? ", …" : ""}, ` +
      "which this nixos-pull does not understand; use a newer one",
  );
}

/**
 * What a verified payload says, as JSON of the format that this version knows. Throws
 * MANIFEST_INVALID, FORMAT_UNSUPPORTED.
 */
export function manifestJson(payload: Uint8Array): unknown {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(payload).toString("utf8"));
  } catch (cause) {
    throw new PullError("MANIFEST_INVALID", "the signed payload is not JSON", { cause });
  }
  // JavaScript would lose a host of this name, and no host has it.
  const hosts = (json as { hosts?: unknown } | null)?.hosts;
  if (typeof hosts === "object" && hosts !== null && Object.hasOwn(hosts, "__proto__")) {
    throw new PullError("MANIFEST_INVALID", 'hosts: expected a hostname, found "__proto__"');
  }
  expectKnownFormat((json as { formatVersion?: unknown } | null)?.formatVersion);
  return json;
}

/** The JSON of a manifest, or of a part of one, in its form. Throws MANIFEST_INVALID. */
export function parsedAs<T>(schema: z.ZodType<T>, json: unknown): T {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new PullError("MANIFEST_INVALID", describeIssues(parsed.error, json));
}

/** Throws FORMAT_UNSUPPORTED if a payload names a newer format version than this one. */
export function expectKnownFormat(version: unknown): void {
  if (typeof version !== "number" || version <= MANIFEST_FORMAT_VERSION) return;
  throw new PullError(
    "FORMAT_UNSUPPORTED",
    `expected manifest format ${MANIFEST_FORMAT_VERSION}, found ${version}; ` +
      "this host needs a newer nixos-pull",
  );
}

/** Serialises a manifest for signing; hosts sorted, so that the same input gives the same bytes. */
export function encodeManifest(manifest: Manifest): Buffer {
  const hosts = Object.fromEntries(
    Object.entries(manifest.hosts).sort(([a], [b]) => (a < b ? -1 : 1)),
  );
  return Buffer.from(JSON.stringify({ ...manifest, hosts }));
}

/** A host's entry, whatever it is called. */
export function entryOf(
  { hosts }: Pick<Manifest, "hosts">,
  hostname: string,
): HostEntry | undefined {
  return Object.hasOwn(hosts, hostname) ? hosts[hostname] : undefined;
}

/** Whether a host that both releases name has another system in one of them. */
export function haveOtherSystems(
  one: Pick<Manifest, "hosts">,
  other: Pick<Manifest, "hosts">,
): boolean {
  return Object.entries(one.hosts).some(([hostname, { toplevel }]) => {
    const entry = entryOf(other, hostname);
    return entry !== undefined && entry.toplevel !== toplevel;
  });
}

/** What is asked of `switch-to-configuration` on a host, and which checks follow. */
export function activationOf(
  { defaults }: Pick<Manifest, "defaults">,
  { activation }: Pick<HostEntry, "activation">,
): Activation {
  const checks = activation?.checks ?? defaults.activation.checks;
  const specialisation = activation?.specialisation ?? defaults.activation.specialisation;
  return {
    mode: activation?.mode ?? defaults.activation.mode,
    ...(specialisation !== undefined && { specialisation }),
    ...(checks && { checks }),
  };
}

/** A system that a manifest names, and the archive that has it. */
export type ReleasedSystem = Pick<HostEntry, "toplevel" | "closureSize" | "archive" | "platform">;

/** The system of a host's entry, without what is asked of the host. */
export function systemOf({
  toplevel,
  closureSize,
  archive,
  platform,
}: ReleasedSystem): ReleasedSystem {
  return { toplevel, closureSize, archive, ...(platform !== undefined && { platform }) };
}

/** All systems that a host may need of the mirror: those on its way, then its own. */
export function systemsOf(entry: HostEntry): readonly ReleasedSystem[] {
  return [...(entry.through ?? []), entry];
}

/** Every system of a release, with the host that it is for. */
export function systemsIn({ hosts }: Manifest): { hostname: string; system: ReleasedSystem }[] {
  return Object.entries(hosts).flatMap(([hostname, entry]) =>
    systemsOf(entry).map((system) => ({ hostname, system })),
  );
}

/** HOST_NOT_IN_RELEASE, with the hosts that the release names as far as they are known. */
export function notNamed(
  { channel, sequence }: Pick<ManifestFrame, "channel" | "sequence">,
  hostname: string,
  names: readonly string[] = [],
): PullError {
  const shown = names.slice(0, 5).join(", ") + (names.length > 5 ? ", …" : "");
  return new PullError(
    "HOST_NOT_IN_RELEASE",
    `release ${sequence} of channel ${channel} names no host ${JSON.stringify(hostname)}` +
      (names.length > 0 ? `; it names ${names.length}: ${shown}` : ""),
  );
}

/**
 * The host's part of a manifest. `machineId` is this machine's hash: null if it has none,
 * absent to leave it unchecked. Throws HOST_NOT_IN_RELEASE,
 * MACHINE_MISMATCH.
 */
export function releaseFor(
  signed: SignedManifest,
  hostname: string,
  machineId?: string | null,
): Release {
  const { manifest, digest } = signed;
  const entry = entryOf(manifest, hostname);
  if (entry === undefined) throw notNamed(manifest, hostname, Object.keys(manifest.hosts));
  if (machineId !== undefined && entry.machineId !== undefined && entry.machineId !== machineId) {
    throw new PullError(
      "MACHINE_MISMATCH",
      `release ${manifest.sequence} gives ${hostname} to the machine ${entry.machineId}, ` +
        `this one is ${machineId ?? "without a machine-id"}`,
    );
  }
  const { mode, specialisation, checks = [] } = activationOf(manifest, entry);
  return {
    channel: manifest.channel,
    ...(manifest.epoch && { epoch: manifest.epoch.number }),
    sequence: manifest.sequence,
    digest,
    hostname,
    toplevel: entry.toplevel,
    closureSize: entry.closureSize,
    archive: entry.archive,
    mode,
    ...(specialisation !== undefined && { specialisation }),
    checks,
  };
}
