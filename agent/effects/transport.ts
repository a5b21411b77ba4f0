import { access, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { EnvHttpProxyAgent, type Dispatcher } from "undici";
import { PullError } from "../core/errors.ts";
import type { MirrorCredential, Settings } from "../core/settings.ts";

/** Response headers longer than this are no static file server's (undici's own default). */
const MAX_HEADER_BYTES = 16 * 1024;

/** Where NixOS and Debian keep the system's certificate authorities. */
const SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt";

/** Authorities that must be readable because somebody named them. */
type TlsFiles = Partial<Record<"ca" | "cert" | "key", string>>;

/**
 * Connections to mirrors: proxies as HTTP_PROXY, HTTPS_PROXY and NO_PROXY say, TLS as
 * the settings say. There are two pools: one that shows our client certificate, for
 * mirrors as configured, and one that does not, for wherever they redirect to.
 */
export class Transport {
  readonly #limits: Settings["limits"];
  readonly #tls: Settings["tls"];
  #made: { version: string; identified: Dispatcher; anonymous: Dispatcher } | null = null;

  constructor({ limits, tls }: Pick<Settings, "limits" | "tls">) {
    this.#limits = limits;
    this.#tls = tls;
  }

  /**
   * The pool to use. Files are read again when they change: short-lived certificates
   * need no restart. Throws CREDENTIAL_UNREADABLE.
   */
  async dispatcher(options: { identified: boolean }): Promise<Dispatcher> {
    const files = await this.#files();
    const version = await versionOf(Object.values(files));
    if (this.#made?.version !== version) {
      const { ca, cert, key } = await readAll(files);
      const authorities = ca === undefined ? {} : { ca };
      const identity = cert === undefined || key === undefined ? {} : { cert, key };
      this.#made = {
        version,
        identified: this.#pool({ ...authorities, ...identity }, authorities),
        anonymous: this.#pool(authorities, authorities),
      };
    }
    return options.identified ? this.#made.identified : this.#made.anonymous;
  }

  #pool(mirrorTls: object, proxyTls: object): Dispatcher {
    const timeout = this.#limits.connectTimeout;
    return new EnvHttpProxyAgent({
      connect: { timeout, ...mirrorTls },
      requestTls: { timeout, ...mirrorTls },
      // A proxy is not the mirror: it does not see who we are.
      proxyTls: { timeout, ...proxyTls },
      headersTimeout: this.#limits.stallTimeout,
      // undici measures the time between two pieces of a body, not the whole.
      bodyTimeout: this.#limits.stallTimeout,
      maxHeaderSize: MAX_HEADER_BYTES,
    });
  }

  async #files(): Promise<TlsFiles> {
    const { caFile, certFile, keyFile } = this.#tls;
    const ca = caFile ?? (await systemAuthorities());
    return {
      ...(ca !== undefined && { ca }),
      ...(certFile !== undefined && { cert: certFile }),
      ...(keyFile !== undefined && { key: keyFile }),
    };
  }
}

/** The system's own authorities; without any, Node's built-in ones are used. */
async function systemAuthorities(): Promise<string | undefined> {
  const named = process.env["NIX_SSL_CERT_FILE"] ?? process.env["SSL_CERT_FILE"];
  for (const path of [named, SYSTEM_AUTHORITIES]) {
    if (path === undefined) continue;
    const readable = await access(path).then(
      () => true,
      () => false,
    );
    if (readable) return path;
  }
  return undefined;
}

async function versionOf(paths: readonly string[]): Promise<string> {
  const versions = await Promise.all(
    paths.map(async (path) => {
      const { ino, mtimeMs, size } = await stat(path).catch((cause: unknown) => {
        throw unreadable(path, cause);
      });
      return `${path} ${ino} ${mtimeMs} ${size}`;
    }),
  );
  return versions.join("\n");
}

async function readAll(files: TlsFiles): Promise<TlsFiles> {
  const entries = await Promise.all(
    Object.entries(files).map(async ([name, path]) => [name, await readSecret(path)] as const),
  );
  return Object.fromEntries(entries);
}

/**
 * The Authorization header of a credential (RFC 7617, RFC 6750), read anew each time.
 * The secret goes nowhere else. Throws CREDENTIAL_UNREADABLE.
 */
export async function authorizationOf(credential: MirrorCredential): Promise<string> {
  const secret = (await readSecret(credentialPath(credential))).trim();
  if (secret === "" || /[^\x20-\x7e]/.test(secret)) {
    throw new PullError(
      "CREDENTIAL_UNREADABLE",
      `${credentialPath(credential)}: expected one line of printable characters`,
    );
  }
  return credential.type === "bearer"
    ? `Bearer ${secret}`
    : `Basic ${Buffer.from(secret).toString("base64")}`;
}

function credentialPath({ file, credential }: MirrorCredential): string {
  if (file !== undefined) return file;
  const directory = process.env["CREDENTIALS_DIRECTORY"];
  if (directory === undefined || credential === undefined) {
    throw new PullError(
      "CREDENTIAL_UNREADABLE",
      `expected systemd's CREDENTIALS_DIRECTORY for the credential ${credential}; ` +
        "the unit has to load it (LoadCredential=)",
    );
  }
  return join(directory, credential);
}

async function readSecret(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

function unreadable(path: string, cause: unknown): PullError {
  return new PullError("CREDENTIAL_UNREADABLE", `${path}: ${(cause as Error).message}`, { cause });
}
