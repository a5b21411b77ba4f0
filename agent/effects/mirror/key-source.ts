import { homedir } from "node:os";
import { join } from "node:path";
import { keysFrom, parseProfile, type BucketKeys } from "../../core/formats/bucket-keys.ts";
import type { MirrorCredential } from "../../core/settings/mirrors.ts";
import { exists } from "../files/missing-file.ts";
import { InstanceRole } from "./instance-role.ts";
import { credentialPath, readSecret } from "./transport.ts";

/** Gives the keys that apply now, or null if requests are not signed. Throws CREDENTIAL_UNREADABLE. */
export type KeySource = () => Promise<BucketKeys | null>;

/**
 * Where the keys of a bucket come from: from its credential in the settings, or, if it has none,
 * from what this process was given: AWS_ACCESS_KEY_ID and its companions, else the shared
 * credentials file. If nothing of that is there, the last resort is `instance`: the keys of the
 * machine's role; else requests are not signed, as for a public bucket. Files are read each time.
 */
export function keySourceOf(
  credential: MirrorCredential | undefined,
  { instance = false }: { readonly instance?: boolean } = {},
): KeySource {
  if (credential?.type === "instance-role") return roleKeys();
  if (credential) {
    const path = credentialPath(credential);
    return async () => parseProfile(await readSecret(path), path, credential.profile ?? "default");
  }
  const role =
    instance && process.env["AWS_EC2_METADATA_DISABLED"] !== "true" ? roleKeys() : undefined;
  return async () => variableKeys() ?? (await sharedKeys()) ?? (await role?.()) ?? null;
}

function roleKeys(): KeySource {
  const role = new InstanceRole();
  return () => role.keys();
}

function variableKeys(): BucketKeys | null {
  const accessKeyId = variable("AWS_ACCESS_KEY_ID");
  const secretAccessKey = variable("AWS_SECRET_ACCESS_KEY");
  if (accessKeyId === undefined && secretAccessKey === undefined) return null;
  return keysFrom(
    { accessKeyId, secretAccessKey, sessionToken: variable("AWS_SESSION_TOKEN") },
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
  );
}

/** The keys of the shared credentials file, or null if nobody named one and there is none. */
async function sharedKeys(): Promise<BucketKeys | null> {
  const named = variable("AWS_SHARED_CREDENTIALS_FILE");
  const profile = variable("AWS_PROFILE");
  const path = named ?? join(homedir(), ".aws/credentials");
  const isMeant = named !== undefined || profile !== undefined;
  if (!isMeant && !(await exists(path).catch(() => false))) return null;
  return parseProfile(await readSecret(path), path, profile ?? "default");
}

/** A variable of the environment; an empty one counts as absent, as for AWS's own programs. */
function variable(name: string): string | undefined {
  const value = process.env[name];
  return value === "" ? undefined : value;
}
