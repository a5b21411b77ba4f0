import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { request, type Dispatcher } from "undici";
import { PullError, toPullError } from "../../core/errors.ts";
import type { ManifestRead, Mirror, Validators } from "../../core/ports.ts";
import type { MirrorCredential } from "../../core/settings/mirrors.ts";
import type { Settings } from "../../core/settings.ts";
import { parseUrl } from "../../core/formats/web-address.ts";
import { sanitize } from "../../core/text/sanitize.ts";
import { readBounded } from "../files/bounded-read.ts";
import { ownActivity } from "../process/activity.ts";
import { addressScope, type AddressScope } from "./address-scope.ts";
import type { BucketSigner } from "./bucket-signer.ts";
import { Reconnections, isBreak } from "./reconnection.ts";
import { withRateFloor, type Pacer } from "./transfer-rate.ts";
import { authorizationOf, isWithin, type Transport } from "./transport.ts";

const REDIRECTS = new Set([301, 302, 303, 307, 308]);

type Response = Dispatcher.ResponseData;

/** An answer that gives a file from some position on, after bytes that are passed over. */
interface Opened {
  readonly response: Response;
  readonly skip: number;
  /** Where it ends by its own word. */
  readonly end?: number;
}

/** Asks for a file's bytes from a position on. */
type Open = (at: number) => Promise<Opened>;

/** Bytes of a file that are wanted; `to` is Infinity for all there are. */
interface Transfer {
  readonly url: URL;
  readonly from: number;
  readonly to: number;
  readonly open: Open;
  /** Whether it has to come over one connection. */
  readonly isWhole?: boolean;
  readonly signal: AbortSignal | undefined;
}

/** A piece as it came, by its length, and what is wanted of it. */
interface Received {
  readonly length: number;
  readonly wanted: Buffer;
}

/** What the mirrors of one host share, and the credential of this one. */
export interface HttpMirrorOptions {
  readonly limits: Settings["limits"];
  readonly transport: Transport;
  /** Shared by all mirrors, because the limit is the host's. */
  readonly pacer: Pacer;
  readonly credential?: MirrorCredential | undefined;
  /** A bucket's address by HTTP, and what signs requests to it. */
  readonly bucket?: { readonly url: URL; readonly signer: BucketSigner };
}

/** A mirror on any static file server, or in a bucket. */
export class HttpMirror implements Mirror {
  readonly address: string;
  ranges = true;
  readonly #base: URL;
  readonly #limits: Settings["limits"];
  readonly #options: HttpMirrorOptions;

  constructor(address: string, options: HttpMirrorOptions) {
    this.address = address;
    this.#base = options.bucket?.url ?? new URL(address.endsWith("/") ? address : `${address}/`);
    this.#limits = options.limits;
    this.#options = options;
  }

  async readManifest(
    channel: string,
    { validators, signal }: Parameters<Mirror["readManifest"]>[1],
  ): Promise<ManifestRead> {
    return this.#readEnvelope(`channels/${channel}/manifest.json`, validators, signal);
  }

  async readRelease(channel: string, digest: string, signal?: AbortSignal): Promise<Uint8Array> {
    const name = `channels/${channel}/releases/${digest}.json`;
    const answer = await this.#readEnvelope(name, undefined, signal);
    if (answer.kind === "read") return answer.bytes;
    throw new PullError("MIRROR_STATUS", `${this.address}: "not modified" without being asked`);
  }

