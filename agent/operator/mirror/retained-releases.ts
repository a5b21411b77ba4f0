import { PullError } from "../../core/errors.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import { unverifiedPayload, type TrustPolicy } from "../../core/formats/envelope.ts";
import {
  channelSchema,
  comparePositions,
  describePosition,
  positionOf,
  readManifest,
  type Manifest,
  type Position,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import { parseUnverified } from "../../core/formats/manifest-reader.ts";
import type { RootDirectory } from "../../effects/files/root-directory.ts";

/**
 * Longest envelope of a release or draft that is read. Hosts read 32 MiB unless
 * `limits.manifestBytes` says more, which the greatest fleets need: 100,000 hosts take 60 MB.
 */
export const MAX_MANIFEST_BYTES = 64 * 1024 * 1024;

/** Where they lie, below the mirror's directory. */
export const RELEASES = ".publish/releases";
export const DRAFTS = ".publish/drafts";

/** The name of a draft: its digest. */
const DRAFT_NAME = /^[0-9a-f]{64}\.json$/;

/** A release that a mirror retains, in force or older. */
export interface RetainedRelease {
  readonly channel: string;
  readonly position: Position;
  /** Where the envelope is kept, below the mirror's directory. */
  readonly file: string;
}

/**
 * The releases of a mirror that were published and not pruned yet, and drafts that may still
 * come into force. Each is kept as its envelope, below the mirror's `.publish`, which hosts
 * never read. They tell the publisher which archives are still needed, and which store paths
 * these archives have.
 */
export class RetainedReleases {
  readonly #mirror: RootDirectory;

  /** Those of a mirror's directory. */
  constructor(mirror: RootDirectory) {
    this.#mirror = mirror;
  }

  /** Keeps a release. Call it before the release comes into force. */
  async keep(manifest: Manifest, envelope: string | Uint8Array): Promise<void> {
    const { epoch, sequence } = positionOf(manifest);
    await this.#write(`${RELEASES}/${manifest.channel}`, `${epoch}-${sequence}.json`, envelope);
  }

  /** Keeps a draft under its digest, since several drafts may have the same sequence. */
  async keepDraft(manifest: Manifest, digest: string, envelope: string): Promise<void> {
    await this.#write(`${DRAFTS}/${manifest.channel}`, `${digest}.json`, envelope);
  }

  /**
   * The releases of a channel, newest first, by their files' names. What these hold is read one by
   * one (`read`): many long files must not be in memory at once. A file that is too long is none of
   * them. Throws UNSAFE_FILE if a link or something else lies where one of them belongs.
   */
  async releases(channel: string): Promise<RetainedRelease[]> {
    const directory = `${RELEASES}/${channel}`;
    const found: RetainedRelease[] = [];
    for (const { name } of await this.#mirror.listIfExists(directory)) {
      const numbers = /^(\d{1,15})-(\d{1,15})\.json$/.exec(name);
      if (!numbers) continue;
      const file = `${directory}/${name}`;
      if (await this.#isTooLong(file)) continue;
      const position = { epoch: Number(numbers[1]), sequence: Number(numbers[2]) };
      found.push({ channel, position, file });
    }
    return found.sort((a, b) => comparePositions(b.position, a.position));
  }

  /**
   * The envelope of a release or draft, as it was published, whoever signed it. Throws UNSAFE_FILE
   * if a link, something else or a longer file lies there.
   */
  async read(file: string): Promise<Buffer> {
    return this.#mirror.readFile(file, MAX_MANIFEST_BYTES);
  }

  /**
   * The releases of a channel that these keys signed, newest first. Others are left out:
   * nothing may be built upon what a revoked or replaced key signed.
   */
  async signedReleases(channel: string, trust: TrustPolicy): Promise<SignedManifest[]> {
    const found: SignedManifest[] = [];
    for (const { file } of await this.releases(channel)) {
      const envelope = await this.read(file);
      try {
        found.push(readManifest(envelope, trust));
      } catch (error) {
        if (!(error instanceof PullError)) throw error;
      }
    }
    return found;
  }

  /** All drafts, one after the other: the bytes of their manifests, not verified, and their files. */
  async *drafts(): AsyncGenerator<{ payload: Buffer; file: string }> {
    for (const channel of await this.#channelsIn(DRAFTS)) {
      const directory = `${DRAFTS}/${channel}`;
      for (const { name } of await this.#mirror.listIfExists(directory)) {
        if (!DRAFT_NAME.test(name)) continue;
        const file = `${directory}/${name}`;
        if (await this.#isTooLong(file)) continue;
        yield { payload: unverifiedPayload(await this.read(file)).payload, file };
      }
    }
  }

  /** Channels that have retained releases. */
  async channels(): Promise<string[]> {
    return this.#channelsIn(RELEASES);
  }

  /** Removes a release or draft, by its file. */
  async forget(file: string): Promise<void> {
    if (await this.#mirror.removeRegularFile(file)) await this.#mirror.syncParent(file);
  }

  /** Whether it cannot be a release of ours. Throws UNSAFE_FILE for what is no regular file. */
  async #isTooLong(file: string): Promise<boolean> {
    const found = await this.#mirror.statFile(file);
    return found !== null && found.size > MAX_MANIFEST_BYTES;
  }

  async #channelsIn(directory: string): Promise<string[]> {
    const names = (await this.#mirror.listIfExists(directory)).map(({ name }) => name);
    return names.filter((name) => channelSchema.safeParse(name).success);
  }

  async #write(directory: string, name: string, text: string | Uint8Array): Promise<void> {
    await this.#mirror.makeDirectory(directory);
    await this.#mirror.writeFile(`${directory}/${name}`, text);
  }
}

/** The manifest in an envelope, whoever signed it. Throws ENVELOPE_INVALID, MANIFEST_INVALID. */
export function manifestIn(envelope: Uint8Array): Manifest {
  return parseUnverified(unverifiedPayload(envelope).payload);
}

/** The digest that names a release: sha256 of its envelope's payload. Throws ENVELOPE_INVALID. */
export function digestIn(envelope: Uint8Array): string {
  return sha256Hex(unverifiedPayload(envelope).payload);
}

/** The same, or null if it is no envelope. */
export function digestOrNull(envelope: Uint8Array): string | null {
  try {
    return digestIn(envelope);
  } catch (error) {
    if (error instanceof PullError) return null;
    throw error;
  }
}

/** The retained release at a position, which `option` named. Throws PUBLISH_FAILED if there is none. */
export function findRelease(
  retained: readonly SignedManifest[],
  wanted: Position,
  option: string,
): SignedManifest {
  const found = retained.find(
    ({ manifest }) => comparePositions(positionOf(manifest), wanted) === 0,
  );
  if (found) return found;
  const known = retained.map(({ manifest }) => positionOf(manifest));
  throw new PullError(
    "PUBLISH_FAILED",
    `${option}: expected a release that is retained here and that these keys signed, found ` +
      `${describePosition(wanted)}; ${describeRetained(known)}`,
  );
}

/** More are only counted. */
const MAX_NAMED = 10;

/** Which releases there are, newest first, for a person who named another one. */
export function describeRetained(positions: readonly Position[]): string {
  const [first] = positions;
  if (!first) return "no release is retained";
  if (positions.length === 1) return `only release ${describePosition(first)} is retained`;
  const more = positions.length - MAX_NAMED;
  const names = positions.slice(0, MAX_NAMED).map(describePosition).join(", ");
  return `these are retained: ${names}${more > 0 ? ` and ${more} older ones` : ""}`;
}
