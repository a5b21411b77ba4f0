import { Agent, request } from "undici";
import { PullError, toPullError } from "../../core/errors.ts";
import { keysFrom, type BucketKeys } from "../../core/formats/bucket-keys.ts";
import { parseUrl } from "../../core/formats/web-address.ts";
import { readBounded } from "../files/bounded-read.ts";

/** Of the cloud's own machines ("Use the Instance Metadata Service", Amazon EC2 User Guide). */
const SERVICE = "http://169.254.169.254";

/** The whole exchange takes milliseconds on such a machine; elsewhere nobody answers. */
const LIMIT_MS = 5_000;

/** Keys are asked for again so long before they end. */
const MARGIN_MS = 5 * 60_000;

/** After a failure, keys that still hold are used so long before the service is asked again. */
const RETRY_MS = 30_000;

const TOKEN_SECONDS = 300;
const MAX_ANSWER_BYTES = 64 * 1024;
const ROLES = "latest/meta-data/iam/security-credentials/";

/** Keys and when they end, by `Date.now()`. */
interface Lease {
  readonly keys: BucketKeys;
  readonly askAgain: number;
  readonly end: number;
}

/**
 * The keys of the role that this machine has in its cloud (IMDSv2). They are kept until shortly
 * before they end. The service is asked straight: by no proxy, along no redirect, and only with a
 * token that it gives to who asks by PUT, so that nobody can be led to ask in our place.
 */
export class InstanceRole {
  #lease: Lease | null = null;
  #asking: Promise<Lease> | null = null;

  /** The keys that apply now. Throws CREDENTIAL_UNREADABLE if there are none. */
  async keys(): Promise<BucketKeys> {
    if (this.#lease && Date.now() < this.#lease.askAgain) return this.#lease.keys;
    // Requests that begin together ask once.
    this.#asking ??= askService().finally(() => {
      this.#asking = null;
    });
    try {
      this.#lease = await this.#asking;
    } catch (error) {
      if (!this.#lease || Date.now() >= this.#lease.end) throw error;
      this.#lease = { ...this.#lease, askAgain: Date.now() + RETRY_MS };
    }
    return this.#lease.keys;
  }
}

async function askService(): Promise<Lease> {
  const service = parseUrl(process.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] ?? SERVICE);
  const name = "the metadata service of this machine";
  if (service?.protocol !== "http:") {
    throw new PullError(
      "CREDENTIAL_UNREADABLE",
      "AWS_EC2_METADATA_SERVICE_ENDPOINT: expected an http:// address",
    );
  }
  const dispatcher = new Agent({ connect: { timeout: LIMIT_MS } });
  const signal = AbortSignal.timeout(LIMIT_MS);
  const ask = async (
    path: string,
    method: "GET" | "PUT",
    headers: Record<string, string>,
  ): Promise<string> => {
    const options = { method, headers, dispatcher, signal } as const;
    const { statusCode, body } = await request(new URL(path, service), options);
    const bytes = await readBounded(body as AsyncIterable<Buffer>, MAX_ANSWER_BYTES);
    if (statusCode === 200 && bytes) return bytes.toString().trim();
    throw new PullError(
      "CREDENTIAL_UNREADABLE",
      `${name}: expected HTTP 200 for ${path}, found ${statusCode}` +
        (statusCode === 404 ? "; has the machine a role?" : ""),
    );
  };
  try {
    const token = await ask("latest/api/token", "PUT", {
      "x-aws-ec2-metadata-token-ttl-seconds": `${TOKEN_SECONDS}`,
    });
    const authority = { "x-aws-ec2-metadata-token": token };
    const role = (await ask(ROLES, "GET", authority)).split("\n")[0] ?? "";
    const answer = await ask(ROLES + encodeURIComponent(role), "GET", authority);
    return leaseIn(answer, name);
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    if (code === "CREDENTIAL_UNREADABLE") throw thrown;
    throw new PullError(
      "CREDENTIAL_UNREADABLE",
      `${name}: expected the keys of its role within ${LIMIT_MS / 1000} s: ${message}`,
      { cause: thrown },
    );
  } finally {
    await dispatcher.destroy();
  }
}

/** The answer is not repeated: it has the keys. */
function leaseIn(answer: string, name: string): Lease {
  let found: Record<string, unknown>;
  try {
    found = JSON.parse(answer) as Record<string, unknown>;
  } catch {
    throw new PullError("CREDENTIAL_UNREADABLE", `${name}: expected JSON with the role's keys`);
  }
  const {
    AccessKeyId: accessKeyId,
    SecretAccessKey: secretAccessKey,
    Token: sessionToken,
    Expiration: expiration,
  } = found;
  const end = typeof expiration === "string" ? Date.parse(expiration) : NaN;
  if (Number.isNaN(end)) {
    throw new PullError("CREDENTIAL_UNREADABLE", `${name}: expected when the role's keys end`);
  }
  const keys = keysFrom({ accessKeyId, secretAccessKey, sessionToken }, name);
  // A clock that is wrong must not make every request ask again.
  return { keys, end, askAgain: Math.max(end - MARGIN_MS, Date.now() + RETRY_MS) };
}
