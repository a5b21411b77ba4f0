import * as z from "zod";
import { PullError } from "./errors.ts";
import type { TrustPolicy } from "./formats/envelope.ts";
import { healthSettingsSchema } from "./formats/health-check.ts";
import { channelSchema, hostnameSchema } from "./formats/manifest.ts";
import { mirrorSchema } from "./formats/mirror-address.ts";
import { keyMaterial, withoutRevoked, type PublicKey } from "./formats/signing-key.ts";
import { pollSchema, pollSettingsOf, type PollSettings } from "./schedule/poll-schedule.ts";
import {
  activationSettingsSchema,
  hooksSchema,
  maintenanceSchema,
  rebootSchema,
} from "./settings/activation.ts";
import { publicKeySchema } from "./settings/keys.ts";
import { limitsSchema } from "./settings/limits.ts";
import { credentialSchema, fitsMirror, keepsSecrets, tlsSchema } from "./settings/mirrors.ts";
import { pathsSchema, runtimeDirectoryFor } from "./settings/paths.ts";
import {
  logSchema,
  metricsSchema,
  reportsSchema,
  statusSocketSchema,
  sticksSchema,
} from "./settings/reporting.ts";
import { describeIssues } from "./text/schema-issues.ts";

/** Where the agent looks when no `--config` is given; the NixOS module writes it. */
export const DEFAULT_CONFIG_FILE = "/etc/nixos-pull/config.json";

/** The agent's configuration file. Durations are text (`15m`), sizes are in bytes. */
export const settingsSchema = z
  .strictObject({
    $schema: z.string().optional().describe("For editors; not read by the agent."),
    hostname: hostnameSchema
      .optional()
      .describe("Name of this host in releases; the system's hostname if absent."),
    channel: channelSchema.default("stable").describe("The channel that this host follows."),
    mirrors: z
      .array(mirrorSchema)
      .min(1)
      .max(16)
      .describe(
        "Mirrors, best first. Every poll asks them all; the highest sequence wins and archives come from the first that serves them.",
      ),
    publicKeys: z
      .array(publicKeySchema)
      .min(1)
      .max(32)
      .describe("Keys trusted to sign releases and store paths, in Nix's NAME:BASE64 form."),
    storeKeys: z
      .array(publicKeySchema)
      .min(1)
      .max(32)
      .optional()
      .describe("Keys trusted to sign store paths; publicKeys if absent."),
    contentAddressed: z
      .enum(["signed", "unsigned"])
      .default("signed")
      .describe(
        "signed: store paths with a content address need a signature by storeKeys, as all others do. unsigned: they need none, as for Nix itself; whoever can sign releases then needs no store key for such paths.",
      ),
    revokedKeys: z
      .array(publicKeySchema)
      .max(32)
      .prefault([])
      .describe("Keys that no longer count, even if they are in publicKeys or storeKeys."),
    threshold: z
      .int()
      .positive()
      .default(1)
      .describe("How many distinct keys must have signed a release."),
    credentials: z
      .record(mirrorSchema, credentialSchema)
      .refine((credentials) => Object.keys(credentials).every(keepsSecrets), {
        error: "expected https:// mirrors: a secret would go over the network in the clear",
      })
      .refine((credentials) => Object.entries(credentials).every((entry) => fitsMirror(...entry)), {
        error: "expected the types s3 and instance-role for s3:// mirrors, and only for these",
      })
      .default({})
      .describe("How this host identifies itself to a mirror, by the mirror's address."),
    tls: tlsSchema,
    reports: reportsSchema,
    sticks: sticksSchema,
    statusSocket: statusSocketSchema,
    metrics: metricsSchema,
    clock: z
      .enum(["strict", "ignore"])
      .default("strict")
      .describe(
        "strict: expired releases and implausible times are refused. ignore: for sites without time; releases then never expire, and a mirror can hold newer ones back unnoticed.",
      ),
    poll: pollSchema
      .prefault({})
      .describe("When to look for a new release; every 15 minutes if absent."),
    activation: activationSettingsSchema,
    health: healthSettingsSchema
      .prefault({})
      .describe("What a new system must prove before it becomes the boot default."),
    reboot: rebootSchema,
    maintenance: maintenanceSchema,
    hooks: hooksSchema,
    drift: z
      .enum(["keep", "revert"])
      .default("keep")
      .describe(
        "What the service does if a person changed the host by hand. keep: leaves it alone until another system is released. revert: activates the release again.",
      ),
    generations: z
      .strictObject({
        keep: z
          .int()
          .min(2)
          .optional()
          .describe(
            "How many generations of the system profile are kept, at least 2; all if absent.",
          ),
        collect: z
          .enum(["never", "when-needed"])
          .default("never")
          .describe(
            "Whether the agent has Nix collect garbage. when-needed: if the store has no room for a release, as much as is missing, before the update is given up.",
          ),
      })
      .prefault({})
      .describe("Old generations."),
    store: z
      .string()
      .regex(/^[^\s]+$/)
      .optional()
      .describe("Nix store URI, such as local?root=/srv/sandbox; the system's store if absent."),
    paths: pathsSchema,
    limits: limitsSchema,
    log: logSchema,
  })
  .refine(
    ({ reboot, maintenance }) =>
      reboot.policy !== "window" || reboot.window !== undefined || maintenance.windows.length > 0,
    {
      error: "expected a window, or maintenance.windows, together with the policy window",
      path: ["reboot"],
    },
  )
  .refine(
    ({ credentials, mirrors }) => Object.keys(credentials).every((it) => mirrors.includes(it)),
    { error: "expected addresses that stand in mirrors", path: ["credentials"] },
  )
  .refine(
    ({ threshold, publicKeys, revokedKeys }) =>
      threshold <= distinctKeys(withoutRevoked(publicKeys, revokedKeys)),
    {
      error:
        "expected a threshold no greater than the number of distinct publicKeys that are not revoked",
      path: ["threshold"],
    },
  )
  .refine(
    ({ storeKeys, publicKeys, revokedKeys }) =>
      withoutRevoked(storeKeys ?? publicKeys, revokedKeys).length > 0,
    { error: "expected at least one key that is not revoked", path: ["storeKeys"] },
  );

