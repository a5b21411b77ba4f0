import { PullError } from "../../agent/core/errors.ts";
import type { Mirror } from "../../agent/core/ports.ts";

/** One request for bytes of an archive. */
export interface MirrorRequest {
  readonly archive: string;
  readonly from: number;
  readonly to: number;
}

export interface ArchiveMirrorOptions {
  /** Archives by hash. */
  readonly archives: ReadonlyMap<string, Uint8Array>;
  readonly pieceBytes?: number;
  /** Called before each piece with its offset in the archive; may throw. */
  readonly onPiece?: ((request: MirrorRequest, offset: number) => void) | undefined;
  readonly onRequest?: (request: MirrorRequest) => void;
}

/** A mirror that serves archives out of memory, piece by piece, and stops when it is told to. */
export class ArchiveMirror implements Mirror {
  readonly address: string;
  /** Tests change it in the middle, as a mirror does that turns out to serve no ranges. */
  ranges = true;
  readonly requests: MirrorRequest[] = [];
  readonly #options: ArchiveMirrorOptions;

  constructor(address: string, options: ArchiveMirrorOptions) {
    this.address = address;
    this.#options = options;
  }

  async readRelease(): Promise<never> {
    throw new Error("older releases are for polls");
  }

  async readManifest(): Promise<never> {
    throw new Error("a fetch reads no manifest");
  }

  async *readArchive(
    archive: string,
    { from, to }: { from: number; to: number },
    signal?: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    const { archives, pieceBytes = 1_000, onPiece, onRequest } = this.#options;
    const request = { archive, from, to };
    this.requests.push(request);
    onRequest?.(request);
    const bytes = archives.get(archive);
    if (!bytes) throw new PullError("MIRROR_NOT_FOUND", `no archive ${archive}`);
    for (let at = from; at < to; at += pieceBytes) {
      await new Promise(setImmediate);
      if (signal?.aborted) throw new PullError("INTERRUPTED", "the read was stopped");
      onPiece?.(request, at);
      yield bytes.subarray(at, Math.min(at + pieceBytes, to));
    }
  }
}
