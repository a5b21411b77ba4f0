import { lookup } from "node:dns/promises";
import { isIP, type Socket } from "node:net";
import { connect as connectTls, type PeerCertificate, type TLSSocket } from "node:tls";
import { request } from "undici";
import type { Route, ServerAnswer, ServerCertificate, Step } from "../../core/doctor/route.ts";
import { PullError } from "../../core/errors.ts";
import { firstToConnect, type Address } from "./connector.ts";
import { networkError } from "./http-mirror.ts";
import { proxyFor } from "./proxy.ts";
import type { Transport } from "./transport.ts";

/** How the way to a server is walked. */
export interface RouteOptions {
  readonly transport: Transport;
  /** The headers by which the server knows us. Throws CREDENTIAL_UNREADABLE. */
  readonly identify: (url: URL) => Promise<Record<string, string>>;
  /** Time for each step, milliseconds. */
  readonly stepMs: number;
  readonly signal: AbortSignal;
}

const SKIPPED = { kind: "skipped" } as const;

/**
 * Walks to a server step by step, as a request does, and says what each step gave: the name, a
 * connection, the certificate, and the answer to a GET whose body is not read. What is wrong is in the
 * steps; it throws nothing.
 */
export async function walkTo(url: URL, options: RouteOptions): Promise<Route> {
  const proxy = proxyFor(url);
  const target = proxy ?? url;
  const addresses = await step(url, options, () =>
    lookup(bare(target.hostname), { all: true, family: 0 }),
  );
  const steps = { name: named(addresses), connection: SKIPPED, certificate: SKIPPED };
  const route = { proxy: proxy?.host ?? null, ...steps, answer: SKIPPED };
  if (addresses.kind !== "done") return route;
  const { connection, certificate } = await connectStep(url, target, addresses.value, options);
  if (connection.kind !== "done") return { ...route, connection };
  // An answer over a connection that the agent would refuse says nothing.
  const usable =
    certificate.kind === "skipped" ||
    (certificate.kind === "done" && certificate.value.refusal === null);
  const answer: Step<ServerAnswer> = usable ? await askStep(url, options) : SKIPPED;
  return { ...route, connection, certificate, answer };
}

function named(addresses: Step<readonly Address[]>): Step<readonly string[]> {
  if (addresses.kind !== "done") return addresses;
  return { ...addresses, value: addresses.value.map(({ address }) => address) };
}

/** Connects to the server or the proxy, and looks at the certificate if it is the server's own. */
async function connectStep(
  url: URL,
  target: URL,
  addresses: readonly Address[],
  options: RouteOptions,
): Promise<Pick<Route, "connection" | "certificate">> {
  const port = Number(target.port || (target.protocol === "https:" ? 443 : 80));
  const socket = await step(url, options, (signal) => firstToConnect(addresses, port, signal));
  if (socket.kind !== "done") return { connection: socket, certificate: SKIPPED };
  try {
    const connection = { ...socket, value: socket.value.remoteAddress ?? "" };
    const isOwn = target === url && url.protocol === "https:";
    const certificate = isOwn ? await certificateStep(url, socket.value, options) : SKIPPED;
    return { connection, certificate };
  } finally {
    socket.value.destroy();
  }
}

async function certificateStep(
  url: URL,
  socket: Socket,
  options: RouteOptions,
): Promise<Step<ServerCertificate>> {
  return step(url, options, async (signal) => {
    const host = bare(url.hostname);
    const secure = connectTls({
      ...(await options.transport.tlsOptions()),
      ...{ socket, host, ...(isIP(host) === 0 && { servername: host }) },
      // What is wrong with the certificate is what we want to know; nothing is sent over this connection.
      rejectUnauthorized: false,
    });
    try {
      await new Promise<void>((resolve, reject) => {
        secure.once("secureConnect", resolve).once("error", reject);
        signal.addEventListener("abort", () => {
          reject(signal.reason as Error);
        });
      });
      return certificateOf(secure);
    } finally {
      secure.on("error", () => undefined).destroy();
    }
  });
}

function certificateOf(secure: TLSSocket): ServerCertificate {
  const found: Partial<PeerCertificate> = secure.getPeerCertificate();
  // Node gives a code in text, whatever its types say.
  const refusal: unknown = secure.authorizationError;
  return {
    subject: nameIn(found.subject),
    issuer: nameIn(found.issuer),
    names: found.subjectaltname ?? "",
    validFrom: new Date(found.valid_from ?? NaN),
    validTo: new Date(found.valid_to ?? NaN),
    refusal:
      refusal instanceof Error ? refusal.message : typeof refusal === "string" ? refusal : null,
  };
}

function nameIn(names: Partial<PeerCertificate["subject"]> | undefined): string {
  const first = [names?.CN, names?.O].flat().find((it) => it !== undefined);
  return first ?? "nobody";
}

async function askStep(url: URL, options: RouteOptions): Promise<Step<ServerAnswer>> {
  const { transport, identify } = options;
  return step(url, options, async (signal) => {
    const secret = await identify(url);
    const { statusCode, headers, body } = await request(url, {
      method: "GET",
      headers: { ...secret, "accept-encoding": "identity", "user-agent": "nixos-pull" },
      dispatcher: await transport.dispatcher({ identified: true }),
      signal,
    });
    body.on("error", () => undefined).destroy();
    const date = Date.parse(String(headers["date"] ?? ""));
    return { status: statusCode, date: Number.isNaN(date) ? null : new Date(date) };
  });
}

/** Does one step in its time, and says how it went. */
async function step<T>(
  url: URL,
  { stepMs, signal }: RouteOptions,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<Step<T>> {
  const late = AbortSignal.timeout(stepMs);
  const either = AbortSignal.any([signal, late]);
  const begun = performance.now();
  try {
    const value = await Promise.race([work(either), abortOf(either)]);
    return { kind: "done", value, ms: Math.round(performance.now() - begun) };
  } catch (thrown) {
    if (late.aborted && !signal.aborted) {
      const message = `${url.href}: expected it within ${stepMs / 1000} s`;
      return { kind: "failed", error: new PullError("MIRROR_STALLED", message, { cause: thrown }) };
    }
    return { kind: "failed", error: networkError(url, thrown, signal) };
  }
}

function abortOf(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => {
      reject(signal.reason as Error);
    });
    if (signal.aborted) reject(signal.reason as Error);
  });
}

/** The address of a URL's host as `net` writes it. */
function bare(hostname: string): string {
  return hostname.replace(/^\[(.*)\]$/, "$1");
}
