import { AwsV4Signer } from "aws4fetch";
import { awsDomain, bucketUrl, type BucketAddress } from "../../core/formats/bucket-address.ts";
import { isPrivate } from "../../core/settings/mirrors.ts";
import type { KeySource } from "./key-source.ts";

/** A request to a bucket, before it is signed. */
export interface UnsignedRequest {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  readonly url: URL;
  /** Those that are signed too. Names are in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  /** SHA-256 of the body in hexadecimal: the store then refuses another one. */
  readonly bodySha256?: string;
}

/** What a store means by an error code that it answers with. Nothing else of an answer is repeated. */
const REFUSALS: Readonly<Record<string, string>> = {
  AccessDenied: "these keys may not do that, or nobody may without keys",
  AuthorizationHeaderMalformed: "is the region in the mirror's address right?",
  BadDigest: "the bytes were damaged on their way",
  ConditionalRequestConflict: "somebody else writes there at this moment",
  EntityTooLarge: "the store takes no object of that size",
  ExpiredToken: "the session token has ended",
  InternalError: "the store has an error of its own",
  InvalidAccessKeyId: "the store does not know this access key",
  InvalidToken: "the session token is not valid",
  NoSuchBucket: "there is no such bucket",
  NoSuchUpload: "the upload was ended by somebody else",
  NotImplemented: "the store does not know this kind of request",
  PermanentRedirect: "is the region in the mirror's address right?",
  PreconditionFailed: "the object is another one than was expected",
  SignatureDoesNotMatch: "the secret does not belong to this access key",
  SlowDown: "the store asks for fewer requests",
  XAmzContentSHA256Mismatch: "the bytes were damaged on their way",
};

/** The store's code that the beginning of an error's body has, if it is one that we know. */
export function refusalCode(body: string): string | null {
  const code = /<Code>([A-Za-z0-9]{1,64})<\/Code>/.exec(body)?.[1] ?? "";
  return code === CLOCK_REFUSAL || Object.hasOwn(REFUSALS, code) ? code : null;
}

/** What a store answers if the time of a request differs from its own by more than a quarter hour. */
const CLOCK_REFUSAL = "RequestTimeTooSkewed";

/**
 * Signs requests to one bucket (AWS Signature Version 4), and knows what its answers mean. A
 * signature is good for one request, to one host, for a quarter of an hour; the secret is not sent.
 */
export class BucketSigner {
  readonly #address: BucketAddress;
  readonly #keys: KeySource;
  readonly #now: () => Date;

  constructor(address: BucketAddress, keys: KeySource, now = () => new Date()) {
    this.#address = address;
    this.#keys = keys;
    this.#now = now;
  }

  /**
   * The headers of a request that make it a signed one; none of them if there are no keys, or if
   * others could read the session token on the way. Throws CREDENTIAL_UNREADABLE.
   */
  async sign({
    method,
    url,
    headers = {},
    bodySha256,
  }: UnsignedRequest): Promise<Record<string, string>> {
    const region = this.#regionOf(url);
    const keys = region !== null && isPrivate(url) ? await this.#keys() : null;
    if (region === null || keys === null) return { ...headers };
    const datetime = this.#now()
      .toISOString()
      .replace(/[:-]|\.\d{3}/g, "");
    const { accessKeyId, secretAccessKey, sessionToken } = keys;
    const signer = new AwsV4Signer({
      ...{ method, url: url.href, accessKeyId, secretAccessKey, region, datetime, service: "s3" },
      ...(sessionToken !== undefined && { sessionToken }),
      headers: { ...headers, ...(bodySha256 && { "x-amz-content-sha256": bodySha256 }) },
    });
    return Object.fromEntries((await signer.sign()).headers);
  }

  /**
   * The region by whose name a request to this address is signed: the bucket's own address, or its
   * address in another region of AWS, to which AWS redirects. Null for any other address.
   */
  #regionOf({ protocol, origin, hostname }: URL): string | null {
    const { bucket, region, endpoint, pathStyle } = this.#address;
    if (origin === bucketUrl(this.#address).origin) return region;
    if (endpoint !== null || pathStyle || protocol !== "https:") return null;
    const [start, end] = [`${bucket}.s3`, `.${awsDomain(region)}`];
    if (!hostname.startsWith(start) || !hostname.endsWith(end)) return null;
    return /^[.-]([a-z0-9-]{1,40})$/.exec(hostname.slice(start.length, -end.length))?.[1] ?? null;
  }

  /** What an answer that is an error means, for its message: "" or text that begins with ";". */
  explain({ status, region, body }: Refusal): string {
    const code = refusalCode(body);
    if (code === CLOCK_REFUSAL) {
      return `; this host's clock says ${this.#now().toISOString()}, and the store's differs by more than it allows: set this host's clock`;
    }
    if (region !== undefined && /^[a-z0-9-]{1,40}$/.test(region) && region !== this.#address.region)
      return `; the bucket is in the region ${region}: expected region=${region} in the mirror's address`;
    if (code !== null) return `; ${code}: ${REFUSALS[code]}`;
    return status === 403 || status === 401
      ? "; may these keys read and list the bucket, and is there a credential for this mirror?"
      : "";
  }
}

/** An answer of a store that is an error. */
export interface Refusal {
  readonly status: number;
  /** Where the bucket is by its own word (x-amz-bucket-region). */
  readonly region: string | undefined;
  /** The beginning of its body. */
  readonly body: string;
}
