import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { onTestFinished } from "vitest";

/** A request that was served, for assertions. */
export interface ServedRequest {
  readonly path: string;
  readonly range: string | undefined;
  readonly status: number;
}

/** Answers a request itself and gives true, or false to have the file served. */
export type Misbehaviour = (request: IncomingMessage, response: ServerResponse) => boolean;

export interface MirrorServer {
  readonly url: string;
  readonly requests: ServedRequest[];
  /** Replaceable at any time. */
  misbehave: Misbehaviour;
  /** False: Range is ignored, as simple servers do. */
  ranges: boolean;
}

/** A real HTTP server on port 0 over a mirror directory, with ETag, 304 and Range. */
export async function serveMirror(directory: string): Promise<MirrorServer> {
  const requests: ServedRequest[] = [];
  const mirror = { url: "", requests, misbehave: () => false, ranges: true } as {
    -readonly [Key in keyof MirrorServer]: MirrorServer[Key];
  };
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://mirror").pathname;
    response.once("close", () => {
      requests.push({ path, range: request.headers.range, status: response.statusCode });
    });
    if (mirror.misbehave(request, response)) return;
    void serveFile(join(directory, path), request, response, mirror.ranges);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  mirror.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return mirror;
}

async function serveFile(
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
  ranges: boolean,
): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (!found?.isFile()) {
    response.writeHead(404).end("not found");
    return;
  }
  const etag = `"${found.ino}-${found.size}-${found.mtimeMs}"`;
  if (request.headers["if-none-match"] === etag) {
    response.writeHead(304, { etag }).end();
    return;
  }
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const isOther = (request.headers["if-range"] ?? etag) !== etag;
  if (!ranges || !range || isOther) {
    response.writeHead(200, { etag, "content-length": found.size });
    if (found.size < 1024 * 1024) response.end(await readFile(path));
    else createReadStream(path).pipe(response);
    return;
  }
  const from = Number(range[1]);
  const last = range[2] === "" ? Infinity : Number(range[2]);
  const to = Math.min(last, found.size - 1);
  if (from >= found.size) {
    response.writeHead(416, { "content-range": `bytes */${found.size}` }).end();
    return;
  }
  response.writeHead(206, {
    etag,
    "content-length": to - from + 1,
    "content-range": `bytes ${from}-${to}/${found.size}`,
  });
  createReadStream(path, { start: from, end: to }).pipe(response);
}
