import * as z from "zod";

/** The part of the agent's configuration in a system that says whom the agent takes itself for. */
const configSchema = z.object({ hostname: z.string().optional() });

/** The files of a system that say its name, as text; null for one that is not there. */
export interface NameFiles {
  /** `etc/hostname`. */
  readonly hostname: string | null;
  /** `etc/nixos-pull/config.json`. */
  readonly config: string | null;
}

/**
 * The name by which the agent of a system looks itself up in a release: that of its
 * configuration, else the system's hostname. Null if the system has none of its own (an empty
 * `networking.hostName`): the name comes from the network then.
 */
export function systemNameOf({ hostname, config }: NameFiles): string | null {
  const own = hostname?.trim() ?? "";
  return configuredName(config) ?? (own === "" ? null : own);
}

function configuredName(config: string | null): string | null {
  if (config === null) return null;
  try {
    return configSchema.safeParse(JSON.parse(config)).data?.hostname ?? null;
  } catch {
    // The agent of the system refuses it, which its own proof shows.
    return null;
  }
}
