import { PullError, toPullError } from "../../core/errors.ts";
import type { NamedRelease, Position } from "../../core/formats/manifest.ts";
import {
  NO_SIGNER_MEMORY,
  channelMemory,
  expectNewest,
  expectSignable,
  knowsChannel,
  knowsRelease,
  rememberInForce,
  rememberSigned,
  reservedPlaces,
  signerMemorySchema,
  type RememberedRelease,
  type SignerMemory,
} from "../../core/release/signer-memory.ts";
import { describeIssues } from "../../core/text/schema-issues.ts";
import { writeDurably } from "../../effects/files/durable-file.ts";
import { ifMissing } from "../../effects/files/missing-file.ts";
import { readRegularFile } from "../../effects/files/regular-file.ts";

/** A memory of 1,000 channels with 200 drafts each has 20 MB; a usual one less than 1 kB. */
const MAX_BYTES = 32 * 1024 * 1024;

/**
 * The memory of what was signed, in a file of the signer's own: beside the key, or in the
 * repository. Without a file nothing is remembered, and nothing is refused.
 */
export class SignerMemoryFile {
  readonly #path: string | null;
  #memory: SignerMemory;

  private constructor(path: string | null, memory: SignerMemory) {
    this.#path = path;
    this.#memory = memory;
  }

  /** Reads the file, which need not exist yet. Throws STATE_CORRUPT, the system's errors. */
  static async open(path: string | null): Promise<SignerMemoryFile> {
    if (path === null) return new SignerMemoryFile(null, NO_SIGNER_MEMORY);
    const options = { maxBytes: MAX_BYTES, code: "STATE_CORRUPT" as const, followLink: true };
    const bytes = await ifMissing(readRegularFile(path, options), null);
    return new SignerMemoryFile(path, bytes ? parseMemory(bytes, path) : NO_SIGNER_MEMORY);
  }

  /** The places of the channel that a new release must not take. */
  reserved(channel: string): Position[] {
    return reservedPlaces(channelMemory(this.#memory, channel));
  }

  /** Whether this very release was signed or seen in force before. */
  knows(channel: string, release: NamedRelease): boolean {
    return knowsRelease(channelMemory(this.#memory, channel), release);
  }

  /** Whether anything of the channel is remembered. */
  knowsChannel(channel: string): boolean {
    return knowsChannel(channelMemory(this.#memory, channel));
  }

  /** Whether the release in force is the newest known. Throws RELEASE_BEHIND, RELEASE_FORKED. */
  expectNewest(channel: string, current: RememberedRelease | null, mirror: string): void {
    const names = { release: mirror, memory: this.#name };
    expectNewest(channelMemory(this.#memory, channel), current, names);
  }

  /** Whether a release may be signed. Throws RELEASE_BEHIND, RELEASE_FORKED. */
  expectSignable(release: RememberedRelease, place: string): void {
    const names = { release: place, memory: this.#name };
    expectSignable(channelMemory(this.#memory, release.manifest.channel), release, names);
  }

  /** Remembers a signature, before anybody can see it. Throws PERMISSION_DENIED, the system's errors. */
  async rememberSigned(release: RememberedRelease): Promise<void> {
    await this.#save(rememberSigned(this.#memory, release));
  }

  /** Remembers that a release is in force. Throws PERMISSION_DENIED, the system's errors. */
  async rememberInForce(release: RememberedRelease): Promise<void> {
    await this.#save(rememberInForce(this.#memory, release));
  }

  get #name(): string {
    return this.#path ?? "the memory";
  }

  async #save(memory: SignerMemory): Promise<void> {
    if (this.#path === null || JSON.stringify(memory) === JSON.stringify(this.#memory)) return;
    try {
      await writeDurably(this.#path, `${JSON.stringify(memory, null, 2)}\n`, 0o644);
    } catch (thrown) {
      const error = toPullError(thrown);
      throw new PullError(
        error.code,
        `${this.#path}: expected to write here what was signed (--memory FILE gives another ` +
          `place): ${error.message}`,
        { cause: thrown },
      );
    }
    this.#memory = memory;
  }
}

function parseMemory(bytes: Uint8Array, path: string): SignerMemory {
  const advice =
    "bring back an earlier copy: without it, a mirror that was set back is not noticed";
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (cause) {
    const message = `${path}: expected what was signed, as JSON, found something else; ${advice}`;
    throw new PullError("STATE_CORRUPT", message, { cause });
  }
  const parsed = signerMemorySchema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new PullError("STATE_CORRUPT", `${path}: ${describeIssues(parsed.error, json)}; ${advice}`);
}
