// A static file server over a directory, for the demo: the kind of dumb mirror that
// nixos-pull needs, with ETag and Range. Prints its address and serves until killed.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { join, normalize } from "node:path";

const root = process.argv[2];

const server = createServer((request, response) => {
  void answer(request, response).catch(() => response.destroy());
});

async function answer(request, response) {
  const path = normalize(new URL(request.url, "http://demo").pathname);
  const file = await stat(join(root, path)).catch(() => null);
  if (!file?.isFile()) return response.writeHead(404).end("not found\n");
  const etag = `"${file.ino}-${file.size}-${file.mtimeMs}"`;
  if (request.headers["if-none-match"] === etag) return response.writeHead(304, { etag }).end();
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
  const start = range ? Number(range[1]) : 0;
  const end = range ? Math.min(Number(range[2]), file.size - 1) : file.size - 1;
  if (start >= file.size) return response.writeHead(416).end();
  response.writeHead(range ? 206 : 200, {
    etag,
    "content-length": end - start + 1,
    ...(range ? { "content-range": `bytes ${start}-${end}/${file.size}` } : {}),
  });
  createReadStream(join(root, path), { start, end }).pipe(response);
}

server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
