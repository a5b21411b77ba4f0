// A link of a given rate to a server on loopback, for all connections together.
import { connect, createServer } from "node:net";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";

/** Pieces are passed on in such steps. */
const STEP_MS = 5;
/** What waits for its turn in one connection; more is left to TCP. */
const MAX_QUEUED = 64 * 1024;

/**
 * Passes connections on to `port` of 127.0.0.1; what comes back is passed on at
 * `bytesPerSecond`, or at once where that is null. `bytes()` is what went both ways.
 */
export async function startSlowLink(port, bytesPerSecond) {
  let bytes = 0;
  let freeAt = performance.now();
  /** Connections take turns, a piece each. */
  let turn = Promise.resolve();
  const pass = (piece, client) => {
    turn = turn.then(async () => {
      if (bytesPerSecond !== null) {
        const now = performance.now();
        freeAt = Math.max(freeAt, now - STEP_MS) + (1000 * piece.length) / bytesPerSecond;
        if (freeAt - now > STEP_MS) await sleep(freeAt - now);
      }
      bytes += piece.length;
      if (!client.destroyed) client.write(piece);
    });
    return turn;
  };
  const server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    let queued = 0;
    client.on("data", (piece) => {
      bytes += piece.length;
      upstream.write(piece);
    });
    upstream.on("data", (piece) => {
      queued += piece.length;
      if (queued > MAX_QUEUED) upstream.pause();
      void pass(piece, client).then(() => {
        queued -= piece.length;
        if (queued <= MAX_QUEUED) upstream.resume();
      });
    });
    upstream.on("end", () => void turn.then(() => client.end()));
    client.on("end", () => upstream.end());
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ]) {
      one.on("error", () => other.destroy());
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    bytes: () => bytes,
    stop: () => server.close(),
  };
}
