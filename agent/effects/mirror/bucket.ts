import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { request, type Dispatcher } from "undici";
import { PullError, toPullError } from "../../core/errors.ts";
import {
  bucketMirrorUrl,
  bucketUrl,
  type BucketAddress,
} from "../../core/formats/bucket-address.ts";
import { Sha256, sha256Hex } from "../../core/formats/sha256.ts";
import { sanitize } from "../../core/text/sanitize.ts";
import { readBounded } from "../files/bounded-read.ts";
import { refusalCode, type BucketSigner } from "./bucket-signer.ts";
import { networkError } from "./http-mirror.ts";
import { isBreak } from "./reconnection.ts";
import type { Transport } from "./transport.ts";

/** What is in memory of an archive that is uploaded. A store takes parts of 5 MiB to 5 GiB. */
const PART_BYTES = 16 * 1024 ** 2;

/** No store takes more parts of one object ("Amazon S3 multipart upload limits"). */
const MAX_PARTS = 10_000;

/** Pieces in which a body is sent: each one that goes is a sign that the connection lives. */
const PIECE_BYTES = 64 * 1024;

/** A page of a list has at most 1000 names of at most 1 KiB, with some 300 bytes beside each. */
const MAX_ANSWER_BYTES = 8 * 1024 ** 2;

/** A list of more pages than this is none of ours: a mirror has some thousand archives. */
const MAX_PAGES = 1_000;

/** How often a request is made that fails for reasons that may pass. */
const ATTEMPTS = 4;
const RETRY_MS = 500;

/** Ending an upload that failed may take so long. */
const ABORT_MS = 30_000;

/** What a store is asked for. */
interface Ask {
  readonly method: "GET" | "PUT" | "POST" | "DELETE";
  /** The object, by its name below the mirror's prefix; the bucket itself if absent. */
  readonly name?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  readonly maxBytes?: number;
}

interface Answer {
  readonly status: number;
  readonly headers: Dispatcher.ResponseData["headers"];
  readonly body: Buffer;
}

/** What a store keeps and tells of an object beside its bytes. */
export interface ObjectKind {
  readonly contentType: string;
  readonly cacheControl: string;
}

/** An object with what names its version; absent if the store names none that can be relied on. */
export interface ReadObject {
  readonly bytes: Buffer;
  readonly etag?: string;
}

/** What became of an object that was to be replaced. */
export type Replaced =
  | "replaced"
  /** It is another one than expected, and was left. */
  | "changed";

export interface BucketOptions {
  /** As the operator wrote it, for messages. */
  readonly text: string;
  readonly address: BucketAddress;
  readonly signer: BucketSigner;
  readonly transport: Transport;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The part of a bucket that is a mirror, for who writes to it. An object appears whole or not at
 * all, so nothing here can be seen half written. All methods throw the MIRROR_ errors,
 * CREDENTIAL_UNREADABLE and INTERRUPTED.
 */
export class Bucket {
  readonly #options: BucketOptions;

  constructor(options: BucketOptions) {
    this.#options = options;
  }

  /** The mirror's address, for messages. */
  get text(): string {
    return this.#options.text;
  }

  /** All objects whose names begin so, with their sizes; names are below the mirror's prefix. */
  async list(beginning: string): Promise<Map<string, number>> {
    const { prefix } = this.#options.address;
    const above = prefix === "" ? "" : `${prefix}/`;
    const found = new Map<string, number>();
    let token: string | undefined;
    for (let pages = 0; ; pages++) {
      const query = {
        ...{ "list-type": "2", prefix: above + beginning },
        ...(token !== undefined && { "continuation-token": token }),
      };
      const ask: Ask = { method: "GET", query };
      const { body } = await this.#expect(ask, [200]);
      const text = body.toString();
      for (const [, entry = ""] of text.matchAll(/<Contents>(.*?)<\/Contents>/gs)) {
        const [key, size] = [elementOf(entry, "Key"), Number(elementOf(entry, "Size") ?? NaN)];
        if (key?.startsWith(above) && Number.isSafeInteger(size))
          found.set(key.slice(above.length), size);
      }
      if (elementOf(text, "IsTruncated") !== "true") return found;
      token = elementOf(text, "NextContinuationToken");
      if (token === undefined || pages >= MAX_PAGES) {
        throw new PullError("MIRROR_STATUS", `${this.text}: the store's list has no end`);
      }
    }
  }

