import * as z from "zod";
import { filePathSchema } from "./file-paths.ts";
import { parseUrl } from "../formats/web-address.ts";

/** Names as systemd's LoadCredential= takes them (systemd.exec(5)). */
const credentialNameSchema = z
  .string()
  .regex(/^[A-Za-z0-9_.:-]{1,100}$/, "expected a credential's name");

/** How this host identifies itself to one mirror. */
export const credentialSchema = z
  .strictObject({
    type: z.enum(["basic", "bearer"]).describe("basic: the secret is USER:PASSWORD."),
    file: filePathSchema.optional().describe("File that holds the secret, in one line."),
    credential: credentialNameSchema
      .optional()
      .describe("Name of a systemd credential that holds it, instead of a file."),
  })
  .refine(({ file, credential }) => (file === undefined) !== (credential === undefined), {
    error: "expected either a file or a credential",
  });
export type MirrorCredential = z.infer<typeof credentialSchema>;

/** Whether a secret may be sent to a mirror. Loopback is nobody else's network, so it needs no TLS. */
export function keepsSecrets(address: string): boolean {
  const url = parseUrl(address);
  return (
    url?.protocol === "https:" ||
    (url?.protocol === "http:" && /^(127\.[0-9.]+|\[::1\]|localhost)$/.test(url.hostname))
  );
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
