import { PullError, type ErrorCode } from "../../agent/core/errors.ts";
import type { ManifestRead, Mirror, Timers, Validators } from "../../agent/core/ports.ts";

/** A mirror in memory, as far as a poll sees one. */
export class MemoryMirror implements Mirror {
  readonly address: string;
  ranges = true;
  /** What the next reads fail with; null if the mirror is there. */
  down: ErrorCode | null = null;
  /** How long an answer takes; Infinity for a mirror that never answers. */
  latencyMs = 0;
  /** Whether archives are missing there. */
  lacksArchives = false;
  /** Whether it gives validators, and answers conditional requests. */
  validates = true;
  /** Of each read, the validators that it came with. */
  readonly reads: (Validators | undefined)[] = [];
  readonly #timers: Timers;
  readonly #releases = new Map<string, Buffer>();
  #manifest: Buffer | null = null;
  #version = 0;

  constructor(address: string, timers: Timers) {
    this.address = address;
    this.#timers = timers;
  }

  /** Replaces the manifest. */
  put(manifest: string): void {
    this.#manifest = Buffer.from(manifest);
    this.#version += 1;
  }

  /** Places an older release that is still supported. */
  putRelease(digest: string, envelope: string): void {
    this.#releases.set(digest, Buffer.from(envelope));
  }

  async readRelease(_channel: string, digest: string): Promise<Uint8Array> {
    if (this.down) throw new PullError(this.down, `${this.address}: ${this.down}`);
    const found = this.#releases.get(digest);
    if (!found) throw new PullError("MIRROR_NOT_FOUND", `${this.address}: no release ${digest}`);
    return found;
  }

  async readManifest(
    _channel: string,
    options: { validators?: Validators | undefined; signal?: AbortSignal | undefined },
  ): Promise<ManifestRead> {
    const { validators, signal } = options;
    this.reads.push(validators);
    // A mirror that hangs in the kernel does not hear the signal either.
    if (this.latencyMs === Infinity) return new Promise(() => undefined);
    if (this.latencyMs > 0) await this.#timers.sleep(this.latencyMs, signal);
    if (this.down) throw new PullError(this.down, `${this.address}: ${this.down}`);
    if (!this.#manifest) throw new PullError("MIRROR_NOT_FOUND", `${this.address}: nothing there`);
    const etag = `"${this.#version}"`;
    if (this.validates && validators?.etag === etag) return { kind: "unchanged" };
    return { kind: "read", bytes: this.#manifest, validators: this.validates ? { etag } : {} };
  }

  /** A byte for each that is asked for: archives are fetched through the port ClosureFetch. */
  async *readArchive(
    sha256: string,
    { from, to }: { from: number; to: number },
  ): AsyncGenerator<Uint8Array> {
    if (this.down) throw new PullError(this.down, `${this.address}: ${this.down}`);
    if (this.lacksArchives) {
      throw new PullError("MIRROR_NOT_FOUND", `${this.address}: no archive ${sha256.slice(0, 4)}`);
    }
    yield new Uint8Array(to - from);
  }
}