  async #readEnvelope(
    name: string,
    validators: Validators | undefined,
    signal: AbortSignal | undefined,
  ): Promise<ManifestRead> {
    const url = new URL(name, this.#base);
    const response = await this.#getOnceMore(url, conditionsOf(validators), signal);
    if (response.statusCode === 304) {
      await drop(response);
      return { kind: "unchanged" };
    }
    await this.#expect(response, [200], url);
    const limit = this.#limits.manifestBytes;
    const told = Number(header(response, "content-length") ?? 0);
    if (told > limit) {
      await drop(response);
      throw new PullError(
        "MIRROR_OVERSIZE",
        `${url.href}: expected at most ${limit} bytes, the mirror announces ${told}`,
      );
    }
    const found = validatorsOf(response);
    let first: Opened | null = { response, skip: 0 };
    const open: Open = async (at) => {
      const opened = first ?? (await this.#openManifest(url, { at, found, signal }));
      first = null;
      return opened;
    };
    // What names no version cannot be put together of two answers.
    const isWhole = versionOf(found) === undefined;
    const received = this.#received({ url, from: 0, to: Infinity, open, isWhole, signal });
    // Bounded again while reading: it may send more than it announces.
    const bytes = await readBounded(wantedOf(this.#aboveFloor(url, received)), limit);
    if (bytes === null) {
      throw new PullError("MIRROR_OVERSIZE", `${url.href}: expected at most ${limit} bytes`);
    }
    return { kind: "read", bytes, validators: found };
  }

  /** As `#get`, and once more if the connection was closed before the answer. */
  async #getOnceMore(
    url: URL,
    headers: Record<string, string>,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    const reconnections = new Reconnections(0);
    for (;;) {
      try {
        return await this.#get(url, headers, signal);
      } catch (thrown) {
        await reconnections.after(thrown, { reached: 0 }, signal);
      }
    }
  }

  /** Asks for the rest of a manifest whose connection broke, of the same version. */
  async #openManifest(
    url: URL,
    { at, found, signal }: { at: number; found: Validators; signal: AbortSignal | undefined },
  ): Promise<Opened> {
    const headers = { range: `bytes=${at}-`, "if-range": versionOf(found) ?? "" };
    const response = await this.#get(url, headers, signal);
    await this.#expect(response, [200, 206], url);
    if (response.statusCode === 206) return this.#openedPart(response, { url, at, to: Infinity });
    const now = validatorsOf(response);
    if (now.etag === found.etag && now.lastModified === found.lastModified)
      return { response, skip: at };
    await drop(response);
    throw new PullError("MIRROR_UNREACHABLE", `${url.href}: it was replaced while it was read`);
  }

  async *readArchive(
    sha256: string,
    { from, to }: { from: number; to: number },
    signal?: AbortSignal,
  ): AsyncGenerator<Buffer> {
    const url = new URL(`archives/${sha256}.tar`, this.#base);
    const open: Open = (at) => this.#openArchive(url, { at, to, signal });
    const received = this.#received({ url, from, to, open, signal });
    const paced = this.#options.pacer.pace(this.#aboveFloor(url, received), signal);
    try {
      yield* wantedOf(paced);
    } catch (thrown) {
      const error = toPullError(thrown);
      if (this.ranges || !isBreak(error)) throw error;
      throw new PullError(
        error.code,
        `${error.message}; this server knows no ranges, so that every connection begins at the ` +
          `start of the archive: expected one that lasts for ${to} bytes, or a server with ranges`,
        { cause: error },
      );
    }
  }

  async #openArchive(
    url: URL,
    { at, to, signal }: { at: number; to: number; signal: AbortSignal | undefined },
  ): Promise<Opened> {
    const response = await this.#get(url, { range: `bytes=${at}-${to - 1}` }, signal);
    if (response.statusCode === 416) {
      await drop(response);
      throw new PullError(
        "ARCHIVE_TRUNCATED",
        `${url.href}: expected bytes up to ${to}, the mirror has fewer than ${at + 1}`,
      );
    }
    await this.#expect(response, [200, 206], url);
    if (response.statusCode === 206) return this.#openedPart(response, { url, at, to });
    // The server ignored the range (RFC 9110, 14.2): read from the start, skip to `at`.
    this.ranges = false;
    return { response, skip: at };
  }

  async #openedPart(
    response: Response,
    { url, at, to }: { url: URL; at: number; to: number },
  ): Promise<Opened> {
    const range = header(response, "content-range") ?? "";
    if (!range.startsWith(`bytes ${at}-`)) {
      await drop(response);
      throw new PullError(
        "MIRROR_STATUS",
        `${url.href}: expected content range "bytes ${at}-…", found ` +
          JSON.stringify(sanitize(range, MAX_SHOWN)),
      );
    }
    const last = Number(/^bytes [0-9]+-([0-9]{1,15})/.exec(range)?.[1] ?? NaN);
    return { response, skip: 0, ...(last >= at && { end: Math.min(last + 1, to) }) };
  }

  /** A file's bytes from `from` up to `to`, over as many connections as that takes. */
  async *#received({
    url,
    from,
    to,
    open,
    isWhole = false,
    signal,
  }: Transfer): AsyncGenerator<Received> {
    const reconnections = new Reconnections(from);
    for (let at = from; ;) {
      let skipped = 0;
      try {
        const { response, skip, end } = await open(at);
        // The first one has to pass over what nobody asked for; that is no sign of a bad link.
        if (at > from) skipped = skip;
        let unwanted = skip;
        for await (const chunk of this.#body(response, url, signal)) {
          const start = Math.min(unwanted, chunk.length);
          unwanted -= start;
          const wanted = chunk.subarray(start, start + to - at);
          at += wanted.length;
          yield { length: chunk.length, wanted };
          if (at === to) return;
        }
        if (end === undefined || at >= end) return;
        throw new PullError(
          "MIRROR_UNREACHABLE",
          `${url.href}: the connection ended at byte ${at}: expected ${end}`,
        );
      } catch (thrown) {
        if (isWhole) throw thrown;
        await reconnections.after(thrown, { reached: at, skipped }, signal);
      }
    }
  }

  #aboveFloor(url: URL, source: AsyncIterable<Received>): AsyncGenerator<Received> {
    const { minRate, rateWindow: windowMs } = this.#limits;
    return withRateFloor(source, { minRate, windowMs, name: url.href });
  }

  /** GET that follows a few redirects, but none to anything weaker or into another network. */
  async #get(
    first: URL,
    headers: Record<string, string>,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    let url = first;
    let scopes: ReadonlySet<AddressScope> | undefined;
    for (let hops = 0; ; hops++) {
      const response = await this.#request(url, { headers, scopes, signal });
      if (!REDIRECTS.has(response.statusCode)) return response;
      await drop(response);
      const location = header(response, "location");
      const next = location === undefined ? null : parseUrl(location, url);
      if (next === null || hops >= this.#limits.redirects) {
        throw new PullError(
          "MIRROR_REDIRECT",
          next === null
            ? `${url.href}: HTTP ${response.statusCode} without a usable location` +
                this.#explanation(response, "")
            : `${first.href}: expected at most ${this.#limits.redirects} redirects`,
        );
      }
      const target = sanitize(`${next.protocol}//${next.host}`, MAX_SHOWN);
      if (next.protocol !== "https:" && (url.protocol === "https:" || next.protocol !== "http:")) {
        throw new PullError("MIRROR_REDIRECT", `${url.href}: refused the redirect to ${target}`);
      }
      if (this.#base.protocol === "http:" && next.origin !== this.#base.origin) {
        scopes = await this.#scopes();
        expectWithin(next, scopes, `${url.href}: refused the redirect to ${target}`);
      }
      // A redirect must not choose a user name for us either.
      next.username = next.password = "";
      url = next;
    }
  }

  /**
   * The networks in which the mirror itself is. Whoever answers over plain HTTP may be anybody,
   * and must not send this host to services that only the host or its site can reach.
   */
  async #scopes(): Promise<ReadonlySet<AddressScope>> {
    const { hostname } = this.#base;
    // Behind a proxy the name may be unknown here.
    const found = await lookup(bareHost(hostname), { all: true }).catch(() => []);
    return new Set(found.map(({ address }) => addressScope(address)));
  }

  async #request(
    url: URL,
    {
      headers,
      scopes,
      signal,
    }: {
      headers: Record<string, string>;
      scopes: ReadonlySet<AddressScope> | undefined;
      signal: AbortSignal | undefined;
    },
  ): Promise<Response> {
    // Secrets and the client certificate are for the mirror itself, never for another origin.
    const identified = url.origin === this.#base.origin;
    const { transport } = this.#options;
    const dispatcher = await transport.dispatcher(
      identified ? { identified } : { identified, scopes },
    );
    const secret = await this.#identity(url);
    // undici begins to wait anew with each interim answer (1xx), of which there may be no end.
    const { connectTimeout, stallTimeout } = this.#limits;
    const late = new AbortController();
    const patience = 2 * connectTimeout + stallTimeout;
    const limit = setTimeout(() => {
      late.abort();
    }, patience);
    try {
      return await ownActivity.during(patience, () =>
        request(url, {
          method: "GET",
          headers: {
            ...headers,
            ...secret,
            "accept-encoding": "identity",
            "user-agent": "nixos-pull",
          },
          dispatcher,
          signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal,
        }),
      );
    } catch (cause) {
      if (late.signal.aborted && !signal?.aborted) {
        throw new PullError(
          "MIRROR_STALLED",
          `${url.href}: expected an answer within ${patience / 1000} s, found none`,
          { cause },
        );
      }
      throw networkError(url, cause, signal);
    } finally {
      clearTimeout(limit);
    }
  }

  /** What tells the server who asks: nothing for another one than the mirror itself. */
  async #identity(url: URL): Promise<Record<string, string>> {
    const { credential, bucket } = this.#options;
    if (bucket) return bucket.signer.sign({ method: "GET", url });
    const isOwn = url.origin === this.#base.origin;
    return isOwn && credential ? { authorization: await authorizationOf(credential) } : {};
  }

  async *#body(
    response: Response,
    url: URL,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Buffer> {
    try {
      const body = response.body as AsyncIterable<Buffer>;
      yield* ownActivity.pieces(body, this.#limits.stallTimeout);
    } catch (cause) {
      throw networkError(url, cause, signal);
    } finally {
      response.body.on("error", () => undefined).destroy();
    }
  }

  async #expect(response: Response, statuses: readonly number[], url: URL): Promise<void> {
    const { statusCode } = response;
    if (statuses.includes(statusCode)) return;
    const missing = statusCode === 404 || statusCode === 410;
    let reason = "";
    if (this.#options.bucket) {
      reason = this.#explanation(response, await beginningOf(response));
    } else {
      await drop(response);
      if (statusCode === 401 || statusCode === 403)
        reason = "; are the settings credentials and tls right for this mirror?";
    }
    throw new PullError(
      missing ? "MIRROR_NOT_FOUND" : "MIRROR_STATUS",
      `${url.href}: expected HTTP ${statuses.join(" or ")}, found ${statusCode}${reason}`,
    );
  }

  /** What a bucket's error means; "" for other servers. */
  #explanation(response: Response, body: string): string {
    const region = header(response, "x-amz-bucket-region");
    return (
      this.#options.bucket?.signer.explain({ status: response.statusCode, region, body }) ?? ""
    );
  }
}

