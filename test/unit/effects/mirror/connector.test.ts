import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { connectorOf, firstToConnect } from "../../../../agent/effects/mirror/connector.ts";
import { PullError } from "../../../../agent/core/errors.ts";

/** Listens on loopback; gives the port. */
async function listen(host = "127.0.0.1"): Promise<number> {
  const server = createServer((socket) => socket.on("error", () => undefined).end());
  server.listen(0, host);
  await once(server, "listening");
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

const v4 = (address: string) => ({ address, family: 4 });
const never = (): AbortSignal => new AbortController().signal;

/**
 * A port whose queue of connections is full, as a link that loses packets is: the kernel drops
 * attempts to connect, and they go on being made.
 */
async function deafPort(host: string): Promise<number> {
  const script = `
    const server = require("node:net").createServer();
    server.listen({ host: "${host}", port: 0, backlog: 1 }, () => {
      require("node:fs").writeSync(1, server.address().port + "\\n");
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return Number(line.toString());
}

describe("of several addresses", () => {
  test("one that refuses is followed by the next at once", async () => {
    const port = await listen();
    const socket = await firstToConnect([v4("127.0.0.9"), v4("127.0.0.1")], port, never());
    expect(socket.remoteAddress).toBe("127.0.0.1");
    socket.destroy();
  });

  test("one that does not answer holds back no other", async () => {
    const port = await deafPort("127.0.0.5");
    const fill = await Promise.all(
      [1, 2, 3].map(async () => {
        const limit = AbortSignal.timeout(300);
        return firstToConnect([v4("127.0.0.5")], port, limit).catch(() => null);
      }),
    );
    onTestFinished(() => {
      for (const socket of fill) socket?.destroy();
    });
    expect(fill).toContain(null);
    const server = createServer((socket) => socket.on("error", () => undefined).end());
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    onTestFinished(() => void server.close());
    const started = performance.now();
    const socket = await firstToConnect([v4("127.0.0.5"), v4("127.0.0.1")], port, never());
    expect(socket.remoteAddress).toBe("127.0.0.1");
    expect(performance.now() - started).toBeGreaterThan(200);
    socket.destroy();
  });

  test("none: the error says why, for each of them", async () => {
    const port = await listen();
    const failure = firstToConnect([v4("127.0.0.8"), v4("127.0.0.9")], port, never());
    const error: unknown = await failure.catch((thrown: unknown) => thrown);
    expect((error as AggregateError).errors.map(String)).toEqual([
      `Error: connect ECONNREFUSED 127.0.0.8:${port}`,
      `Error: connect ECONNREFUSED 127.0.0.9:${port}`,
    ]);
  });
});

test("a connection is given up after its time, and not after Node's 250 ms", async () => {
  const port = await deafPort("127.0.0.6");
  const connect = connectorOf({ timeoutMs: 600, tls: {} });
  const attempt = (): Promise<Error | null> =>
    new Promise((resolve) => {
      const target = { hostname: "127.0.0.6", protocol: "http:", port: String(port) };
      connect(target, (...[error, socket]) => {
        if (socket) onTestFinished(() => void socket.destroy());
        resolve(error);
      });
    });
  const started = performance.now();
  const errors = await Promise.all([1, 2, 3, 4].map(attempt));
  expect(errors.map(String)).toContain("Error: no connection within 0.6 s");
  expect(performance.now() - started).toBeGreaterThan(500);
});

test("a name that leads where it must not is refused", async () => {
  const connect = connectorOf({
    timeoutMs: 60_000,
    tls: {},
    permits: (address) => !address.startsWith("127.") && address !== "::1",
  });
  const target = { hostname: "localhost", protocol: "http:", port: String(await listen()) };
  const error = await new Promise((resolve) => {
    connect(target, (...[failure]) => {
      resolve(failure);
    });
  });
  expect(error).toBeInstanceOf(PullError);
  expect((error as PullError).code).toBe("MIRROR_REDIRECT");
});
