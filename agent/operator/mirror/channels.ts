import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { channelSchema } from "../../core/formats/manifest.ts";
import { ifMissing } from "../../effects/files/missing-file.ts";

/** Names of the channels in a mirror's directory, sorted. */
export async function channelsIn(directory: string): Promise<string[]> {
  const names = await ifMissing(readdir(join(directory, "channels")), []);
  return names.filter((name) => channelSchema.safeParse(name).success).sort();
}
