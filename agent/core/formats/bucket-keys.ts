import { PullError } from "../errors.ts";

/** Whom a store knows, and the secret by which requests are signed. Never in a message or log. */
export interface BucketKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Of keys that end by themselves. */
  readonly sessionToken?: string | undefined;
}

/** The names that a profile may give its keys. */
const FIELDS = new Map([
  ["aws_access_key_id", "accessKeyId"],
  ["aws_secret_access_key", "secretAccessKey"],
  ["aws_session_token", "sessionToken"],
] as const);

/**
 * The keys of one profile of a shared credentials file: lines `[PROFILE]` and `NAME = VALUE`,
 * comments after # or ;. A file that has keys and no profile at all has the keys of `default`.
 * Throws CREDENTIAL_UNREADABLE, which repeats nothing of the file.
 */
export function parseProfile(text: string, path: string, profile: string): BucketKeys {
  const found: Record<string, string> = {};
  let current = "default";
  let isThere = false;
  for (const line of text.split(/\r?\n/)) {
    const header = /^\s*\[\s*(?:profile\s+)?([^\]]*?)\s*\]/.exec(line);
    if (header) current = header[1] ?? "";
    const [, name = "", value = ""] = /^\s*([A-Za-z_]+)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    const field = FIELDS.get(name.toLowerCase() as Parameters<(typeof FIELDS)["get"]>[0]);
    if (current !== profile || field === undefined) continue;
    isThere = true;
    found[field] = value;
  }
  if (isThere) return keysFrom(found, `${path}, profile ${profile}`);
  throw new PullError(
    "CREDENTIAL_UNREADABLE",
    `${path}: expected a profile ${profile} with aws_access_key_id and aws_secret_access_key`,
  );
}

/** Keys as they can stand in headers. Throws CREDENTIAL_UNREADABLE, which repeats nothing of them. */
export function keysFrom(
  found: { readonly [Key in keyof BucketKeys]?: unknown },
  where: string,
): BucketKeys {
  const { accessKeyId, secretAccessKey, sessionToken } = found;
  if (isWord(accessKeyId) && isWord(secretAccessKey)) {
    if (sessionToken === undefined || sessionToken === "") return { accessKeyId, secretAccessKey };
    if (isWord(sessionToken)) return { accessKeyId, secretAccessKey, sessionToken };
  }
  throw new PullError(
    "CREDENTIAL_UNREADABLE",
    `${where}: expected an access key and its secret, in printable characters without spaces`,
  );
}

function isWord(value: unknown): value is string {
  return typeof value === "string" && /^[\x21-\x7e]{1,8192}$/.test(value);
}
