import { PullError } from "../../core/errors.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import { parseEnvelope, type TrustPolicy } from "../../core/formats/envelope.ts";
import {
  channelSchema,
  comparePositions,
  describePosition,
  parseManifest,
  positionOf,
  readManifest,
  type Manifest,
  type Position,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import type { RootDirectory } from "../../effects/files/root-directory.ts";

/** Longest envelope that is read: that of 100,000 hosts has about 60 MB. */
const MAX_ENVELOPE_BYTES = 256 * 1024 * 1024;

/** Where they lie, below the mirror's directory. */
const RELEASES = ".publish/releases";
const DRAFTS = ".publish/drafts";

/** The name of a draft: its digest. */
const DRAFT_NAME = /^[0-9a-f]{64}\.json$/;

/** A release that a mirror retains, in force or older. */
export interface RetainedRelease {
  readonly channel: string;
  readonly position: Position;
  /** The bytes that were published. */
  readonly envelope: Buffer;
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
   * The releases of a channel, newest first, whoever signed them. Throws UNSAFE_FILE if a link or
   * something else lies where one of them belongs.
   */
  async releases(channel: string): Promise<RetainedRelease[]> {
    const directory = `${RELEASES}/${channel}`;
    const found: RetainedRelease[] = [];
    for (const { name } of await this.#mirror.listIfExists(directory)) {
      const numbers = /^(\d{1,15})-(\d{1,15})\.json$/.exec(name);
      if (!numbers) continue;
      const file = `${directory}/${name}`;
      const envelope = await this.#mirror.readFile(file, MAX_ENVELOPE_BYTES);
      const position = { epoch: Number(numbers[1]), sequence: Number(numbers[2]) };
      found.push({ channel, position, envelope, file });
    }
    return found.sort((a, b) => comparePositions(b.position, a.position));
  }

  /**
   * The releases of a channel that these keys signed, newest first. Others are left out:
   * nothing may be built upon what a revoked or replaced key signed.
   */
  async signedReleases(channel: string, trust: TrustPolicy): Promise<SignedManifest[]> {
    const found: SignedManifest[] = [];
    for (const { envelope } of await this.releases(channel)) {
      try {
        found.push(readManifest(envelope, trust));
      } catch (error) {
        if (!(error instanceof PullError)) throw error;
      }
    }
    return found;
  }

  /** All drafts, with the files that hold them. */
  async drafts(): Promise<{ manifest: Manifest; file: string }[]> {
    const found: { manifest: Manifest; file: string }[] = [];
    for (const channel of await this.#channelsIn(DRAFTS)) {
      const directory = `${DRAFTS}/${channel}`;
      for (const { name } of await this.#mirror.listIfExists(directory)) {
        if (!DRAFT_NAME.test(name)) continue;
        const file = `${directory}/${name}`;
        const envelope = await this.#mirror.readFile(file, MAX_ENVELOPE_BYTES);
        found.push({ manifest: manifestIn(envelope), file });
      }
    }
    return found;
  }

  /** Channels that have retained releases. */
  async channels(): Promise<string[]> {
    return this.#channelsIn(RELEASES);
  }

  /** Removes a release or draft, by its file. */
  async forget(file: string): Promise<void> {
    if (await this.#mirror.removeRegularFile(file)) await this.#mirror.syncParent(file);
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
  return parseManifest(Buffer.from(parseEnvelope(envelope).payload, "base64"));
}

/** The digest that names a release: sha256 of its envelope's payload. Throws ENVELOPE_INVALID. */
export function digestIn(envelope: Uint8Array): string {
  const payload = Buffer.from(parseEnvelope(envelope).payload, "base64");
  return sha256Hex(payload);
}

/** The retained release at a position. Throws PUBLISH_FAILED if there is none. */
export function findRelease(retained: readonly SignedManifest[], wanted: Position): SignedManifest {
  const found = retained.find(
    ({ manifest }) => comparePositions(positionOf(manifest), wanted) === 0,
  );
  if (found) return found;
  const known = retained.map(({ manifest }) => describePosition(positionOf(manifest)));
  throw new PullError(
    "PUBLISH_FAILED",
    `expected a retained release ${describePosition(wanted)} that these keys signed; ` +
      `there are ${known.join(", ") || "none"}`,
  );
}
