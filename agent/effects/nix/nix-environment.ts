/** Bytes of arguments for one call: half of what the kernel takes with the usual stack (execve(2)). */
const ARGUMENT_BYTES = 1024 * 1024;

/** Bytes that an argument takes beside its own: a zero, and a pointer. */
const ARGUMENT_OVERHEAD = 9;

/** Divides paths, in their order, into what one call of a program takes as its arguments. */
export function inCalls(paths: readonly string[]): string[][] {
  const calls: string[][] = [];
  let bytes = Infinity;
  for (const path of paths) {
    const added = Buffer.byteLength(path) + ARGUMENT_OVERHEAD;
    if (bytes + added > ARGUMENT_BYTES) {
      calls.push([]);
      bytes = 0;
    }
    calls.at(-1)?.push(path);
    bytes += added;
  }
  return calls;
}

/** Variables of the agent's own environment that are passed on to child processes. */
const PASSED_ON = [
  "PATH",
  "HOME",
  "XDG_CACHE_HOME",
  "NIX_REMOTE",
  "NIX_CONF_DIR",
  "LOCALE_ARCHIVE",
];

/**
 * The environment of child processes: only what is named here. So no other variable of the agent's
 * environment (`LD_PRELOAD`, `NIX_CONFIG`, …) can change what they do.
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

/** Options of every call: allow the new command line, and never use a substituter. */
export const NIX_OPTIONS = [
  "--extra-experimental-features",
  "nix-command",
  "--option",
  "substitute",
  "false",
] as const;

/**
 * The directory in which a chroot store keeps its files (`local?root=DIR`, or a plain
 * path; Nix manual, "Local Store"), or null for a store whose paths are the real ones.
 */
export function storeRoot(uri: string | undefined): string | null {
  if (uri === undefined) return null;
  if (uri.startsWith("/")) return uri;
  const query = /^local\?(.*)$/.exec(uri)?.[1];
  return query === undefined ? null : new URLSearchParams(query).get("root");
}
