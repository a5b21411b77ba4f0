import { request } from "undici";
import { PullError, toPullError } from "../core/errors.ts";
import { MAX_HOSTS, hostnameSchema } from "../core/formats/manifest.ts";
import {
  MIRROR_ADDRESS_RULE,
  looksLikeAddress,
  directoryOf,
  parseMirrorAddress,
} from "../core/formats/mirror-address.ts";
import { MAX_REPORT_BYTES } from "../core/formats/report.ts";
import type { MirrorCredential } from "../core/settings/mirrors.ts";
import { readBounded } from "../effects/files/bounded-read.ts";
import { RootDirectory } from "../effects/files/root-directory.ts";
import { networkError } from "../effects/mirror/http-mirror.ts";
import { authorizationOf, type Transport } from "../effects/mirror/transport.ts";
import { parallelMap } from "../effects/process/parallel-map.ts";

/** What a place holds in a host's name: bytes that anybody may have written, or why not. */
export type FoundReport = { readonly hostname: string } & (
  { readonly bytes: Buffer } | { readonly unreadable: string }
);

/** How a web server is talked to. */
export interface ReportAccess {
  readonly transport: Transport;
  /** Sent to the place, but never to where it redirects, since redirects are not followed. */
  readonly credential?: MirrorCredential | undefined;
}

const GET_TIMEOUT_MS = 30_000;
/** Requests, or open files, at a time. */
const AT_ONCE = 8;

/**
 * Reads every report of a place. A place is a directory of `HOST.json` files, a directory with
 * such a directory `reports` in it, or an address as in the setting `reports.url`. A web server
 * has no list of its reports, so it is asked for those of `hostnames`. A directory may come from
 * somebody else: no link in it is followed. Throws USAGE, MIRROR_ABSENT if there is no such
 * directory, REPORT_INVALID, and the errors of the network.
 */
export async function readReportSource(
  place: string,
  hostnames: ReadonlySet<string>,
  access: ReportAccess,
  signal?: AbortSignal,
): Promise<FoundReport[]> {
  const address = parseMirrorAddress(place);
  if (!address && looksLikeAddress(place)) {
    // The place is not repeated: it may have a password in it.
    throw new PullError("USAGE", `expected a directory with reports, or ${MIRROR_ADDRESS_RULE}`);
  }
  if (address?.kind === "bucket") {
    throw new PullError("USAGE", "expected a directory or a web server with reports, not a bucket");
  }
  if (address?.kind === "web") return readAddress(address.url, hostnames, access, signal);
  return readDirectory((address && directoryOf(address)) ?? place);
}

async function readDirectory(place: string): Promise<FoundReport[]> {
  const root = new RootDirectory(place);
  if (!(await isDirectory(root))) {
    throw new PullError(
      "MIRROR_ABSENT",
      `${place}: expected a directory with reports, found none; \`nixos-pull verify FILE\` shows ` +
        "a single report",
    );
  }
  const directory = (await root.stat("reports")) ? "reports" : "";
  return root.within(directory, async (reports) => {
    const hostnames = (await reports.list("")).flatMap(({ name }) => {
      const hostname = name.endsWith(".json") ? name.slice(0, -".json".length) : "";
      return hostnameSchema.safeParse(hostname).success ? [hostname] : [];
    });
    if (hostnames.length > MAX_HOSTS) {
      throw new PullError(
        "REPORT_INVALID",
        `${reports.path}: expected at most ${MAX_HOSTS} reports, found ${hostnames.length}`,
      );
    }
    const read = (hostname: string): Promise<FoundReport> => readReportFile(hostname, reports);
    return parallelMap(hostnames.sort(), read, { atOnce: AT_ONCE });
  });
}

async function isDirectory(root: RootDirectory): Promise<boolean> {
  try {
    return (await root.stat("")) !== null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOTDIR") return false;
    throw error;
  }
}

async function readReportFile(hostname: string, reports: RootDirectory): Promise<FoundReport> {
  try {
    return { hostname, bytes: await reports.readFile(`${hostname}.json`, MAX_REPORT_BYTES) };
  } catch (error) {
    return { hostname, unreadable: toPullError(error).message };
  }
}

async function readAddress(
  url: URL,
  hostnames: ReadonlySet<string>,
  access: ReportAccess,
  signal: AbortSignal | undefined,
): Promise<FoundReport[]> {
  const base = new URL(url.href.endsWith("/") ? url : `${url.href}/`);
  const found = await parallelMap(
    [...hostnames].sort(),
    (hostname) => get(hostname, new URL(`${hostname}.json`, base), access, signal),
    { atOnce: AT_ONCE },
  );
  return found.flatMap((it) => it ?? []);
}

/** One report, or null if the server has none. Throws if there is no server. */
async function get(
  hostname: string,
  url: URL,
  { transport, credential }: ReportAccess,
  signal: AbortSignal | undefined,
): Promise<FoundReport | null> {
  const timeout = AbortSignal.timeout(GET_TIMEOUT_MS);
  const secret = credential ? { authorization: await authorizationOf(credential) } : {};
  try {
    const { statusCode, body } = await request(url, {
      headers: { ...secret, "user-agent": "nixos-pull", "accept-encoding": "identity" },
      dispatcher: await transport.dispatcher({ identified: true }),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    const bytes = await readBounded(body as AsyncIterable<Buffer>, MAX_REPORT_BYTES);
    if (statusCode === 404 || statusCode === 410) return null;
    if (statusCode !== 200) {
      return { hostname, unreadable: `${url.href}: expected HTTP 200, found ${statusCode}` };
    }
    if (bytes !== null) return { hostname, bytes };
    return {
      hostname,
      unreadable: `${url.href}: expected at most ${MAX_REPORT_BYTES} bytes, found more`,
    };
  } catch (cause) {
    throw networkError(url, cause, signal);
  }
}
