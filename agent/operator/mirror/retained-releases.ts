import { mkdir, readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
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
import { removeDurably, writeDurably } from "../../effects/files/durable-file.ts";
import { ifMissing } from "../../effects/files/missing-file.ts";

/** A release that a mirror retains, in force or older. */
export interface RetainedRelease {
  readonly channel: string;
  readonly position: Position;
  /** The bytes that were published. */
  readonly envelope: Buffer;
  /** Where the envelope is kept. */
  readonly file: string;
}

/**
 * The releases of a mirror that were published and not pruned yet, and drafts that may still
 * come into force. Each is kept as its envelope, below the mirror's `.publish`, which hosts
 * never read. They tell the publisher which archives are still needed, and which store paths
 * these archives have.
 */
export class RetainedReleases {
  readonly #directory: string;

  /** `directory` is the mirror's `.publish`. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Keeps a release. Call it before the release comes into force. */
  async keep(manifest: Manifest, envelope: string | Uint8Array): Promise<void> {
    const { epoch, sequence } = positionOf(manifest);
    await this.#write("releases", manifest.channel, `${epoch}-${sequence}.json`, envelope);
  }

  /** Keeps a draft under its digest, since several drafts may have the same sequence. */
  async keepDraft(manifest: Manifest, digest: string, envelope: string): Promise<void> {
    await this.#write("drafts", manifest.channel, `${digest}.json`, envelope);
  }

  /** The releases of a channel, newest first, whoever signed them. */
  async releases(channel: string): Promise<RetainedRelease[]> {
    const directory = join(this.#directory, "releases", channel);
    const found: RetainedRelease[] = [];
    for (const name of await list(directory)) {
      const numbers = /^(\d{1,15})-(\d{1,15})\.json$/.exec(name);
      if (!numbers) continue;
      const file = join(directory, name);
      const position = { epoch: Number(numbers[1]), sequence: Number(numbers[2]) };
      found.push({ channel, position, envelope: await readFile(file), file });
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
    for (const channel of await list(join(this.#directory, "drafts"))) {
      const directory = join(this.#directory, "drafts", channel);
      for (const name of await list(directory)) {
        if (!name.endsWith(".json")) continue;
        const file = join(directory, name);
        found.push({ manifest: manifestIn(await readFile(file)), file });
      }
    }
    return found;
  }

  /** Channels that have retained releases. */
  async channels(): Promise<string[]> {
    const names = await list(join(this.#directory, "releases"));
    return names.filter((name) => channelSchema.safeParse(name).success);
  }

  /** Removes a release or draft, by its file. */
  async forget(file: string): Promise<void> {
    await removeDurably(file);
  }

  async #write(
    kind: string,
    channel: string,
    name: string,
    text: string | Uint8Array,
  ): Promise<void> {
    const directory = join(this.#directory, kind, channel);
    await mkdir(directory, { recursive: true });
    await writeDurably(join(directory, name), text, 0o644);
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

async function list(directory: string): Promise<string[]> {
  return (await ifMissing(readdir(directory), [])).sort();
}
