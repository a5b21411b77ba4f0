import { X509Certificate } from "node:crypto";
import { access, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import { EnvHttpProxyAgent, type Dispatcher } from "undici";
import { PullError } from "../../core/errors.ts";
import type { MirrorCredential } from "../../core/settings/mirrors.ts";
import type { Settings } from "../../core/settings.ts";
import { addressScope, type AddressScope } from "./address-scope.ts";
import { connectorOf } from "./connector.ts";

/** No static file server sends longer response headers (undici's own default). */
const MAX_HEADER_BYTES = 16 * 1024;

/** Where NixOS and Debian keep the system's certificate authorities. */
const SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt";

/** Credentials of the agent's unit while it runs (systemd.exec(5)). */
const UNIT_CREDENTIALS = "/run/credentials/nixos-pull.service";

/** Paths of PEM files, or their contents. */
type TlsFiles = Partial<Record<"ca" | "cert" | "key", string>>;

/** Whom a connection is for. */
export interface Audience {
  /** With our client certificate: for servers as they are configured. */
  readonly identified: boolean;
  /**
   * Networks, beside the public one, into which the connection may lead; every one, if absent.
   * What a proxy connects to is the proxy's to decide.
   */
  readonly scopes?: ReadonlySet<AddressScope> | undefined;
}

/**
 * Connections to mirrors, by the proxies of HTTP_PROXY, HTTPS_PROXY and NO_PROXY and with the TLS
 * settings. There is one pool with our client certificate, for mirrors as configured, and there
 * are some without, for the servers to which they redirect: one for each choice of networks.
 */
export class Transport {
  readonly #limits: Settings["limits"];
  readonly #tls: Settings["tls"];
  #pools: Pools | null = null;
  /** Ends when no pools are being made. Requests that begin together wait for it and share them. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor({ limits, tls }: Pick<Settings, "limits" | "tls">) {
    this.#limits = limits;
    this.#tls = tls;
  }

  /**
   * The pool to use. Files are read again when they change: short-lived certificates
   * need no restart. Throws CREDENTIAL_UNREADABLE.
   */
  async dispatcher({ identified, scopes }: Audience): Promise<Dispatcher> {
    const turn = this.#queue.then(() => this.#current());
    this.#queue = turn.catch(() => undefined);
    const { dispatchers, identity, authorities } = await turn;
    const name = `${identified} ${scopes ? [...scopes].sort().join(" ") : "anywhere"}`;
    let dispatcher = dispatchers.get(name);
    if (!dispatcher) {
      const mirrorTls = identified ? { ...authorities, ...identity } : authorities;
      dispatcher = this.#dispatcher(mirrorTls, authorities, scopes);
      dispatchers.set(name, dispatcher);
    }
    return dispatcher;
  }

  /**
   * What a TLS connection to a server as it is configured takes: our authorities and our certificate.
   * Throws CREDENTIAL_UNREADABLE.
   */
  async tlsOptions(): Promise<{
    readonly ca?: string;
    readonly cert?: string;
    readonly key?: string;
  }> {
    const { authorities, identity } = await this.#current();
    return { ...authorities, ...identity };
  }

  /** Closes every connection at once. */
  async close(): Promise<void> {
    const pools = this.#pools;
    this.#pools = null;
    await Promise.all([...(pools?.dispatchers.values() ?? [])].map((it) => it.destroy()));
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
    this.#pools = { version, dispatchers: new Map(), identity, authorities };
    // Requests in progress are still answered; then the connections of the old certificate end.
    for (const dispatcher of before?.dispatchers.values() ?? []) {
      dispatcher.close().catch(() => undefined);
    }
    return this.#pools;
  }

  #dispatcher(
    mirrorTls: object,
    proxyTls: object,
    scopes: ReadonlySet<AddressScope> | undefined,
  ): Dispatcher {
    const { connectTimeout } = this.#limits;
    const common = {
      timeout: connectTimeout,
      // A proxy with two addresses: half of the time for the first one.
      autoSelectFamilyAttemptTimeout: Math.max(250, Math.floor(connectTimeout / 2)),
      // Set here, so that NODE_TLS_REJECT_UNAUTHORIZED in our environment has no effect.
      rejectUnauthorized: true,
    };
    return new EnvHttpProxyAgent({
      connect: connectorOf({
        timeoutMs: connectTimeout,
        tls: { rejectUnauthorized: true, ...mirrorTls },
        permits: scopes && ((address) => isWithin(address, scopes)),
      }),
      requestTls: { ...common, ...mirrorTls },
      // A proxy is not the mirror, and does not get our certificate.
      proxyTls: { ...common, ...proxyTls },
      headersTimeout: this.#limits.stallTimeout,
      // undici measures the time between two pieces of a body, not the time of the whole.
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
  /** Differs as soon as one of the files changes. */
  readonly version: string;
  /** What was made so far, by whom it is for. */
  readonly dispatchers: Map<string, Dispatcher>;
  readonly identity: { readonly cert?: string; readonly key?: string };
  readonly authorities: { readonly ca?: string };
}

/** Whether an address is public, or in one of these networks. */
export function isWithin(address: string, scopes: ReadonlySet<AddressScope>): boolean {
  const scope = addressScope(address);
  return scope === "public" || scopes.has(scope);
}

/** OpenSSL ignores authorities that it cannot read, and then refuses every certificate. */
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

/** The system's own authorities. If there are none, Node uses its built-in ones. */
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
 * The Authorization header of a credential (RFC 7617, RFC 6750). The file is read each time, and
 * the secret is used for nothing else. Throws CREDENTIAL_UNREADABLE, and CONFIG_INVALID for one
 * that is for buckets.
 */
export async function authorizationOf(credential: MirrorCredential): Promise<string> {
  if (credential.type !== "basic" && credential.type !== "bearer") {
    throw new PullError("CONFIG_INVALID", `expected basic or bearer, found ${credential.type}`);
  }
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

/** The file that a credential is read from. */
export function credentialPath({ file, credential }: MirrorCredential): string {
  if (file !== undefined) return file;
  // A command that a person runs as root finds the unit's credentials while the unit runs.
  return join(process.env["CREDENTIALS_DIRECTORY"] ?? UNIT_CREDENTIALS, credential ?? "");
}

/** The text of a file that holds a secret. Throws CREDENTIAL_UNREADABLE. */
export async function readSecret(path: string): Promise<string> {
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
      (isCredential ? "; expected that the unit loads it (LoadCredential=) and runs" : ""),
    { cause },
  );
}
