import * as z from "zod";
import type { TrustPolicy } from "./formats/envelope.ts";
import { PullError } from "./errors.ts";
import { durationSchema, positiveDurationSchema } from "./text/duration.ts";
import { healthSettingsSchema } from "./formats/health-check.ts";
import { ACTIVATION_MODES, channelSchema, hostnameSchema } from "./formats/manifest.ts";
import { describeIssues } from "./text/schema-issues.ts";
import {
  keyMaterial,
  parsePublicKey,
  withoutRevoked,
  type PublicKey,
} from "./formats/signing-key.ts";
import { mirrorSchema } from "./formats/mirror-address.ts";
import { httpAddressSchema, parseUrl } from "./formats/web-address.ts";
import { pollSchema, pollSettingsOf, type PollSettings } from "./schedule/poll-schedule.ts";
import { windowSchema } from "./schedule/window.ts";

export { DEFAULT_INTERVAL_MS, type PollSettings } from "./schedule/poll-schedule.ts";

/** Where the agent looks when no `--config` is given; the NixOS module writes it. */
export const DEFAULT_CONFIG_FILE = "/etc/nixos-pull/config.json";

const DEFAULT_STATE_DIRECTORY = "/var/lib/nixos-pull";

/**
 * An absolute path that can also stand in a `file://` store URI, where Nix reads `?`,
 * `#` and `%` as syntax (Nix manual, "Store URL format").
 */