  /** An object of at most so many bytes; null if there is none. Throws MIRROR_OVERSIZE too. */
  async read(name: string, maxBytes: number): Promise<ReadObject | null> {
    const { status, headers, body } = await this.#expect(
      { method: "GET", name, maxBytes },
      [200, 404],
    );
    if (status === 404) return null;
    const etag = headers["etag"];
    const isStrong = typeof etag === "string" && etag.startsWith('"');
    return { bytes: body, ...(isStrong && { etag }) };
  }

  /** Writes a small object, whatever was there. */
  async put(name: string, body: Uint8Array, kind: ObjectKind): Promise<void> {
    await this.#expect({ method: "PUT", name, body, headers: headersOf(kind) }, [200]);
  }

  /**
   * Writes a small object only if it is still the one that was read; null: only if there is none.
   * A store that knows no conditions is asked just before whether it is, and always just after
   * whether it has what was written, so that of two who write at once one learns of it.
   */
  async replace(
    name: string,
    body: Uint8Array,
    { before, kind }: { before: ReadObject | null; kind: ObjectKind },
  ): Promise<Replaced> {
    const isThere = async (expected: Uint8Array | null): Promise<boolean> => {
      const now = await this.read(name, Math.max(expected?.length ?? 0, body.length) + 1).catch(
        (thrown: unknown) => {
          if (toPullError(thrown).code === "MIRROR_OVERSIZE") return { bytes: Buffer.from([0]) };
          throw thrown;
        },
      );
      return expected === null ? now === null : now?.bytes.equals(expected) === true;
    };
    const condition = conditionOf(before);
    const ask: Ask = { method: "PUT", name, body, headers: headersOf(kind) };
    if (condition !== null) {
      const conditional = { ...ask, headers: { ...ask.headers, ...condition } };
      // 404: the object that was to be replaced is gone.
      const { status } = await this.#expect(conditional, [200, 404, 409, 412, 501]);
      // An earlier attempt may have been ours, and its answer lost.
      if (status !== 501) return (await isThere(body)) ? "replaced" : "changed";
    }
    if (!(await isThere(before?.bytes ?? null))) return "changed";
    await this.#expect(ask, [200]);
    return (await isThere(body)) ? "replaced" : "changed";
  }

