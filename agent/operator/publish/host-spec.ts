import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import {
  activationSchema,
  MAX_GROUPS,
  groupSchema,
  hostnameSchema,
  sha256Schema,
} from "../../core/formats/manifest.ts";
import { describeIssues } from "../../core/text/schema-issues.ts";
import { STORE_DIRECTORY, STORE_PATH_NAME } from "../../core/formats/store-path.ts";

/** Where a host's system comes from. */
export type SystemSource =
  /** A store path that exists already. */
  | { readonly kind: "storePath"; readonly path: string }
  /** `nix-build FILE -A ATTRIBUTE`; without an attribute the file itself is the system. */
  | { readonly kind: "file"; readonly file: string; readonly attribute: string | null }
  /** `nix build REFERENCE#ATTRIBUTE`. */
  | { readonly kind: "flake"; readonly installable: string }
  /** A derivation that was instantiated already. */
  | { readonly kind: "derivation"; readonly path: string };

/** A host that is published. */
export interface HostSpec {
  readonly hostname: string;
  readonly source: SystemSource;
  /** How this host activates the release, if not by the release's defaults. */
  readonly activation?: HostActivation | undefined;
  /** The one machine that may use this entry: the id that `nixos-pull status` shows there. */
  readonly machineId?: string | undefined;
  /** Groups by which a rollout may name this host. */
  readonly groups?: readonly string[] | undefined;
}

const hostActivationSchema = activationSchema.partial();
type HostActivation = z.infer<typeof hostActivationSchema>;

const FILE_SPEC = /^(?<file>[^#]+\.nix)(?:(?:#|\s+-A\s+)(?<attribute>\S+))?$/;

/**
 * Reads where a system comes from: `/nix/store/…`, `FILE.nix`, `FILE.nix#ATTRIBUTE`
 * (or `FILE.nix -A ATTRIBUTE`, as for nix-build), or `FLAKE#ATTRIBUTE`. A flake
 * attribute without dots names a NixOS configuration, as for nixos-rebuild. Throws USAGE.
 */
export function parseSource(text: string): SystemSource {
  if (text.startsWith(`${STORE_DIRECTORY}/`)) {
    const name = text.slice(STORE_DIRECTORY.length + 1).replace(/\/$/, "");
    if (!STORE_PATH_NAME.test(name)) {
      throw new PullError("USAGE", `expected a store path, found ${JSON.stringify(text)}`);
    }
    const path = `${STORE_DIRECTORY}/${name}`;
    return name.endsWith(".drv") ? { kind: "derivation", path } : { kind: "storePath", path };
  }
  const file = FILE_SPEC.exec(text)?.groups;
  if (file?.["file"] !== undefined) {
    return { kind: "file", file: file["file"], attribute: file["attribute"] ?? null };
  }
  const hash = text.indexOf("#");
  if (hash >= 0 && hash < text.length - 1) {
    const [flake, attribute] = [text.slice(0, hash), text.slice(hash + 1)];
    const full = attribute.includes(".")
      ? attribute
      : `nixosConfigurations.${attribute}.config.system.build.toplevel`;
    return { kind: "flake", installable: `${flake}#${full}` };
  }
  throw new PullError(
    "USAGE",
    "expected /nix/store/…, FILE.nix, FILE.nix#ATTRIBUTE or FLAKE#ATTRIBUTE, " +
      `found ${JSON.stringify(text)}`,
  );
}

/** Reads `NAME=SOURCE`. Throws USAGE. */
export function parseHostOption(text: string): HostSpec {
  const equals = text.indexOf("=");
  const hostname = text.slice(0, Math.max(equals, 0));
  if (!hostnameSchema.safeParse(hostname).success) {
    throw new PullError("USAGE", `--host: expected NAME=SOURCE, found ${JSON.stringify(text)}`);
  }
  try {
    return { hostname, source: parseSource(text.slice(equals + 1)) };
  } catch (error) {
    if (!(error instanceof PullError)) throw error;
    throw new PullError(error.code, `--host: ${hostname}: ${error.message}`, { cause: error });
  }
}

/**
 * What may be said of a host beside its system: in a hosts file, and as options below
 * `services.nixos-pull.release` in its configuration.
 */
export const hostKeys = {
  /** `false` leaves the host out. */
  publish: z.boolean().optional(),
  activation: hostActivationSchema.optional(),
  machineId: sha256Schema.optional(),
  groups: z.array(groupSchema).max(MAX_GROUPS).optional(),
} as const;

const hostsFileSchema = z.record(
  hostnameSchema,
  z.union([z.string(), z.strictObject({ system: z.string(), ...hostKeys })], {
    error: `expected a source as text, or { ${["system", ...Object.keys(hostKeys)].join(", ")} }`,
  }),
);

/**
 * Reads a hosts file: `{ "web1": "SOURCE", "web2": { "system": "SOURCE", "activation":
 * { "mode": "boot" } } }`; gives the hosts that are not left out. Throws CONFIG_INVALID or USAGE,
 * naming the file.
 */
export function parseHostsFile(json: unknown, file: string): HostSpec[] {
  const parsed = hostsFileSchema.safeParse(json);
  if (!parsed.success) {
    throw new PullError("CONFIG_INVALID", `${file}: ${describeIssues(parsed.error, json)}`);
  }
  return Object.entries(parsed.data).flatMap(([hostname, entry]) => {
    const { system, publish, ...rest }: { system: string; publish?: boolean | undefined } =
      typeof entry === "string" ? { system: entry } : entry;
    if (publish === false) return [];
    try {
      return [{ hostname, source: parseSource(system), ...rest }];
    } catch (error) {
      if (!(error instanceof PullError)) throw error;
      throw new PullError(error.code, `${file}: ${hostname}: ${error.message}`, { cause: error });
    }
  });
}