/** How many different keys there are. A key that is listed twice, even under two names, counts once. */
function distinctKeys(keys: readonly PublicKey[]): number {
  return new Set(keys.map(keyMaterial)).size;
}

/** What the schema gives: defaults filled in, durations in milliseconds, keys parsed. */
type ParsedSettings = z.output<typeof settingsSchema>;

/** Settings that apply on this host, complete. */
export interface Settings extends Omit<
  ParsedSettings,
  "hostname" | "paths" | "poll" | "storeKeys" | "health" | "$schema"
> {
  readonly health: ParsedSettings["health"] & {
    /** Whoever signs releases, and no store paths, brings in no commands unless this says so. */
    readonly releaseCommands: boolean;
  };
  readonly hostname: string;
  /** Whether that is the system's hostname, which may change, and not a setting. */
  readonly isNamedBySystem: boolean;
  /** Whose signatures of store paths count: as configured, without the revoked ones. */
  readonly storeKeys: readonly PublicKey[];
  readonly paths: Omit<ParsedSettings["paths"], "staging" | "runtime"> & {
    readonly staging: string;
    readonly runtime: string;
  };
  readonly poll: PollSettings;
  /** The configuration as it was given, with the hostname filled in: JSON text. */
  readonly source: string;
}

/** Parses a configuration file's JSON. Throws CONFIG_INVALID, naming every bad key. */
export function parseSettings(json: unknown, systemHostname: string): Settings {
  const parsed = settingsSchema.safeParse(json);
  if (!parsed.success) throw new PullError("CONFIG_INVALID", describeIssues(parsed.error, json));
  const { hostname, paths, poll, storeKeys, $schema: _, ...rest } = parsed.data;
  const name = hostnameSchema.safeParse(hostname ?? systemHostname);
  if (!name.success) {
    throw new PullError(
      "CONFIG_INVALID",
      `hostname: the system's hostname ${JSON.stringify(systemHostname)} cannot stand in a release; set one`,
    );
  }
  return {
    ...rest,
    hostname: name.data,
    isNamedBySystem: hostname === undefined,
    health: {
      ...rest.health,
      releaseCommands: rest.health.releaseCommands ?? storeKeys === undefined,
    },
    storeKeys: withoutRevoked(storeKeys ?? rest.publicKeys, rest.revokedKeys),
    source: JSON.stringify({ ...(json as object), hostname: name.data }),
    paths: {
      ...paths,
      staging: paths.staging ?? `${paths.state}/staging`,
      runtime: paths.runtime ?? runtimeDirectoryFor(paths.state),
    },
    poll: pollSettingsOf(poll),
  };
}

/** How web servers are talked to. Commands that follow no channel need nothing else. */
export type NetworkSettings = Pick<Settings, "limits" | "tls" | "credentials">;

const networkSchema = z.strictObject({
  limits: settingsSchema.shape.limits,
  tls: settingsSchema.shape.tls,
  credentials: settingsSchema.shape.credentials,
});

/**
 * Parses those settings alone, with their defaults: no key and no mirror has to be given. Throws
 * CONFIG_INVALID.
 */
export function parseNetworkSettings(json: z.input<typeof networkSchema>): NetworkSettings {
  const parsed = networkSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new PullError("CONFIG_INVALID", describeIssues(parsed.error, json));
}

/** Whose signatures make a release acceptable on this host. */
export function trustPolicyOf(settings: Settings): TrustPolicy {
  const { publicKeys, threshold, revokedKeys } = settings;
  return { publicKeys, threshold, revokedKeys };
}
