import { createServer, type RequestListener } from "node:http";
import { EXPOSITION_CONTENT_TYPE } from "../../core/metrics/prometheus.ts";

/** Further clients are turned away. */
const MAX_CLIENTS = 8;
/** A client is cut off after this time. */
const CLIENT_TIMEOUT_MS = 5_000;
const MAX_HEADER_BYTES = 8 * 1024;

/**
 * Answers `GET /metrics` with what `metrics` gives, and nothing else. `address` is HOST:PORT. Gives
 * a function that ends the service. Throws the operating system's errors.
 */
export async function serveMetrics(
  address: string,
  metrics: () => Promise<string>,
): Promise<() => Promise<void>> {
  const answer: RequestListener = (request, response) => {
    const headers = { "content-type": "text/plain; charset=utf-8", connection: "close" };
    const deadline = setTimeout(() => request.destroy(), CLIENT_TIMEOUT_MS);
    response.once("close", () => {
      clearTimeout(deadline);
    });
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.writeHead(405, { ...headers, allow: "GET, HEAD" }).end("expected GET\n");
      return;
    }
    if (request.url?.split("?")[0] !== "/metrics") {
      response.writeHead(404, headers).end("expected /metrics\n");
      return;
    }
    metrics().then(
      (text) => {
        response.writeHead(200, { ...headers, "content-type": EXPOSITION_CONTENT_TYPE }).end(text);
      },
      () => {
        response.writeHead(500, headers).end("the metrics could not be read\n");
      },
    );
  };
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: CLIENT_TIMEOUT_MS,
      requestTimeout: CLIENT_TIMEOUT_MS,
      connectionsCheckingInterval: 1_000,
    },
    answer,
  );
  server.maxConnections = MAX_CLIENTS;
  const { hostname, port } = new URL(`http://${address}`);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    // A URL has no port if it is 80.
    server.listen(Number(port || 80), hostname.replace(/^\[|\]$/g, ""), resolve);
  });
  server.on("error", () => undefined);
  return async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
}