async function* wantedOf(pieces: AsyncIterable<Received>): AsyncGenerator<Buffer> {
  for await (const { wanted } of pieces) if (wanted.length > 0) yield wanted;
}

/** Headers that ask for a file only if it is another one than that of these validators. */
function conditionsOf(validators: Validators | undefined): Record<string, string> {
  const { etag, lastModified } = validators ?? {};
  return {
    ...(etag !== undefined && { "if-none-match": etag }),
    ...(lastModified !== undefined && { "if-modified-since": lastModified }),
  };
}

/** What `If-Range` can name; a weak ETag may stand for other bytes (RFC 9110, 13.1.5). */
function versionOf({ etag, lastModified }: Validators): string | undefined {
  return etag === undefined || etag.startsWith("W/") ? lastModified : etag;
}

function validatorsOf(response: Response): Validators {
  return { etag: header(response, "etag"), lastModified: header(response, "last-modified") };
}

function header(response: Response, name: string): string | undefined {
  const value = response.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** What a server says about itself is shown up to this length. */
const MAX_SHOWN = 200;

/** An unwanted body up to this length is read, so that its connection can be used again. */
const DROP_BYTES = 16 * 1024;

/** And for this long: a new connection costs less than waiting for a slow error page. */
const DROP_MS = 1_000;

/** Ends a response whose body is not needed. */
async function drop(response: Response): Promise<void> {
  response.body.on("error", () => undefined);
  const end = { limit: DROP_BYTES, signal: AbortSignal.timeout(DROP_MS) };
  await response.body.dump(end).catch(() => undefined);
}

/** The beginning of an error's body, which is read up to a length and for a time, and ended. */
export async function beginningOf(response: Response): Promise<string> {
  const late = setTimeout(() => response.body.destroy(), DROP_MS);
  let text = "";
  try {
    for await (const piece of response.body as AsyncIterable<Buffer>) {
      text += piece.toString("latin1");
      if (text.length >= DROP_BYTES) break;
    }
  } catch {
    // What came is enough.
  } finally {
    clearTimeout(late);
    response.body.on("error", () => undefined).destroy();
  }
  return text;
}

/** The address of a URL's host as `net` writes it. */
function bareHost(hostname: string): string {
  return hostname.replace(/^\[(.*)\]$/, "$1");
}

/** Refuses a redirect to an address or to this host; names are looked at when we connect. */
function expectWithin(url: URL, scopes: ReadonlySet<AddressScope>, refusal: string): void {
  const host = bareHost(url.hostname);
  const address = /(^|\.)localhost\.?$/.test(host) ? "127.0.0.1" : host;
  if (isIP(address) === 0 || isWithin(address, scopes)) return;
  throw new PullError(
    "MIRROR_REDIRECT",
    `${refusal}: it leads into a network that is not the mirror's`,
  );
}

const STALLS = new Set(["UND_ERR_HEADERS_TIMEOUT", "UND_ERR_BODY_TIMEOUT"]);

/** Codes of OpenSSL and Node for a bad certificate or handshake. */
const TLS_TROUBLE =
  /^ERR_TLS|^ERR_SSL|CERT|SELF_SIGNED|UNABLE_TO_(GET|VERIFY|DECRYPT)|HOSTNAME_MISMATCH|SSL routines/;

/** What a clock that is wrong makes of a good certificate. */
const CLOCK_TROUBLE = new Set(["CERT_NOT_YET_VALID", "CERT_HAS_EXPIRED"]);

function clockText(): string {
  return `; this host's clock says ${new Date().toISOString()}: is it right?`;
}

/** The error for a failed request. It keeps the cause. */
export function networkError(url: URL, cause: unknown, signal: AbortSignal | undefined): PullError {
  if (cause instanceof PullError) return cause;
  if (signal?.aborted || (cause instanceof Error && cause.name === "AbortError")) {
    return new PullError("INTERRUPTED", `${url.href}: stopped before it was read`, { cause });
  }
  const code = (cause as NodeJS.ErrnoException).code ?? "";
  if (STALLS.has(code)) {
    return new PullError("MIRROR_STALLED", `${url.href}: the mirror stopped sending`, { cause });
  }
  const isTls =
    TLS_TROUBLE.test(code) || (cause instanceof Error && TLS_TROUBLE.test(cause.message));
  return new PullError(
    isTls ? "MIRROR_TLS" : "MIRROR_UNREACHABLE",
    `${url.href}: ${reasonText(cause)}${CLOCK_TROUBLE.has(code) ? clockText() : ""}`,
    { cause },
  );
}

function reasonText(cause: unknown): string {
  if (cause instanceof AggregateError && cause.errors.length > 0) {
    return cause.errors.map(reasonText).join("; ");
  }
  return cause instanceof Error ? cause.message : String(cause);
}
