import { z } from "zod";
import { openEnvelope, printableSchema, type TrustPolicy } from "./envelope.ts";
import { PullError } from "./errors.ts";
import { MAX_CHECKS, healthCheckSchema } from "./health-check.ts";
import { describeIssues } from "./schema-issues.ts";
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

export const sha256Schema = z
  .string()
  .regex(/^[0-9a-f]{64}$/, "expected a sha256 in lower-case hex");

/** A byte count that JavaScript holds exactly. */
const byteCountSchema = z.int().nonnegative();

const timeSchema = z.iso.datetime({
  error: "expected a UTC time such as 2026-01-31T12:00:00.000Z",
});

export const activationSchema = z.strictObject({
  mode: z.enum(ACTIVATION_MODES),
  /** Checks that the new system must pass, beside the host's own. */
  checks: z.array(healthCheckSchema).max(MAX_CHECKS).optional(),
});

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
    /** sha256 of the index before compression, where there are patches. */
    json: sha256Schema.optional(),
    patches: z.array(indexPatchSchema).max(MAX_INDEX_PATCHES).optional(),
  }),
});

const hostSchema = z.strictObject({
  toplevel: storePathSchema,
  /** Sum of the closure's NAR sizes in bytes: what the store grows by on an empty host. */
  closureSize: byteCountSchema,
  archive: archiveSchema,
  activation: activationSchema.partial().optional(),
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
  /** Why, in words, for whoever reads the manifest later. */
  reason: printableSchema.min(1).max(500),
});

export const manifestSchema = z.strictObject({
  formatVersion: z.literal(MANIFEST_FORMAT_VERSION),
  channel: channelSchema,
  /** Absent as long as the numbering was never restarted. */
  epoch: epochSchema.optional(),
  sequence: z.int().positive(),
  createdAt: timeSchema,
  expiresAt: timeSchema,
  /** Applies to every host that does not say otherwise. */
  defaults: z.strictObject({ activation: activationSchema }),
  hosts: z
    .record(hostnameSchema, hostSchema)
    .refine((hosts) => Object.keys(hosts).length <= MAX_HOSTS, {
      error: `expected at most ${MAX_HOSTS} hosts`,
    }),
});

export type Manifest = z.infer<typeof manifestSchema>;
export type HostEntry = Manifest["hosts"][string];
export type ArchiveReference = HostEntry["archive"];

/** Where a release stands in its channel's order. */
export interface Position {
  /** 0 where the numbering was never restarted. */
  readonly epoch: number;
  readonly sequence: number;
}

export function positionOf(manifest: Pick<Manifest, "epoch" | "sequence">): Position {
  return { epoch: manifest.epoch?.number ?? 0, sequence: manifest.sequence };
}

/** Negative where `a` comes before `b`, 0 where they are the same place. */
export function comparePositions(a: Position, b: Position): number {
  return a.epoch - b.epoch || a.sequence - b.sequence;
}

/** `7`, or `7 of epoch 2` where the numbering was restarted. */
export function describePosition({ epoch, sequence }: Position): string {
  return epoch === 0 ? String(sequence) : `${sequence} of epoch ${epoch}`;
}

/** A manifest whose signatures, type and form are right; not yet whether it is acceptable here. */
export interface SignedManifest {
  readonly manifest: Manifest;
  /** sha256 of the signed payload, hex. */
  readonly digest: string;
  readonly signedBy: readonly string[];
}

/** One host's part of a release: all that the agent needs to become it. */
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
  mode: z.enum(ACTIVATION_MODES),
  checks: z.array(healthCheckSchema).max(MAX_CHECKS),
});
export type Release = z.infer<typeof releaseSchema>;

/** Verifies and parses an envelope. Throws the trust errors; nothing unverified is parsed. */
export function readManifest(bytes: Uint8Array, trust: TrustPolicy): SignedManifest {
  const { payload, digest, signedBy } = openEnvelope(bytes, trust);
  return { manifest: parseManifest(payload), digest, signedBy };
}

/**
 * Parses a payload, whoever signed it; hosts go through `readManifest`. Throws
 * MANIFEST_INVALID, FORMAT_UNSUPPORTED.
 */
export function parseManifest(payload: Uint8Array): Manifest {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(payload).toString("utf8"));
  } catch (cause) {
    throw new PullError("MANIFEST_INVALID", "the signed payload is not JSON", { cause });
  }
  // A host of this name would be lost on the way, and nobody has one.
  const hosts = (json as { hosts?: unknown } | null)?.hosts;
  if (typeof hosts === "object" && hosts !== null && Object.hasOwn(hosts, "__proto__")) {
    throw new PullError("MANIFEST_INVALID", 'hosts: expected a hostname, found "__proto__"');
  }
  const version = (json as { formatVersion?: unknown } | null)?.formatVersion;
  if (typeof version === "number" && version > MANIFEST_FORMAT_VERSION) {
    throw new PullError(
      "FORMAT_UNSUPPORTED",
      `expected manifest format ${MANIFEST_FORMAT_VERSION}, found ${version}; ` +
        "this host needs a newer nixos-pull",
    );
  }
  const parsed = manifestSchema.safeParse(json);
  if (!parsed.success) {
    throw new PullError("MANIFEST_INVALID", describeIssues(parsed.error, json));
  }
  return parsed.data;
}

/** Serialises a manifest for signing; hosts sorted, so that the same input gives the same bytes. */
export function encodeManifest(manifest: Manifest): Buffer {
  const hosts = Object.fromEntries(
    Object.entries(manifest.hosts).sort(([a], [b]) => (a < b ? -1 : 1)),
  );
  return Buffer.from(JSON.stringify({ ...manifest, hosts }));
}

/**
 * The host's part of a manifest. `machineId` is this machine's hash, null where it has
 * none, absent where it is nobody's question. Throws HOST_NOT_IN_RELEASE,
 * MACHINE_MISMATCH.
 */
export function releaseFor(
  signed: SignedManifest,
  hostname: string,
  machineId?: string | null,
): Release {
  const { manifest, digest } = signed;
  const entry = Object.hasOwn(manifest.hosts, hostname) ? manifest.hosts[hostname] : undefined;
  if (entry === undefined) {
    const names = Object.keys(manifest.hosts);
    const shown = names.slice(0, 5).join(", ");
    throw new PullError(
      "HOST_NOT_IN_RELEASE",
      `release ${manifest.sequence} of channel ${manifest.channel} names no host ` +
        `${JSON.stringify(hostname)}; it names ${names.length}: ${shown}${names.length > 5 ? ", …" : ""}`,
    );
  }
  if (machineId !== undefined && entry.machineId !== undefined && entry.machineId !== machineId) {
    throw new PullError(
      "MACHINE_MISMATCH",
      `release ${manifest.sequence} gives ${hostname} to the machine ${entry.machineId}, ` +
        `this one is ${machineId ?? "without a machine-id"}`,
    );
  }
  return {
    channel: manifest.channel,
    ...(manifest.epoch && { epoch: manifest.epoch.number }),
    sequence: manifest.sequence,
    digest,
    hostname,
    toplevel: entry.toplevel,
    closureSize: entry.closureSize,
    archive: entry.archive,
    mode: entry.activation?.mode ?? manifest.defaults.activation.mode,
    checks: entry.activation?.checks ?? manifest.defaults.activation.checks ?? [],
  };
}
