import { PullError } from "../errors.ts";
import { adviceFor } from "./advice.ts";
import { about, type CheckResult } from "./result.ts";

/** One step of the way to a server: what it gave, why it failed, or that nobody got to it. */
export type Step<T> =
  | { readonly kind: "done"; readonly value: T; readonly ms: number }
  | { readonly kind: "failed"; readonly error: PullError }
  | { readonly kind: "skipped" };

/** The certificate that a server showed. */
export interface ServerCertificate {
  readonly subject: string;
  readonly issuer: string;
  /** Names that it is for, as OpenSSL writes them. */
  readonly names: string;
  readonly validFrom: Date;
  readonly validTo: Date;
  /** Why it is not believed, in OpenSSL's or Node's code; null if it is. */
  readonly refusal: string | null;
}

/** What a server answered to a request for a file. */
export interface ServerAnswer {
  readonly status: number;
  /** Its own time (RFC 9110, 6.6.1). */
  readonly date: Date | null;
}

/** The way to a server, step by step. */
export interface Route {
  /** The proxy that leads there; null if none does. */
  readonly proxy: string | null;
  /** The addresses of the server's name, or of the proxy's. */
  readonly name: Step<readonly string[]>;
  /** The address that accepted a connection. */
  readonly connection: Step<string>;
  /** Skipped also if the address is no https, or a proxy leads there. */
  readonly certificate: Step<ServerCertificate>;
  readonly answer: Step<ServerAnswer>;
}

/** A server that takes longer than this to begin its answer is in trouble. */
const SLOW_MS = 10_000;

/** What the way to a mirror shows. */
export function judgeRoute(mirror: string, route: Route, now: Date): CheckResult[] {
  return [
    judgeName(mirror, route),
    judgeConnection(mirror, route),
    ...(mirror.startsWith("https:") ? [judgeCertificate(mirror, route, now)] : []),
    judgeAnswer(mirror, route),
  ];
}

/** The first two steps lead to the server or to a proxy. */
function through({ proxy }: Route): string {
  return proxy === null ? "" : `, of the proxy ${proxy}`;
}

function judgeName(mirror: string, route: Route): CheckResult {
  const { name } = route;
  const it = about("mirror.name", mirror);
  switch (name.kind) {
    case "done":
      return it.passed(name.value.join(", ") + through(route));
    case "failed":
      return it.failed(
        name.error.message,
        "look at the name in the setting mirrors and at the host's name servers " +
          "(`resolvectl query NAME`)",
        name.error.code,
      );
    case "skipped":
      return it.untried("the address could not be read");
    default:
      return name satisfies never;
  }
}

function judgeConnection(mirror: string, route: Route): CheckResult {
  const { connection } = route;
  const it = about("mirror.connection", mirror);
  switch (connection.kind) {
    case "done":
      return it.passed(`${connection.value}, in ${connection.ms} ms${through(route)}`);
    case "failed":
      return it.failed(
        connection.error.message,
        route.proxy === null
          ? "see whether the server runs, and whether a firewall is between; a site without direct " +
              "access needs networking.proxy"
          : "see whether the proxy runs (HTTP_PROXY, HTTPS_PROXY, NO_PROXY of the agent's unit)",
        connection.error.code,
      );
    case "skipped":
      return it.untried("there was no address to connect to");
    default:
      return connection satisfies never;
  }
}

function judgeCertificate(mirror: string, route: Route, now: Date): CheckResult {
  const { certificate, answer, proxy } = route;
  const it = about("mirror.tls", mirror);
  switch (certificate.kind) {
    case "done":
      return judgeShown(it, certificate.value, now);
    case "failed": {
      const { code, message } = certificate.error;
      return it.failed(message, "see whether the server talks TLS at this port", code);
    }
    case "skipped":
      if (proxy === null) return it.untried("there was no connection");
      if (answer.kind === "done") return it.passed(`accepted, through the proxy ${proxy}`);
      if (answer.kind === "failed" && answer.error.code === "MIRROR_TLS") {
        return it.failed(answer.error.message, TRUST_ADVICE, "MIRROR_TLS");
      }
      return it.untried("the proxy gave no connection");
    default:
      return certificate satisfies never;
  }
}

