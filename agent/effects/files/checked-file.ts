import { join } from "node:path";
import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import { withUnknownKeys } from "../../core/formats/compatibility.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import type { CheckedFiles } from "../../core/ports.ts";
import { setAside, writeDurably } from "./durable-file.ts";
import { hasErrorCode, isNotFound, isUnreadable } from "./missing-file.ts";
import { readRegularFile } from "./regular-file.ts";

/** The result of reading a file that has its own checksum. */
export type CheckedRead<T> =
  | { readonly kind: "read"; readonly value: T }
  | { readonly kind: "missing" }
  /** It exists, but is torn, was changed, or has another form. */
  | { readonly kind: "damaged"; readonly why: string };

const wrapperSchema = z.strictObject({ sha256: z.string(), value: z.unknown() });

function checksum(value: unknown): string {
  return sha256Hex(JSON.stringify(value));
}

/** A longer file was not written by an agent. The longest holds the manifest of each mirror. */
const MAX_BYTES = 256 * 1024 * 1024;

/**
 * Writes JSON with its checksum, durably. A directory in its place is renamed, and left. Throws
 * the operating system's errors.
 */
export async function writeChecked(path: string, value: unknown): Promise<void> {
  const text = `${JSON.stringify({ sha256: checksum(value), value }, null, 2)}\n`;
  try {
    await writeDurably(path, text);
  } catch (error) {
    if (!hasErrorCode(error, "EISDIR")) throw error;
    await setAside(path);
    await writeDurably(path, text);
  }
}

/**
 * The same without holding the update lock, such as for an operator's command in the middle of an
 * update. A process that takes the lock removes unfinished files, this one's too. It does so once,
 * so the second attempt succeeds.
 */
export async function writeCheckedUnlocked(path: string, value: unknown): Promise<void> {
  try {
    await writeChecked(path, value);
  } catch (error) {
    if (!isNotFound(error)) throw error;
    await writeChecked(path, value);
  }
}

/**
 * Reads what `writeChecked` wrote. What is in its place and cannot be read is as damaged as what
 * has a wrong checksum: a bad sector, a directory, a FIFO, a file that is far too long. Throws
 * the operating system's other errors, such as a missing permission.
 */
export async function readChecked<T>(path: string, schema: z.ZodType<T>): Promise<CheckedRead<T>> {
  const options = { code: "STATE_CORRUPT", followLink: true, maxBytes: MAX_BYTES } as const;
  let text: string;
  try {
    text = (await readRegularFile(path, options)).toString();
  } catch (error) {
    if (isNotFound(error)) return { kind: "missing" };
    if (error instanceof PullError) return { kind: "damaged", why: error.message };
    if (!isUnreadable(error)) throw error;
    return { kind: "damaged", why: `${path} cannot be read: ${(error as Error).message}` };
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return { kind: "damaged", why: `${path} is not JSON (${text.length} characters)` };
  }
  try {
    return checkedIn(path, json, schema);
  } catch (error) {
    // Whatever is nested so deeply was not written by any version.
    if (!(error instanceof RangeError)) throw error;
    return { kind: "damaged", why: `${path} is nested too deeply` };
  }
}

function checkedIn<T>(path: string, json: unknown, schema: z.ZodType<T>): CheckedRead<T> {
  const wrapper = wrapperSchema.safeParse(json);
  if (!wrapper.success) return { kind: "damaged", why: `${path} has no checksum` };
  if (checksum(wrapper.data.value) !== wrapper.data.sha256) {
    return { kind: "damaged", why: `${path} does not have its checksum` };
  }
  const value = withUnknownKeys(schema, "kept").safeParse(wrapper.data.value);
  return value.success
    ? { kind: "read", value: value.data }
    : { kind: "damaged", why: `${path} does not have the form that this version knows` };
}

/** The checked files of a directory. Throws only the operating system's errors. */
export function checkedFilesIn(directory: string): CheckedFiles {
  return {
    async read(name, schema) {
      const read = await readChecked(join(directory, name), schema);
      return read.kind === "read" ? read.value : null;
    },
    write: (name, value) => writeChecked(join(directory, name), value),
  };
}
