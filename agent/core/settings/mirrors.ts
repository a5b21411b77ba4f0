import * as z from "zod";
import { filePathSchema } from "./file-paths.ts";
import { bucketUrl } from "../formats/bucket-address.ts";
import { parseMirrorAddress } from "../formats/mirror-address.ts";

/** Names as systemd's LoadCredential= takes them (systemd.exec(5)). */
const credentialNameSchema = z
  .string()
  .regex(/^[A-Za-z0-9_.:-]{1,100}$/, "expected a credential's name");

/** Profiles of a shared credentials file: what stands between its brackets. */
const profileSchema = z.string().regex(/^[A-Za-z0-9_.:@/-]{1,100}$/, "expected a profile's name");

/** How this host identifies itself to one mirror. */
export const credentialSchema = z
  .strictObject({
    type: z
      .enum(["basic", "bearer", "s3", "instance-role"])
      .describe(
        "basic: the secret is USER:PASSWORD, in one line. bearer: it is a token. s3: keys for a bucket, in the form of AWS's shared credentials file. instance-role: keys for a bucket, from the metadata service of the cloud's machine (IMDSv2); it has no file.",
      ),
    file: filePathSchema.optional().describe("File that holds the secret."),
    credential: credentialNameSchema
      .optional()
      .describe("Name of a systemd credential that holds it, instead of a file."),
    profile: profileSchema
      .optional()
      .describe("Of s3: which profile of the file has the keys; default if absent."),
  })
  .refine(({ type, profile }) => profile === undefined || type === "s3", {
    error: "expected a profile only with the type s3",
  })
  .refine(
    ({ type, file, credential }) =>
      [file, credential].filter((it) => it !== undefined).length ===
      (type === "instance-role" ? 0 : 1),
    { error: "expected either a file or a credential, and neither with the type instance-role" },
  );
export type MirrorCredential = z.infer<typeof credentialSchema>;

/** Whether a secret may be sent to a mirror. Loopback is nobody else's network, so it needs no TLS. */
export function keepsSecrets(address: string): boolean {
  const parsed = parseMirrorAddress(address);
  if (parsed?.kind === "bucket") return isPrivate(bucketUrl(parsed.bucket));
  return parsed?.kind === "web" && isPrivate(parsed.url);
}

/** Whether nobody on the way to a server can read what is sent. */
export function isPrivate({ protocol, hostname }: URL): boolean {
  return (
    protocol === "https:" ||
    (protocol === "http:" && /^(127\.[0-9.]+|\[::1\]|localhost)$/.test(hostname))
  );
}

/** Whether a mirror of this address can be told a credential of this type. */
export function fitsMirror(address: string, { type }: MirrorCredential): boolean {
  const isOfBucket = type === "s3" || type === "instance-role";
  return (parseMirrorAddress(address)?.kind === "bucket") === isOfBucket;
}

/** `tls`: how this host talks TLS to mirrors. */
export const tlsSchema = z
  .strictObject({
    caFile: filePathSchema
      .optional()
      .describe("Certificate authorities for mirrors, PEM; the system's if absent."),
    certFile: filePathSchema
      .optional()
      .describe("Client certificate for mirrors and for the server that reports go to, PEM."),
    keyFile: filePathSchema.optional().describe("Its private key, PEM."),
  })
  .refine(({ certFile, keyFile }) => (certFile === undefined) === (keyFile === undefined), {
    error: "expected certFile and keyFile together",
  })
  .prefault({})
  .describe("TLS to mirrors.");
