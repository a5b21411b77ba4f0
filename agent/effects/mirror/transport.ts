import { X509Certificate } from "node:crypto";
import { access, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import { EnvHttpProxyAgent, type Dispatcher } from "undici";
import { PullError } from "../../core/errors.ts";
import type { MirrorCredential, Settings } from "../../core/settings.ts";

/** Response headers longer than this are no static file server's (undici's own default). */
const MAX_HEADER_BYTES = 16 * 1024;

/** Where NixOS and Debian keep the system's certificate authorities. */
const SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt";

/** Where systemd keeps the credentials of the agent's unit while that runs (systemd.exec(5)). */
const UNIT_CREDENTIALS = "/run/credentials/nixos-pull.service";

/** Paths of PEM files, or what is in them. */
type TlsFiles = Partial<Record<"ca" | "cert" | "key", string>>;

/**
 * Connections to mirrors: proxies as HTTP_PROXY, HTTPS_PROXY and NO_PROXY say, TLS as
 * the settings say. There are two pools: one that shows our client certificate, for
 * mirrors as configured, and one that does not, for wherever they redirect to.
 */
export class Transport {
  readonly #limits: Settings["limits"];
  readonly #tls: Settings["tls"];
  #pools: Pools | null = null;
  /** Ends when nobody is making pools: requests that begin together share them. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor({ limits, tls }: Pick<Settings, "limits" | "tls">) {
    this.#limits = limits;
    this.#tls = tls;
  }

  /**
   * The pool to use. Files are read again when they change: short-lived certificates
   * need no restart. Throws CREDENTIAL_UNREADABLE.
   */
  async dispatcher(options: { identified: boolean }): Promise<Dispatcher> {
    const turn = this.#queue.then(() => this.#current());
    this.#queue = turn.catch(() => undefined);
    const { identified, anonymous } = await turn;
    return options.identified ? identified : anonymous;
  }

  /** Ends every connection. */
  async close(): Promise<void> {
    const pools = this.#pools;
    this.#pools = null;
    await Promise.all([pools?.identified.destroy(), pools?.anonymous.destroy()]);
  }

  async #current(): Promise<Pools> {
    const files = await this.#files();
    const version = await versionOf(Object.values(files));
    if (this.#pools?.version === version) return this.#pools;
    const { ca, cert, key } = await readAll(files);
    const authorities = ca === undefined ? {} : { ca };
    const identity = cert === undefined || key === undefined ? {} : { cert, key };
    checkPem({ files, ca, ...identity });
    const before = this.#pools;
    this.#pools = {
      version,
      identified: this.#pool({ ...authorities, ...identity }, authorities),
      anonymous: this.#pool(authorities, authorities),
    };
    // Requests under way are answered; then the connections of the old certificate end.
    for (const pool of [before?.identified, before?.anonymous]) {
      pool?.close().catch(() => undefined);
    }
    return this.#pools;
  }

  #pool(mirrorTls: object, proxyTls: object): Dispatcher {
    // Said here, so that NODE_TLS_REJECT_UNAUTHORIZED of whoever starts us has no effect.
    const common = { timeout: this.#limits.connectTimeout, rejectUnauthorized: true };
    return new EnvHttpProxyAgent({
      connect: { ...common, ...mirrorTls },
      requestTls: { ...common, ...mirrorTls },
      // A proxy is not the mirror: it does not see who we are.
      proxyTls: { ...common, ...proxyTls },
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

interface Pools {
  /** Changes with the files that they were made of. */
  readonly version: string;
  readonly identified: Dispatcher;
  readonly anonymous: Dispatcher;
}

/** OpenSSL passes over authorities that it cannot read, and then no certificate is right. */
function checkPem({
  files,
  ca,
  cert,
  key,
}: { readonly files: TlsFiles } & {
  readonly [Name in keyof TlsFiles]?: string | undefined;
}): void {
  const check = (path: string | undefined, parse: () => unknown): void => {
    try {
      parse();
    } catch (cause) {
      throw new PullError(
        "CREDENTIAL_UNREADABLE",
        `${path}: expected PEM, found something else: ${(cause as Error).message}`,
        { cause },
      );
    }
  };
  if (ca !== undefined) check(files.ca, () => new X509Certificate(ca));
  if (cert !== undefined && key !== undefined) {
    check(`${files.cert} and ${files.key}`, () => createSecureContext({ cert, key }));
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
  // A person who runs a command as root sees what the unit was given, while it runs.
  return join(process.env["CREDENTIALS_DIRECTORY"] ?? UNIT_CREDENTIALS, credential ?? "");
}

async function readSecret(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

function unreadable(path: string, cause: unknown): PullError {
  const isCredential = path.startsWith("/run/credentials/");
  return new PullError(
    "CREDENTIAL_UNREADABLE",
    (cause as Error).message +
      (isCredential ? "; the unit has to load it (LoadCredential=) and to run" : ""),
    { cause },
  );
}
