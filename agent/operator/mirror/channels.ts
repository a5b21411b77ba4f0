import { PullError } from "../../core/errors.ts";
import { channelSchema } from "../../core/formats/manifest.ts";
import type { RootDirectory } from "../../effects/files/root-directory.ts";

/** Names of the channels in a mirror's directory, sorted. Throws UNSAFE_FILE. */
export async function channelsIn(mirror: RootDirectory): Promise<string[]> {
  const names = (await mirror.listIfExists("channels")).map(({ name }) => name);
  return names.filter((name) => channelSchema.safeParse(name).success).sort();
}

/**
 * Throws `code` if no mirror is there, or none with this channel, naming those that it has; and
 * UNSAFE_FILE. Makes nothing.
 */
export async function expectChannel(
  mirror: RootDirectory,
  channel: string,
  code: "USAGE" | "PUBLISH_FAILED" = "USAGE",
): Promise<void> {
  const channels = await channelsIn(mirror);
  if (channels.includes(channel)) return;
  throw new PullError(
    code,
    channels.length === 0
      ? `expected a mirror's directory, found no release in ${mirror.path}`
      : `expected a release of channel ${channel} in ${mirror.path}, found only ${channels.join(", ")}`,
  );
}
