import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { PullError, toPullError, type ErrorCode } from "../../core/errors.ts";
import {
  entryOf,
  releaseFor,
  systemsOf,
  type ReleasedSystem,
  type SignedManifest,
  type SupportedRelease,
} from "../../core/formats/manifest.ts";
import type { PublicKey } from "../../core/formats/signing-key.ts";
import {
  EMPTY_STICK_CONTENTS,
  packedHosts,
  type StickContents,
} from "../../core/formats/stick-contents.ts";
import type { Mirror } from "../../core/ports.ts";
import { readChannel } from "../../core/release/read-channel.ts";
import { ArchiveVerifier, mergeElsewhere, type VerifiedArchive } from "./archive-verifier.ts";
import { readNamed } from "./supported-releases.ts";
import { patchArchivesOf } from "./patch-archive.ts";

/** What was found out about one system of a host. */
export interface VerifiedHost {
  readonly hostname: string;
  readonly toplevel: string;
  /** The archive's sha256. */
  readonly archive: string;
  /** Store paths of the closure; null if they were not all verified. */
  readonly paths: number | null;
  /** True if the stick was filled without this host. */
  readonly leftOut?: boolean;
  /** NARs that the host has to have already, if the stick was filled for what it has. */
  readonly missing?: number;
  /** Absent if everything is right. */
  readonly code?: ErrorCode;
  readonly message?: string;
}

/** What was found out about a channel of a mirror. */
export interface VerifiedMirror {
  readonly signed: SignedManifest;
  readonly expired: boolean;
  readonly hosts: readonly VerifiedHost[];
  /** The older releases that it names for agents that lack what it requires. */
  readonly older: readonly VerifiedOlder[];
}

/** What was found out about an older release that is still supported. */
export interface VerifiedOlder {
  readonly epoch: number;
  readonly sequence: number;
  readonly digest: string;
  readonly until: string;
  readonly hosts: readonly VerifiedHost[];
  /** Absent if the release itself is there and the right one. */
  readonly code?: ErrorCode;
  readonly message?: string;
}

export interface VerifyOptions {
  readonly channel: string;
  readonly trust: TrustPolicy;
  /** Whose signatures of store paths count. */
  readonly storeKeys: readonly PublicKey[];
  /** Verify this host's archives only. It has to be there. */
  readonly hostname?: string | undefined;
  /** What the stick was filled with; everything if absent. */
  readonly contents?: StickContents | undefined;
  readonly now: Date;
  readonly signal?: AbortSignal | undefined;
  /** Hears of each host, and each shared archive, before it is verified. */
  readonly onHost: (hostname: string) => void;
}

/** A system of a host, with what its own archive showed. */
interface CheckedSystem {
  readonly hostname: string;
  readonly system: ReleasedSystem;
  readonly own: VerifiedArchive;
}

/**
 * Verifies a mirror as a host would, and more: the manifest's signatures and form, and every byte
 * of every archive that it names, or of one host's. So are the older releases that it names for
 * agents that lack what it requires, as long as they are supported. Throws what is wrong with the manifest. What
 * is wrong with archives is in the result.
 */
export async function verifyMirror(
  mirror: Mirror,
  options: VerifyOptions,
): Promise<VerifiedMirror> {
  const { signed } = await readChannel(mirror, options.channel, options.trust, options.signal);
  const verifier = new ArchiveVerifier(mirror, options);
  const hosts = await verifyRelease(signed, verifier, options);
  const now = options.now.getTime();
  const older: VerifiedOlder[] = [];
  for (const named of signed.manifest.supported ?? []) {
    if (Date.parse(named.until) <= now) continue;
    older.push(await verifyOlder(mirror, signed, named, { verifier, options }));
  }
  return { signed, expired: Date.parse(signed.manifest.expiresAt) <= now, hosts, older };
}

/** Verifies an older release as a host on its way out reads it. */
async function verifyOlder(
  mirror: Mirror,
  { manifest: { channel }, signedBy }: SignedManifest,
  named: SupportedRelease,
  { verifier, options }: { verifier: ArchiveVerifier; options: VerifyOptions },
): Promise<VerifiedOlder> {
  const { epoch = 0, sequence, digest, until } = named;
  const found = { epoch, sequence, digest, until };
  let signed: SignedManifest;
  try {
    const envelope = await mirror.readRelease(channel, digest, options.signal);
    signed = { ...readNamed(envelope, named), signedBy };
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    if (code === "INTERRUPTED") throw thrown;
    return { ...found, hosts: [], code, message };
  }
  const { hostname } = options;
  const isNamed = hostname === undefined || Object.hasOwn(signed.manifest.hosts, hostname);
  return { ...found, hosts: isNamed ? await verifyRelease(signed, verifier, options) : [] };
}

