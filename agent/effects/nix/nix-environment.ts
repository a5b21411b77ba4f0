/** Store paths given to one call of Nix stay well below the kernel's limit (execve(2), ARG_MAX). */
export const PATHS_PER_CALL = 2_000;

/** Variables of the agent's own environment that the programs it runs may see. */
const PASSED_ON = [
  "PATH",
  "HOME",
  "XDG_CACHE_HOME",
  "NIX_REMOTE",
  "NIX_CONF_DIR",
  "LOCALE_ARCHIVE",
];

/**
 * The environment of child processes: nothing but what is named here, so that no
 * variable of whoever started the agent (`LD_PRELOAD`, `NIX_CONFIG`, …) has an effect.
 */
export function childEnvironment(
  extra: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const env: Record<string, string> = { LANG: "C.UTF-8" };
  for (const name of PASSED_ON) {
    const value = process.env[name];
    if (value !== undefined) env[name] = value;
  }
  return { ...env, ...extra };
}

/** Options of every call: the new command line, and never a substituter on the network. */
export const NIX_OPTIONS = [
  "--extra-experimental-features",
  "nix-command",
  "--option",
  "substitute",
  "false",
] as const;

/**
 * The directory in which a chroot store keeps its files (`local?root=DIR`, or a plain
 * path; Nix manual, "Local Store"), or null for stores whose paths are real.
 */
export function storeRoot(uri: string | undefined): string | null {
  if (uri === undefined) return null;
  if (uri.startsWith("/")) return uri;
  const query = /^local\?(.*)$/.exec(uri)?.[1];
  return query === undefined ? null : new URLSearchParams(query).get("root");
}