const directorySchema = z
  .string()
  .regex(/^\/[^?#%\s]*$/, "expected an absolute path without white space, ?, # or %");

const filePathSchema = z.string().regex(/^\/./, "expected an absolute path");

/** A loopback address and a port: metrics say much about a host, and nobody is asked who they are. */
const loopbackSchema = z
  .string()
  .regex(
    /^(127(\.(0|[1-9]\d{0,2})){3}|\[::1\]|localhost):[1-9]\d{0,4}$/,
    "expected a loopback address and a port, such as 127.0.0.1:9184",
  )
  .refine((text) => Number(text.slice(text.lastIndexOf(":") + 1)) <= 65535, {
    error: "expected a port of at most 65535",
  });

/** Names as systemd's LoadCredential= takes them (systemd.exec(5)). */
const credentialNameSchema = z
  .string()
  .regex(/^[A-Za-z0-9_.:-]{1,100}$/, "expected a credential's name");

const credentialSchema = z
  .strictObject({
    type: z.enum(["basic", "bearer"]).describe("basic: the secret is USER:PASSWORD."),
    file: filePathSchema.optional().describe("File that holds the secret, in one line."),
    credential: credentialNameSchema
      .optional()
      .describe("Name of a systemd credential that holds it, instead of a file."),
  })
  .refine(({ file, credential }) => (file === undefined) !== (credential === undefined), {
    error: "expected either a file or a credential",
  });
export type MirrorCredential = z.infer<typeof credentialSchema>;

/** Loopback is nobody else's network: a secret may go there without TLS. */
function keepsSecrets(address: string): boolean {
  const url = parseUrl(address);
  return (
    url?.protocol === "https:" ||
    (url?.protocol === "http:" && /^(127\.[0-9.]+|\[::1\]|localhost)$/.test(url.hostname))
  );
}

const publicKeySchema = z.string().transform((text, context): PublicKey => {
  try {
    return parsePublicKey(text);
  } catch (error) {
    context.addIssue({
      code: "custom",
      message: (error as PullError).message,
      params: { secret: true },
    });
    return z.NEVER;
  }
});

const bytesSchema = z.int().nonnegative();

/** Nobody has more maintenance windows than this. */
const MAX_WINDOWS = 32;

/** While a hook runs, no other update can begin, nor the agent start after a deadline. */
const MAX_HOOK_MS = 60 * 60 * 1000;

/** A program with its arguments; no shell. */
const commandSchema = z.array(z.string().max(4096)).min(1).max(64);

/** The agent's configuration file. Durations are text (`15m`), sizes are in bytes. */
export const settingsSchema = z
  .strictObject({
    $schema: z.string().optional().describe("For editors; not read by the agent."),
    hostname: hostnameSchema
      .optional()
      .describe("Name of this host in releases; the system's hostname where absent."),
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
      .describe("Keys trusted to sign store paths, where others than publicKeys do."),
    revokedKeys: z
      .array(publicKeySchema)
      .max(32)
      .prefault([])
      .describe("Keys that count no longer, wherever else they stand."),
    threshold: z
      .int()
      .positive()
      .default(1)
      .describe("How many distinct keys must have signed a release."),
    credentials: z
      .record(mirrorSchema, credentialSchema)
      .default({})
      .describe("How this host identifies itself to a mirror, by the mirror's address."),
    tls: z
      .strictObject({
        caFile: filePathSchema
          .optional()
          .describe("Certificate authorities for mirrors, PEM; the system's where absent."),
        certFile: filePathSchema
          .optional()
          .describe("Client certificate that is shown to mirrors and where reports go, PEM."),
        keyFile: filePathSchema.optional().describe("Its private key, PEM."),
      })
      .refine(({ certFile, keyFile }) => (certFile === undefined) === (keyFile === undefined), {
        error: "expected certFile and keyFile together",
      })
      .prefault({})
      .describe("TLS to mirrors."),
    reports: z
      .strictObject({
        directory: filePathSchema
          .optional()
          .describe(
            "Write a signed report HOSTNAME.json here after every poll; never made, for it may be on a stick.",
          ),
        url: mirrorSchema
          .refine((text) => !text.startsWith("file:"), { error: "expected https:// or http://" })
          .optional()
          .describe("Send it to HOSTNAME.json below this address, by HTTP PUT."),
      })
      .prefault({})
      .describe("Where this host reports what it is."),
    sticks: z
      .strictObject({
        watch: durationSchema
          .prefault("5s")
          .describe(
            "How often a waiting service looks whether a file:// mirror came or changed, to poll at once; 0s: never.",
          ),
        reports: z
          .boolean()
          .default(false)
          .describe(
            "Write the signed report to reports/HOSTNAME.json on every file:// mirror that is there, after every poll.",
          ),
      })
      .prefault({})
      .describe("Mirrors in directories that come and go, such as USB sticks."),
    statusSocket: z
      .strictObject({
        path: filePathSchema.optional().describe("Where the socket is made."),
        group: z.string().min(1).max(64).optional().describe("The group that may open it."),
      })
      .refine(({ path, group }) => group === undefined || path !== undefined, {
        error: "expected a path together with a group",
      })
      .prefault({})
      .describe("A Unix socket on which the service tells its status to a group."),
    metrics: z
      .strictObject({
        textfile: filePathSchema
          .regex(/\.prom$/, "expected a name that ends with .prom")
          .optional()
          .describe("Write metrics here after every poll, for node_exporter's textfile collector."),
        listen: loopbackSchema
          .optional()
          .describe("Loopback address and port on which the service gives metrics by HTTP."),
      })
      .prefault({})
      .describe("Metrics for Prometheus."),
    clock: z
      .enum(["strict", "ignore"])
      .default("strict")
      .describe(
        "strict: expired releases and implausible times are refused. ignore: for sites without time; releases then never expire, and a mirror can hold newer ones back unnoticed.",
      ),
    poll: pollSchema
      .prefault({})
      .describe("When to look for a new release; every 15 minutes where absent."),
    activation: z
      .strictObject({
        mode: z
          .enum(ACTIVATION_MODES)
          .optional()
          .describe("Overrides the release's activation mode on this host."),
        timeout: positiveDurationSchema
          .prefault("30m")
          .describe("How long switch-to-configuration may take."),
        runner: z
          .enum(["auto", "systemd", "child"])
          .default("auto")
          .describe(
            "What runs switch-to-configuration: a transient systemd unit, or the agent itself in a sandbox.",
          ),
        attempts: z
          .int()
          .min(1)
          .max(100)
          .default(5)
          .describe("Attempts at a system that is cut off again and again before it is denied."),
        confirm: z
          .enum(["none", "required"])
          .default("none")
          .describe(
            "required: the service activates a release only after `nixos-pull confirm` on this host.",
          ),
      })
      .prefault({})
      .describe("How a release is activated."),
    health: healthSettingsSchema
      .prefault({})
      .describe("What a new system must prove before it becomes the boot default."),
    reboot: z
      .strictObject({
        policy: z
          .enum(["never", "window", "now"])
          .default("never")
          .describe("When to reboot for a new kernel, initrd or kernel modules."),
        window: windowSchema
          .optional()
          .describe("When policy window may reboot; in maintenance.windows where absent."),
        grace: durationSchema
          .prefault("1m")
          .describe("Time between the announcement of a reboot and the reboot."),
        fleetLock: z
          .strictObject({
            url: httpAddressSchema.describe("Address of a FleetLock server, such as airlock."),
            group: z
              .string()
              .regex(/^[a-zA-Z0-9.-]+$/)
              .default("default")
              .describe("Group whose reboot slots this host shares."),
            id: z
              .string()
              .min(1)
              .optional()
              .describe("This host's identity; the hostname where absent."),
          })
          .optional()
          .describe("Coordinates reboots with other hosts through a FleetLock server."),
      })
      .prefault({})
      .describe("Reboots."),
    maintenance: z
      .strictObject({
        windows: z
          .array(windowSchema)
          .max(MAX_WINDOWS)
          .prefault([])
          .describe(
            "When the service may activate releases, which it fetches at any time; always where empty.",
          ),
        jitter: durationSchema
          .prefault("5m")
          .describe(
            "Up to this much after a window's opening, and a quarter of the window at most, is this host's turn to activate or reboot; 0s: at once.",
          ),
      })
      .prefault({})
      .describe("Maintenance windows."),
    hooks: z
      .strictObject({
        preActivate: commandSchema
          .optional()
          .describe("Runs before a release is activated; while it fails, the release is not."),
        postCommit: commandSchema
          .optional()
          .describe("Runs once this host is what a release says."),
        postRollback: commandSchema.optional().describe("Runs once this host has gone back."),
        timeout: positiveDurationSchema
          .refine((ms) => ms <= MAX_HOOK_MS, { error: "expected a duration of at most 1h" })
          .prefault("5m")
          .describe("How long one hook may take before it is ended; at most 1h."),
      })
      .prefault({})
      .describe("Programs of this host's own around an activation."),
    drift: z
      .enum(["keep", "revert"])
      .default("keep")
      .describe(
        "What becomes of a host that was changed by hand. keep: it is left alone until another system is released. revert: the release is activated again.",
      ),
    generations: z
      .strictObject({
        keep: z
          .int()
          .min(2)
          .optional()
          .describe("Generations of the system profile that are kept; all where absent."),
      })
      .prefault({})
      .describe("Old generations."),
    store: z
      .string()
      .regex(/^[^\s]+$/)
      .optional()
      .describe("Nix store URI, such as local?root=/srv/sandbox; the system's store where absent."),
    paths: z
      .strictObject({
        state: directorySchema
          .default(DEFAULT_STATE_DIRECTORY)
          .describe("The agent's state and history."),
        staging: directorySchema
          .optional()
          .describe(
            "Where archives are unpacked before import; below the state directory where absent.",
          ),
        runtime: directorySchema
          .optional()
          .describe(
            "Where a copy of the state is kept, apart from it: /run/nixos-pull where absent, or the state directory's name with .run where that is not the usual one.",
          ),
        profile: directorySchema
          .default("/nix/var/nix/profiles/system")
          .describe("The system profile."),
        gcRoots: directorySchema
          .default("/nix/var/nix/gcroots/nixos-pull")
          .describe("Directory of the agent's garbage collector roots."),
        machineId: directorySchema
          .default("/etc/machine-id")
          .describe("File with this machine's identity (machine-id(5))."),
        currentSystem: directorySchema
          .default("/run/current-system")
          .describe("Link to the running system."),
        bootedSystem: directorySchema
          .default("/run/booted-system")
          .describe("Link to the system that was booted."),
        boot: directorySchema.default("/boot").describe("Where the boot loader keeps kernels."),
      })
      .prefault({})
      .describe("Files and directories."),
    limits: z
      .strictObject({
        manifestBytes: bytesSchema
          .max(1024 ** 3)
          .default(32 * 1024 ** 2)
          .describe("Longest manifest that is read."),
        redirects: z.int().min(0).max(20).default(5).describe("Redirects followed for one file."),
        connectTimeout: positiveDurationSchema
          .prefault("15s")
          .describe("Time to connect to a mirror."),
        stallTimeout: positiveDurationSchema
          .prefault("60s")
          .describe("Longest silence of a mirror before it is given up."),
        importTimeout: positiveDurationSchema
          .prefault("4h")
          .describe("How long nix copy may take."),
        minRate: bytesSchema
          .default(1024)
          .describe("Bytes a second below which a mirror is given up; 0 allows any rate."),
        rateWindow: positiveDurationSchema
          .prefault("60s")
          .describe("How long a mirror may stay below minRate."),
        maxRate: bytesSchema
          .default(0)
          .describe("Most bytes a second that archives are downloaded with; 0 sets no bound."),
        stagingBytes: bytesSchema
          .default(0)
          .describe(
            "Most bytes that downloaded NARs take before they are imported; a single larger one may lie there alone. 0: a sixteenth of the closure.",
          ),
        deltaNarBytes: bytesSchema
          .default(128 * 1024 ** 2)
          .describe(
            "Largest NAR that is made out of an older one by a delta, which takes zstd about four times that much memory; 0: none.",
          ),
        deltaTimeout: positiveDurationSchema
          .prefault("10m")
          .describe("How long the making of one such NAR may take."),
        reserveBytes: bytesSchema
          .default(256 * 1024 ** 2)
          .describe("Free space that an update must leave on every file system it writes to."),
        retryBase: positiveDurationSchema
          .prefault("1m")
          .describe("First wait after a failed attempt; doubles."),
        retryMax: positiveDurationSchema
          .prefault("6h")
          .describe("Longest wait after a failed attempt."),
      })
      .prefault({})
      .describe("Bounds on what mirrors and programs may take."),
    log: z
      .strictObject({
        level: z
          .enum(["debug", "info", "warn", "error"])
          .default("info")
          .describe("Least severe level that is logged."),
        format: z
          .enum(["auto", "text", "json"])
          .default("auto")
          .describe("auto: readable lines on a terminal and in the journal, JSON elsewhere."),
      })
      .prefault({})
      .describe("Logging."),
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
  .refine(({ credentials }) => Object.keys(credentials).every(keepsSecrets), {
    error: "expected https:// mirrors: a secret would go over the network in the clear",
    path: ["credentials"],
  })
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

/** Keys that are listed twice, even under two names, are one voice. */
function distinctKeys(keys: readonly PublicKey[]): number {
  return new Set(keys.map(keyMaterial)).size;
}

/** What the schema gives: defaults filled in, durations in milliseconds, keys parsed. */
type ParsedSettings = z.output<typeof settingsSchema>;

/** Settings that apply on this host, complete. */
export interface Settings extends Omit<
  ParsedSettings,
  "hostname" | "paths" | "poll" | "storeKeys" | "$schema"
> {
  readonly hostname: string;
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

function runtimeFor(state: string): string {
  return state === DEFAULT_STATE_DIRECTORY ? "/run/nixos-pull" : `${state}.run`;
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
    storeKeys: withoutRevoked(storeKeys ?? rest.publicKeys, rest.revokedKeys),
    source: JSON.stringify({ ...(json as object), hostname: name.data }),
    paths: {
      ...paths,
      staging: paths.staging ?? `${paths.state}/staging`,
      runtime: paths.runtime ?? runtimeFor(paths.state),
    },
    poll: pollSettingsOf(poll),
  };
}

/** Whose signatures make a release acceptable on this host. */
export function trustPolicyOf(settings: Settings): TrustPolicy {
  const { publicKeys, threshold, revokedKeys } = settings;
  return { publicKeys, threshold, revokedKeys };
}
