import type { Plugin } from "esbuild";

/** Builds the bundle; gives its path. Tests build other versions of it, with esbuild's plugins. */
export function buildAgent(
  outfile?: string,
  options?: { readonly version?: string; readonly plugins?: readonly Plugin[] },
): Promise<string>;
