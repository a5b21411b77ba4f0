import { lackedOf } from "../../core/formats/compatibility.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import type { Report } from "../../core/formats/report.ts";
import type { SignedManifest } from "../../core/formats/manifest.ts";
import {
  EMPTY_STICK_CONTENTS,
  packedHosts,
  type StickContents,
} from "../../core/formats/stick-contents.ts";
import { readChannel } from "../../core/release/read-channel.ts";
import { RootDirectory } from "../../effects/files/root-directory.ts";
import { readStickContents } from "../../effects/report/stick-contents-file.ts";
import { channelsIn } from "./channels.ts";
import type { CopyOptions } from "./copy-options.ts";
import { readNamed } from "./supported-releases.ts";

/** One channel's release that is copied, and the hosts for which it is. */
export interface ChosenRelease {
  readonly channel: string;
  readonly envelope: Uint8Array;
  readonly signed: SignedManifest;
  /** Null for all that the release names. */
  readonly hosts: readonly string[] | null;
  /** The older releases that it names for agents that lack what it requires. */
  readonly older: readonly Omit<ChosenRelease, "older">[];
}

/** What settles which releases are copied, and for which hosts. */
export type ChoiceOptions = Pick<
  CopyOptions,
  "source" | "sourceDirectory" | "channels" | "hosts" | "reports" | "trust" | "clock"
> &
  Pick<CopyOptions, "signal" | "onWarning">;

/** What is copied, and the hosts that asked for something and get nothing. */
export interface ChosenReleases {
  readonly releases: readonly ChosenRelease[];
  /** Hosts that reported, but that no release of their channel names. */
  readonly strangers: readonly string[];
}

/**
 * Reads and verifies the manifests of a mirror's channels, and settles for which hosts each is
 * copied. Throws the MIRROR_ errors, the trust errors, and HOST_NOT_IN_RELEASE if an operator
 * named a host that no release names.
 */
export async function chooseReleases(options: ChoiceOptions): Promise<ChosenReleases> {
  const { source, sourceDirectory, reports, trust, signal } = options;
  const channels = await channelsToCopy(options);
  // Reading a channel tells why there is none.
  if (channels.length === 0) await source.readManifest("stable", { signal });
  const contents =
    sourceDirectory === null
      ? EMPTY_STICK_CONTENTS
      : await readStickContents(new RootDirectory(sourceDirectory));
  const releases: ChosenRelease[] = [];
  for (const channel of channels) {
    const { envelope, signed } = await readChannel(source, channel, trust, signal);
    const hosts = chooseHosts(signed, contents, options);
    if (hosts?.length === 0 && options.channels === null) continue;
    const older = await olderReleases(signed, contents, options);
    releases.push({ channel, envelope, signed, hosts, older });
  }
  const unknown = (options.hosts ?? []).filter(
    (hostname) => !releases.some(({ signed }) => hasHost(signed, hostname)),
  );
  if (unknown.length > 0) {
    throw new PullError(
      "HOST_NOT_IN_RELEASE",
      `no release of ${channels.join(", ")} names ${unknown.join(", ")}`,
    );
  }
  const isStranger = ({ hostname, channel }: Report): boolean =>
    !releases.some((one) => one.channel === channel && hasHost(one.signed, hostname));
  return { releases, strangers: reports.filter(isStranger).map(({ hostname }) => hostname) };
}

/** The older releases that are copied beside one, for hosts whose agents may lack a feature. */
async function olderReleases(
  { manifest, signedBy }: SignedManifest,
  contents: StickContents,
  options: ChoiceOptions,
): Promise<ChosenRelease["older"]> {
  const { source, reports, clock, signal, onWarning } = options;
  const { channel, requires, supported = [] } = manifest;
  const found: Omit<ChosenRelease, "older">[] = [];
  const understands = (hostname: string): boolean => {
    const own = reports.filter((it) => it.channel === channel && it.hostname === hostname);
    return own.some(({ features = [] }) => lackedOf(requires, features).length === 0);
  };
  for (const named of supported) {
    if (Date.parse(named.until) <= clock.now().getTime()) continue;
    try {
      const envelope = await source.readRelease(channel, named.digest, signal);
      const signed = { ...readNamed(envelope, named), signedBy };
      const hosts = chooseHosts(signed, contents, options);
      const lacking = hosts?.filter((hostname) => !understands(hostname)) ?? null;
      if (lacking?.length !== 0) found.push({ channel, envelope, signed, hosts: lacking });
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      if (code === "INTERRUPTED") throw thrown;
      onWarning(
        `release ${named.sequence}, which release ${manifest.sequence} of ${channel} names for ` +
          `older agents, is not copied: ${code}: ${message}`,
      );
    }
  }
  return found;
}

/** The channels that were named, else those of the reports, else all that the source lists. */
async function channelsToCopy({
  channels,
  hosts,
  reports,
  sourceDirectory,
}: ChoiceOptions): Promise<readonly string[]> {
  if (channels !== null) return channels;
  if (reports.length > 0 && hosts === null) {
    return [...new Set(reports.map(({ channel }) => channel))].sort();
  }
  return sourceDirectory === null ? ["stable"] : channelsIn(new RootDirectory(sourceDirectory));
}

function hasHost({ manifest }: SignedManifest, hostname: string): boolean {
  return Object.hasOwn(manifest.hosts, hostname);
}

/** The hosts of a channel for which archives are copied; null for all. */
function chooseHosts(
  signed: SignedManifest,
  contents: StickContents,
  { hosts, reports }: ChoiceOptions,
): string[] | null {
  const packed = packedHosts(contents, signed.digest);
  if (hosts === null && reports.length === 0) {
    return packed && [...packed.keys()].filter((hostname) => hasHost(signed, hostname));
  }
  const reported = reports.filter(({ channel }) => channel === signed.manifest.channel);
  const names = new Set([...(hosts ?? []), ...reported.map(({ hostname }) => hostname)]);
  return [...names].filter((hostname) => hasHost(signed, hostname)).sort();
}
