import { constants } from "node:fs";
import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { request } from "undici";
import { PullError, toPullError } from "../core/errors.ts";
import { MAX_HOSTS, hostnameSchema } from "../core/formats/manifest.ts";
import { MAX_REPORT_BYTES } from "../core/formats/report.ts";
import type { MirrorCredential } from "../core/settings.ts";
import { networkError } from "../effects/mirror/http-mirror.ts";
import { authorizationOf, type Transport } from "../effects/mirror/transport.ts";

/** What a place holds in a host's name: bytes that anybody may have written, or why not. */
export type FoundReport = { readonly host: string } & (
  { readonly bytes: Buffer } | { readonly unreadable: string }
);

/** How a web server is talked to. */
export interface ReportAccess {
  readonly transport: Transport;
  /** Who we are to the place; never to where it redirects, which is not followed. */
  readonly credential?: MirrorCredential | undefined;
}

const GET_TIMEOUT_MS = 30_000;
/** Requests at a time. */
const PARALLEL = 8;

/**
 * Reads every report of a place: a directory of `HOST.json` files, or one with such a
 * directory `reports` in it, or an address as in the setting `reports.url`. A web server
 * tells nobody what it has, so there `hosts` are asked for by name. Throws where the place
 * itself cannot be read.
 */
export async function readReportSource(
  place: string,
  hosts: ReadonlySet<string>,
  access: ReportAccess,
  signal?: AbortSignal,
): Promise<FoundReport[]> {
  if (/^https?:\/\//.test(place)) return readAddress(place, hosts, access, signal);
  return readDirectory(place.startsWith("file://") ? fileURLToPath(place) : place);
}

async function readDirectory(place: string): Promise<FoundReport[]> {
  const below = join(place, "reports");
  const isThere = await stat(below).then(
    (found) => found.isDirectory(),
    () => false,
  );
  const directory = isThere ? below : place;
  const hosts = (await readdir(directory)).flatMap((name) => {
    const host = name.endsWith(".json") ? name.slice(0, -".json".length) : "";
    return hostnameSchema.safeParse(host).success ? [host] : [];
  });
  if (hosts.length > MAX_HOSTS) {
    throw new PullError(
      "REPORT_INVALID",
      `${directory}: expected at most ${MAX_HOSTS} reports, found ${hosts.length}`,
    );
  }
  return eachOf(hosts.sort(), (host) => readReportFile(host, join(directory, `${host}.json`)));
}

async function readReportFile(host: string, path: string): Promise<FoundReport> {
  try {
    // A link could lead to any file, and a FIFO would be waited for.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const file = await open(path, flags);
    try {
      if (!(await file.stat()).isFile()) return { host, unreadable: `${path} is no regular file` };
      const buffer = Buffer.alloc(MAX_REPORT_BYTES + 1);
      let size = 0;
      for (;;) {
        const { bytesRead } = await file.read(buffer, size, buffer.length - size, size);
        size += bytesRead;
        if (bytesRead === 0 || size === buffer.length) break;
      }
      return bounded(host, path, buffer.subarray(0, size));
    } finally {
      await file.close();
    }
  } catch (error) {
    return { host, unreadable: toPullError(error).message };
  }
}

async function readAddress(
  address: string,
  hosts: ReadonlySet<string>,
  access: ReportAccess,
  signal: AbortSignal | undefined,
): Promise<FoundReport[]> {
  const base = new URL(address.endsWith("/") ? address : `${address}/`);
  const found = await eachOf([...hosts].sort(), (host) =>
    get(host, new URL(`${host}.json`, base), access, signal),
  );
  return found.flatMap((it) => it ?? []);
}

/** One report, or null where the server has none. Throws where there is no server. */
async function get(
  host: string,
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
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > MAX_REPORT_BYTES) break;
      chunks.push(chunk);
    }
    if (statusCode === 404 || statusCode === 410) return null;
    if (statusCode !== 200) {
      return { host, unreadable: `${url.href}: expected HTTP 200, found ${statusCode}` };
    }
    if (size > MAX_REPORT_BYTES) return tooLong(host, url.href);
    return { host, bytes: Buffer.concat(chunks) };
  } catch (cause) {
    throw networkError(url, cause, signal);
  }
}

function bounded(host: string, where: string, bytes: Buffer): FoundReport {
  return bytes.length > MAX_REPORT_BYTES ? tooLong(host, where) : { host, bytes };
}

function tooLong(host: string, where: string): FoundReport {
  return { host, unreadable: `${where}: expected at most ${MAX_REPORT_BYTES} bytes` };
}

/** `work` for all items, a few at a time, in their order. */
async function eachOf<T, R>(
  items: readonly T[],
  work: (item: T) => Promise<R>,
): Promise<Awaited<R>[]> {
  const results: Awaited<R>[] = [];
  for (let at = 0; at < items.length; at += PARALLEL) {
    results.push(...(await Promise.all(items.slice(at, at + PARALLEL).map(work))));
  }
  return results;
}
