import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import * as z from "zod";
import { isNotFound, writeDurably } from "./durable-file.ts";

/** What reading a file that carries its own checksum came to. */
export type CheckedRead<T> =
  | { readonly kind: "read"; readonly value: T }
  | { readonly kind: "missing" }
  /** It is there, but torn, altered or of another form. */
  | { readonly kind: "damaged"; readonly why: string };

const wrapperSchema = z.strictObject({ sha256: z.string(), value: z.unknown() });

function checksum(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex");
}

/** Writes JSON with its checksum, durably. */
export async function writeChecked(path: string, value: unknown): Promise<void> {
  const text = JSON.stringify({ sha256: checksum(value), value }, null, 2);
  await writeDurably(path, `${text}\n`);
}

/**
 * The same for who does not hold the update lock, such as a person's word that has to be
 * heard in the middle of an update. Whoever takes the lock removes unfinished files, which
 * happens once and not twice in a row.
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
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (isNotFound(error)) return { kind: "missing" };
    throw error;
  }
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
    : { kind: "damaged", why: `${path} is not of the form this version knows` };
}
