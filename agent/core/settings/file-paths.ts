import * as z from "zod";

/**
 * An absolute path that can also stand in a `file://` store URI, where Nix reads `?`,
 * `#` and `%` as syntax (Nix manual, "Store URL format").
 */
export const directorySchema = z
  .string()
  .regex(/^\/[^?#%\s]*$/, "expected an absolute path without white space, ?, # or %");

/** An absolute path. */
export const filePathSchema = z.string().regex(/^\/./, "expected an absolute path");
