import { join } from "node:path";
import * as z from "zod";
import { sha256Hex } from "../../core/formats/sha256.ts";
import type { CheckedFiles } from "../../core/ports.ts";
import { writeDurably } from "./durable-file.ts";
import { isNotFound, readIfExists } from "./missing-file.ts";

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

/** Writes JSON with its checksum, durably. Throws the operating system's errors. */
export async function writeChecked(path: string, value: unknown): Promise<void> {
  const text = JSON.stringify({ sha256: checksum(value), value }, null, 2);
  await writeDurably(path, `${text}\n`);
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

/** Reads what `writeChecked` wrote. Throws only the operating system's errors. */
export async function readChecked<T>(path: string, schema: z.ZodType<T>): Promise<CheckedRead<T>> {
  const text = await readIfExists(path);
  if (text === null) return { kind: "missing" };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return { kind: "damaged", why: `${path} is not JSON (${text.length} characters)` };
  }
  const wrapper = wrapperSchema.safeParse(json);
  if (!wrapper.success) return { kind: "damaged", why: `${path} has no checksum` };
  if (checksum(wrapper.data.value) !== wrapper.data.sha256) {
    return { kind: "damaged", why: `${path} does not have its checksum` };
  }
  const value = schema.safeParse(wrapper.data.value);
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
