import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { parseEnvelope } from "../../core/formats/envelope.ts";
import {
  channelSchema,
  comparePositions,
  parseManifest,
  positionOf,
  type Manifest,
  type Position,
} from "../../core/formats/manifest.ts";
import { isNotFound, syncDirectory, writeDurably } from "../../effects/files/durable-file.ts";

/** A release that the publisher still knows. */
export interface ShelvedRelease {
  readonly channel: string;
  readonly position: Position;
  /** What was published: the envelope's bytes. */
  readonly envelope: Buffer;
  readonly file: string;
}

/**
 * The releases of a mirror that were published and not pruned yet, and drafts that may
 * still come into force, each as its envelope. Hosts never read them: they tell the
 * publisher which archives are needed, and which paths they have.
 */
export class ReleaseShelf {
  readonly #directory: string;

  /** `directory` is the mirror's `.publish`. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Keeps a release, before it comes into force. */
  async keep(manifest: Manifest, envelope: string | Uint8Array): Promise<void> {
    const { epoch, sequence } = positionOf(manifest);
    await this.#write("releases", manifest.channel, `${epoch}-${sequence}.json`, envelope);
  }

  /** Keeps a draft, by its digest: several may be under way for the same number. */
  async keepDraft(manifest: Manifest, digest: string, envelope: string): Promise<void> {
    await this.#write("drafts", manifest.channel, `${digest}.json`, envelope);
  }

  /** The releases of a channel, newest first. */
  async releases(channel: string): Promise<ShelvedRelease[]> {
    const directory = join(this.#directory, "releases", channel);
    const found: ShelvedRelease[] = [];
    for (const name of await list(directory)) {
      const numbers = /^(\d{1,15})-(\d{1,15})\.json$/.exec(name);
      if (!numbers) continue;
      const file = join(directory, name);
      const position = { epoch: Number(numbers[1]), sequence: Number(numbers[2]) };
      found.push({ channel, position, envelope: await readFile(file), file });
    }
    return found.sort((a, b) => comparePositions(b.position, a.position));
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

  /** Channels of which releases are kept. */
  async channels(): Promise<string[]> {
    const names = await list(join(this.#directory, "releases"));
    return names.filter((name) => channelSchema.safeParse(name).success);
  }

  async forget(file: string): Promise<void> {
    await rm(file, { force: true });
    await syncDirectory(join(file, ".."));
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

/** The manifest in an envelope, whoever signed it. Throws ENVELOPE_INVALID, MANIFEST_INVALID, … */
export function manifestIn(envelope: Uint8Array): Manifest {
  return parseManifest(Buffer.from(parseEnvelope(envelope).payload, "base64"));
}

/** sha256 of the payload in an envelope: what names the release. Throws ENVELOPE_INVALID. */
export function digestIn(envelope: Uint8Array): string {
  const payload = Buffer.from(parseEnvelope(envelope).payload, "base64");
  return createHash("sha256").update(payload).digest("hex");
}

async function list(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort();
  } catch (error) {
    if (isNotFound(error)) return [];
    throw error;
  }
}