/** Verifies the archives of a release's hosts, or of one host. */
async function verifyRelease(
  signed: SignedManifest,
  verifier: ArchiveVerifier,
  options: VerifyOptions,
): Promise<VerifiedHost[]> {
  const packed = packedHosts(options.contents ?? EMPTY_STICK_CONTENTS, signed.digest);
  const names =
    options.hostname === undefined ? Object.keys(signed.manifest.hosts) : [options.hostname];
  /** In the order of the manifest. Hosts with several systems have one result for each. */
  const results = new Map<string, VerifiedHost[]>();
  const checked: CheckedSystem[] = [];
  for (const hostname of names) {
    const release = releaseFor(signed, hostname);
    results.set(hostname, []);
    if (options.hostname === undefined && packed?.has(hostname) === false) {
      const { toplevel, archive } = release;
      const nothing = { paths: null, leftOut: true };
      results.set(hostname, [{ hostname, toplevel, archive: archive.sha256, ...nothing }]);
      continue;
    }
    options.onHost(hostname);
    const entry = entryOf(signed.manifest, hostname);
    for (const system of entry ? systemsOf(entry) : [release]) {
      checked.push({ hostname, system, own: await verifier.verifySystem(system) });
    }
  }
  const faults = await sharedFaults(verifier, checked, options.onHost);
  const members = new Map<string, number>();
  for (const { hostname, own } of checked) {
    members.set(hostname, (members.get(hostname) ?? 0) + own.members);
  }
  for (const one of checked) {
    results.get(one.hostname)?.push(
      resultOf(one, {
        faults,
        expected: packed?.get(one.hostname)?.members ?? null,
        found: members.get(one.hostname) ?? 0,
      }),
    );
  }
  return [...results.values()].flat();
}

/** Verifies what systems have in other archives, and index patches; gives faults by sha256. */
async function sharedFaults(
  verifier: ArchiveVerifier,
  checked: readonly CheckedSystem[],
  onArchive: (name: string) => void,
): Promise<Map<string, PullError>> {
  const faults = new Map<string, PullError>();
  const note = (sha256: string, fault: PullError | null): void => {
    if (fault) faults.set(sha256, fault);
  };
  for (const shared of mergeElsewhere(checked.flatMap(({ own }) => own.elsewhere))) {
    const { sha256 } = shared.archive;
    onArchive(`archive ${sha256.slice(0, 12)}…`);
    note(sha256, await verifier.verifyShared(shared));
  }
  for (const sha256 of patchArchivesOf(checked.map(({ system }) => system))) {
    onArchive(`index patches ${sha256.slice(0, 12)}…`);
    note(sha256, await verifier.verifyPatches(sha256));
  }
  return faults;
}

/** What was found out beside a system's own archive. */
interface SharedFindings {
  /** By the archive's sha256. */
  readonly faults: ReadonlyMap<string, PullError>;
  /** NARs and deltas that were packed for the host; null for everything. */
  readonly expected: number | null;
  /** NARs and deltas of all the host's systems that are here. */
  readonly found: number;
}

/** What all archives of a system came to: its own, those that it shares, and what is missing. */
function resultOf(
  { hostname, system, own }: CheckedSystem,
  { faults, expected, found }: SharedFindings,
): VerifiedHost {
  const { elsewhere, missing } = own;
  const named = [...elsewhere.map(({ archive }) => archive.sha256), ...patchArchivesOf([system])];
  const bad = named.find((sha256) => faults.has(sha256));
  const fault =
    own.fault ??
    (bad === undefined ? undefined : faults.get(bad)) ??
    lossOf(expected, found, missing);
  return {
    ...{ hostname, toplevel: system.toplevel, archive: system.archive.sha256 },
    paths: fault ? null : own.paths,
    ...(missing > 0 && { missing }),
    ...(fault && { code: fault.code, message: fault.message }),
  };
}

/** What is wrong if less is there than was packed; `expected` is null for everything. */
function lossOf(expected: number | null, found: number, missing: number): PullError | undefined {
  if (expected === null ? missing === 0 : found >= expected) return undefined;
  return new PullError(
    "ARCHIVE_PARTIAL",
    expected === null
      ? `${missing} NARs of its closure are not here, and nothing says that they were left out`
      : `expected ${expected} NARs and deltas, which were packed for it, found ${found}`,
  );
}