  /**
   * Uploads an archive of this size and hash, in parts if it is large. At most one part is in
   * memory. If the bytes are others, or anything fails, no object appears, and the parts are
   * removed again. Throws ARCHIVE_TRUNCATED and ARCHIVE_CORRUPT too, and what `source` throws.
   */
  async upload(
    name: string,
    { size, sha256, source }: { size: number; sha256: string; source: AsyncIterable<Uint8Array> },
    kind: ObjectKind,
  ): Promise<void> {
    const partBytes = Math.max(PART_BYTES, Math.ceil(size / MAX_PARTS));
    const hash = new Sha256();
    const parts = partsOf(source, size, partBytes);
    if (size <= partBytes) {
      for await (const part of parts) {
        hash.add(part);
        expectHash(hash.hex(), sha256, name);
        await this.put(name, part, kind);
      }
      return;
    }
    const headers = headersOf(kind);
    const begun = await this.#expect(
      { method: "POST", name, query: { uploads: "" }, headers },
      [200],
    );
    const uploadId = elementOf(begun.body.toString(), "UploadId");
    if (uploadId === undefined) {
      throw new PullError("MIRROR_STATUS", `${this.text}: the store gave no id for an upload`);
    }
    try {
      const tags: string[] = [];
      for await (const body of parts) {
        hash.add(body);
        const query = { partNumber: `${tags.length + 1}`, uploadId };
        const answer = await this.#expect({ method: "PUT", name, query, body }, [200]);
        tags.push(String(answer.headers["etag"] ?? ""));
      }
      expectHash(hash.hex(), sha256, name);
      await this.#complete(name, uploadId, tags);
    } catch (error) {
      await this.#abort(name, uploadId);
      throw error;
    }
  }

  /** Removes an object; nothing if it is not there. */
  async remove(name: string): Promise<void> {
    await this.#expect({ method: "DELETE", name }, [200, 204, 404]);
  }

  async #complete(name: string, uploadId: string, tags: readonly string[]): Promise<void> {
    const listed = tags.map(
      (tag, at) =>
        `<Part><PartNumber>${at + 1}</PartNumber><ETag>${tag.replaceAll("&", "&amp;").replaceAll("<", "&lt;")}</ETag></Part>`,
    );
    const body = Buffer.from(
      `<CompleteMultipartUpload>${listed.join("")}</CompleteMultipartUpload>`,
    );
    const headers = { "content-type": "application/xml" };
    const ask: Ask = { method: "POST", name, query: { uploadId }, body, headers };
    const answer = await this.#expect(ask, [200]);
    // A store may begin to answer before it knows how it ends.
    const text = answer.body.toString();
    if (text.includes("<CompleteMultipartUploadResult")) return;
    throw this.#refused(ask, { ...answer, status: 500 });
  }

  /** Best effort: the error that led here is the one to tell. Our caller may be stopped by now. */
  async #abort(name: string, uploadId: string): Promise<void> {
    const ask: Ask = { method: "DELETE", name, query: { uploadId } };
    await this.#once(ask, AbortSignal.timeout(ABORT_MS)).catch(() => undefined);
  }

  /** Asks, some times if need be, for an answer with one of these statuses. */
  async #expect(ask: Ask, statuses: readonly number[]): Promise<Answer> {
    const { signal } = this.#options;
    for (let attempt = 1; ; attempt++) {
      let failure: PullError;
      try {
        const answer = await this.#once(ask, signal);
        if (statuses.includes(answer.status)) return answer;
        failure = this.#refused(ask, answer);
        if (answer.status < 500 && answer.status !== 429) throw failure;
      } catch (thrown) {
        failure = toPullError(thrown);
        if (!isBreak(failure)) throw failure;
      }
      if (attempt >= ATTEMPTS) throw failure;
      const wait = RETRY_MS * 2 ** (attempt - 1);
      await sleep(wait, undefined, signal ? { signal } : {}).catch((cause: unknown) => {
        throw new PullError("INTERRUPTED", "stopped before a request was repeated", { cause });
      });
    }
  }

  async #once(ask: Ask, signal: AbortSignal | undefined): Promise<Answer> {
    const { method, body, headers = {}, maxBytes = MAX_ANSWER_BYTES } = ask;
    const { signer, transport } = this.#options;
    const url = this.#urlOf(ask);
    const signed = await signer.sign({
      ...{ method, url, headers },
      bodySha256: sha256Hex(body ?? ""),
    });
    try {
      const response = await request(url, {
        method,
        headers: {
          ...signed,
          "user-agent": "nixos-pull",
          "accept-encoding": "identity",
          ...(body && { "content-length": `${body.length}` }),
        },
        ...(body && { body: Readable.from(piecesOf(body), { highWaterMark: 1 }) }),
        dispatcher: await transport.dispatcher({ identified: true }),
        ...(signal && { signal }),
      });
      const { statusCode: status } = response;
      // An error says more than a small object has.
      const most = status === 200 ? maxBytes : MAX_ANSWER_BYTES;
      const bytes = await readBounded(response.body as AsyncIterable<Buffer>, most);
      if (bytes) return { status, headers: response.headers, body: bytes };
      throw new PullError(
        "MIRROR_OVERSIZE",
        `${url.origin}${url.pathname}: expected at most ${most} bytes`,
      );
    } catch (cause) {
      throw networkError(url, cause, signal);
    }
  }

  #refused(ask: Ask, { status, headers, body }: Answer): PullError {
    const region = headers["x-amz-bucket-region"];
    const url = this.#urlOf(ask);
    const text = body.subarray(0, MAX_EXPLAINED).toString("latin1");
    const known = typeof region === "string" ? region : undefined;
    const reason = this.#options.signer.explain({ status, region: known, body: text });
    const isAsked = refusalCode(text) === null && (status === 401 || status === 403);
    return new PullError(
      "MIRROR_STATUS",
      `${ask.method} ${sanitize(url.origin + url.pathname, MAX_SHOWN)}: found HTTP ${status}` +
        (isAsked ? "; may these keys read, write and list the bucket?" : reason),
    );
  }

  #urlOf({ name, query = {} }: Ask): URL {
    const { address } = this.#options;
    const url = name === undefined ? bucketUrl(address) : new URL(name, bucketMirrorUrl(address));
    url.search = new URLSearchParams(query).toString();
    return url;
  }
}