const TRUST_ADVICE =
  "set tls.caFile to the authority of this server, or give the server a certificate of a public one " +
  "with all its intermediates";

function judgeShown(
  it: ReturnType<typeof about>,
  { subject, issuer, names, validFrom, validTo, refusal }: ServerCertificate,
  now: Date,
): CheckResult {
  const whose = `the certificate of ${subject} by ${issuer}`;
  const clock = `this host's clock says ${now.toISOString()}`;
  switch (refusal) {
    case null:
      return it.passed(`${whose}, valid until ${validTo.toISOString()}`);
    case "CERT_HAS_EXPIRED":
      return it.failed(
        `${whose} expired at ${validTo.toISOString()}; ${clock}`,
        "renew the server's certificate, unless the clock is wrong",
        "MIRROR_TLS",
      );
    case "CERT_NOT_YET_VALID":
      return it.failed(
        `${whose} is valid from ${validFrom.toISOString()}; ${clock}`,
        "set the clock (`timedatectl`), unless the certificate is wrong",
        "MIRROR_TLS",
      );
    case "ERR_TLS_CERT_ALTNAME_INVALID":
      return it.failed(
        `${whose} is for ${names === "" ? "no name" : names}`,
        "correct the name in the setting mirrors, or give the server a certificate for its name",
        "MIRROR_TLS",
      );
    default:
      return it.failed(`${whose} is not trusted: ${refusal}`, TRUST_ADVICE, "MIRROR_TLS");
  }
}

function judgeAnswer(mirror: string, { answer }: Route): CheckResult {
  const it = about("mirror.answer", mirror);
  switch (answer.kind) {
    case "skipped":
      return it.untried("there was no connection that may be used");
    case "failed": {
      const { code, message } = answer.error;
      return it.failed(message, adviceFor(code), code);
    }
    case "done":
      break;
    default:
      return answer satisfies never;
  }
  const { status } = answer.value;
  const found = `HTTP ${status} after ${answer.ms} ms`;
  if (status === 401 || status === 403) {
    return it.failed(
      found,
      "give this host the right credentials for this mirror (the settings credentials and tls)",
      "MIRROR_STATUS",
    );
  }
  if (status === 407) {
    return it.failed(found, "give the proxy's user and password in HTTPS_PROXY", "MIRROR_STATUS");
  }
  if (status >= 500) {
    return it.failed(found, "look at the server's log", "MIRROR_STATUS");
  }
  if (answer.ms > SLOW_MS) {
    return it.failed(found, adviceFor("MIRROR_SLOW"), "MIRROR_SLOW");
  }
  return it.passed(found);
}

/** What the way to the server that takes reports shows. Nothing was sent there. */
export function judgeReportServer(url: string, route: Route): CheckResult {
  const it = about("reports.url", url);
  const { name, connection, certificate, answer } = route;
  for (const step of [name, connection, certificate, answer]) {
    if (step.kind !== "failed") continue;
    return it.failed(step.error.message, adviceFor(step.error.code), step.error.code);
  }
  if (certificate.kind === "done" && certificate.value.refusal !== null) {
    const { refusal } = certificate.value;
    return it.failed(`its certificate is refused: ${refusal}`, TRUST_ADVICE, "MIRROR_TLS");
  }
  if (answer.kind !== "done") return it.untried("the server did not answer");
  const { status } = answer.value;
  // A server that only takes files may refuse to show them.
  if (status === 401 || status === 403 || status >= 500) {
    const advice = "look at the server's log, and at the credentials for its origin";
    return it.failed(`HTTP ${status} to a GET`, advice, "MIRROR_STATUS");
  }
  return it.passed(`it answers (HTTP ${status} to a GET; nothing was sent)`);
}
