import { createHash } from "node:crypto";
import { endOfIndex, readIndex } from "../core/archive-index.ts";
import type { TrustPolicy } from "../core/envelope.ts";
import { PullError, toPullError, type ErrorCode } from "../core/errors.ts";
import { planRuns } from "../core/fetch-plan.ts";
import { readManifest, releaseFor, type Release, type SignedManifest } from "../core/manifest.ts";
import type { Mirror } from "../core/ports.ts";
import type { PublicKey } from "../core/signing-key.ts";
import { TAR_BLOCK } from "../core/tar-layout.ts";
import { ByteReader } from "../effects/byte-reader.ts";
import { readRun } from "../effects/staging.ts";

/** What was found out about one host's archive. */
export interface VerifiedHost {
  readonly hostname: string;
  readonly toplevel: string;
  readonly archive: string;
  readonly paths: number | null;
  /** Absent where everything is right. */
  readonly code?: ErrorCode;
  readonly message?: string;
}

export interface VerifiedMirror {
  readonly signed: SignedManifest;
  readonly expired: boolean;
  readonly hosts: readonly VerifiedHost[];
}

/**
 * Verifies a mirror as a host would, and more: the manifest's signatures and form, and
 * every byte of every archive that it names (or of one host's). Throws for the manifest;
 * what is wrong with archives is in the result. `onHost` hears of each host begun.
 */
export async function verifyMirror(
  mirror: Mirror,
  options: {
    channel: string;
    trust: TrustPolicy;
    /** Whose signatures of store paths count. */
    storeKeys: readonly PublicKey[];
    hostname?: string | undefined;
    now: Date;
    signal?: AbortSignal | undefined;
    onHost: (hostname: string) => void;
  },
): Promise<VerifiedMirror> {
  const answer = await mirror.readManifest(options.channel, { signal: options.signal });
  if (answer.kind !== "read") {
    throw new PullError("MIRROR_STATUS", `${mirror.address}: "not modified" without being asked`);
  }
  const signed = readManifest(answer.bytes, options.trust);
  if (signed.manifest.channel !== options.channel) {
    throw new PullError(
      "CHANNEL_MISMATCH",
      `expected a manifest of channel ${options.channel}, found one of ${signed.manifest.channel}`,
    );
  }
  const names =
    options.hostname === undefined ? Object.keys(signed.manifest.hosts) : [options.hostname];
  const verified = new Map<string, Omit<VerifiedHost, "hostname">>();
  const hosts: VerifiedHost[] = [];
  for (const hostname of names) {
    options.onHost(hostname);
    const release = releaseFor(signed, hostname);
    // Hosts with the same system share an archive; it is read once.
    const key = `${release.archive.sha256} ${release.toplevel}`;
    const known = verified.get(key) ?? (await verifyArchive(mirror, release, options));
    verified.set(key, known);
    hosts.push({ hostname, ...known });
  }
  return { signed, expired: Date.parse(signed.manifest.expiresAt) <= options.now.getTime(), hosts };
}

async function verifyArchive(
  mirror: Mirror,
  release: Release,
  { storeKeys, signal }: { storeKeys: readonly PublicKey[]; signal?: AbortSignal | undefined },
): Promise<Omit<VerifiedHost, "hostname">> {
  const { archive, toplevel } = release;
  const facts = { toplevel, archive: archive.sha256 };
  const hash = createHash("sha256");
  const whole = mirror.readArchive(archive.sha256, { from: 0, to: archive.size }, signal);
  const reader = new ByteReader(hashing(whole, hash));
  try {
    await reader.skip(TAR_BLOCK);
    const compressed = await reader.take(archive.index.size);
    const contents = readIndex(compressed, release, storeKeys);
    await reader.skip(endOfIndex(archive.index.size) - TAR_BLOCK - archive.index.size);
    const everything = new Map(contents.members.map(({ name }) => [name, 0]));
    for (const run of planRuns(contents, everything)) {
      await readRun(run, contents, reader.pieces(run.to - run.from), async (member, _, pieces) => {
        const narHash = createHash("sha256");
        for await (const piece of pieces) narHash.update(piece);
        const found = narHash.digest("hex");
        if (found !== member.body.sha256) {
          throw new PullError(
            "ARCHIVE_CORRUPT",
            `${member.name} (${member.body.storePath}): expected sha256 ${member.body.sha256}, found ${found}`,
          );
        }
      });
    }
    const found = hash.digest("hex");
    if (found !== archive.sha256) {
      throw new PullError(
        "ARCHIVE_CORRUPT",
        `archive: expected sha256 ${archive.sha256}, found ${found}`,
      );
    }
    return { ...facts, paths: contents.narInfos.length };
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    if (code === "INTERRUPTED") throw thrown;
    return { ...facts, paths: null, code, message };
  } finally {
    await reader.close();
  }
}

async function* hashing(
  source: AsyncIterable<Uint8Array>,
  hash: { update(data: Uint8Array): unknown },
): AsyncGenerator<Uint8Array> {
  for await (const piece of source) {
    hash.update(piece);
    yield piece;
  }
}