const MAX_EXPLAINED = 16 * 1024;
const MAX_SHOWN = 300;

/** Headers that ask the store to write only if the object is still that one; null if none can. */
function conditionOf(before: ReadObject | null): Record<string, string> | null {
  if (before === null) return { "if-none-match": "*" };
  return before.etag === undefined ? null : { "if-match": before.etag };
}

function headersOf({ contentType, cacheControl }: ObjectKind): Record<string, string> {
  return { "content-type": contentType, "cache-control": cacheControl };
}

function expectHash(found: string, expected: string, name: string): void {
  if (found === expected) return;
  throw new PullError("ARCHIVE_CORRUPT", `${name}: expected sha256 ${expected}, found ${found}`);
}

/** The text of the first element of that name in an answer. */
function elementOf(xml: string, name: string): string | undefined {
  const text = new RegExp(`<${name}>([^<]*)</${name}>`).exec(xml)?.[1];
  return text?.replace(
    /&(lt|gt|quot|apos|amp|#39|#34);/g,
    (_, entity: string) => ENTITIES[entity] ?? "",
  );
}

const ENTITIES: Readonly<Record<string, string>> = {
  ...{ lt: "<", gt: ">", quot: '"', apos: "'", amp: "&", "#39": "'", "#34": '"' },
};

/** A body in pieces, in memory once. */
async function* piecesOf(body: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < body.length; at += PIECE_BYTES) yield body.subarray(at, at + PIECE_BYTES);
}

/**
 * A stream of `size` bytes in parts of `partBytes`, the last one of what is left; an empty stream is
 * one empty part. All parts use the same memory, so each is done with before the next is asked for.
 * Throws ARCHIVE_TRUNCATED for a stream of another length.
 */
async function* partsOf(
  source: AsyncIterable<Uint8Array>,
  size: number,
  partBytes: number,
): AsyncGenerator<Uint8Array> {
  const buffer = Buffer.allocUnsafeSlow(Math.min(partBytes, size));
  let filled = 0;
  let total = 0;
  for await (const piece of source) {
    total += piece.length;
    if (total > size) break;
    for (let at = 0; at < piece.length;) {
      const part = piece.subarray(at, at + buffer.length - filled);
      buffer.set(part, filled);
      filled += part.length;
      at += part.length;
      if (filled < buffer.length) continue;
      yield buffer;
      filled = 0;
    }
  }
  if (total !== size) {
    throw new PullError("ARCHIVE_TRUNCATED", `expected an archive of ${size} bytes, found another`);
  }
  if (filled > 0 || size === 0) yield buffer.subarray(0, filled);
}
