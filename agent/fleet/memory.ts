import * as z from "zod";
import { PullError } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { parsePublicKey } from "../core/formats/signing-key.ts";
import { readChecked, writeChecked } from "../effects/files/checked-file.ts";

/** What `fleet` remembers from one run to the next. */
const memorySchema = z.strictObject({
  /** A later version's memory is read as far as it is known. */
  formatVersion: z.int().positive(),
  hosts: z.record(
    hostnameSchema,
    z.strictObject({
      /** When its newest report was made. An older report is a replay. */
      at: z.iso.datetime().nullable(),
      /** The key that was pinned with its first report, `NAME:BASE64`. */
      key: z
        .string()
        .refine((text) => isKey(text), { error: "expected a public key" })
        .optional(),
    }),
  ),
});
export type FleetMemory = z.infer<typeof memorySchema>;

export const EMPTY_MEMORY: FleetMemory = { formatVersion: 1, hosts: {} };

/**
 * Reads the memory file. If there is none, the memory is empty. Throws STATE_CORRUPT if it is
 * damaged: to continue without it would pin whatever key comes next.
 */
export async function readFleetMemory(path: string): Promise<FleetMemory> {
  const found = await readChecked(path, memorySchema);
  if (found.kind === "damaged") {
    throw new PullError(
      "STATE_CORRUPT",
      `expected the memory of a fleet: ${found.why}; restore it from a backup, or remove it to pin all keys again`,
    );
  }
  return found.kind === "read" ? found.value : EMPTY_MEMORY;
}

/** Writes the memory file durably. */
export async function writeFleetMemory(path: string, memory: FleetMemory): Promise<void> {
  await writeChecked(path, memory);
}

function isKey(text: string): boolean {
  try {
    parsePublicKey(text);
    return true;
  } catch {
    return false;
  }
}
