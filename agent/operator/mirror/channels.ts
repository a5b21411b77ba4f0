import { channelSchema } from "../../core/formats/manifest.ts";
import type { RootDirectory } from "../../effects/files/root-directory.ts";

/** Names of the channels in a mirror's directory, sorted. Throws UNSAFE_FILE. */
export async function channelsIn(mirror: RootDirectory): Promise<string[]> {
  const names = (await mirror.listIfExists("channels")).map(({ name }) => name);
  return names.filter((name) => channelSchema.safeParse(name).success).sort();
}
