import { createServer as createHttpServer, type RequestListener } from "node:http";
import { createServer, type AddressInfo, type Server } from "node:net";
import type { Duplex } from "node:stream";
import { describe, expect, onTestFinished, test } from "vitest";
import type { HealthCheck } from "../../../../agent/core/formats/health-check.ts";
import { CheckFailure } from "../../../../agent/core/update/check-failure.ts";
import { systemProbe } from "../../../../agent/effects/process/health-probe.ts";
import { rejectionOf } from "../../../support/failure.ts";

/** Listens on a free port until the test ends; gives the port. */
async function listen(server: Server): Promise<number> {
  const sockets = new Set<Duplex>();
  server.on("connection", (socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

async function closedPort(): Promise<number> {
  const server = createServer();
  const port = await listen(server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function serve(listener: RequestListener): Promise<string> {
  return `http://127.0.0.1:${await listen(createHttpServer(listener))}/health`;
}

const command = (...words: string[]): HealthCheck => ({
  ...{ kind: "command", name: "the check", timeout: "100s", command: words },
});
const http = (url: string, status = 200): HealthCheck => ({
  ...{ kind: "http", name: "the check", timeout: "100s", url, status },
});
const tcp = (port: number): HealthCheck => ({
  ...{ kind: "tcp", name: "the check", timeout: "100s", host: "127.0.0.1", port },
});

/** What is said about a check that fails. */
async function failure(check: HealthCheck): Promise<string> {
  const error = await rejectionOf(systemProbe(check));
  expect(error.code).toBe("HEALTH_FAILED");
  expect(error.message).toMatch(/^check "the check": /);
  return error.message;
}

describe("a command", () => {
  test("passes with exit code 0", async () => {
    await systemProbe(command("true"));
  });

  test("fails with another one, and tells the last words", async () => {
    expect(await failure(command("sh", "-c", "echo no luck >&2; exit 3"))).toContain(
      "sh ended with exit code 3: no luck",
    );
  });

  test("fails with the last lines that it printed, bounded and harmless", async () => {
    const script =
      "seq 1 30; echo '\u001b[31mstatus: degraded'; echo no luck >&2; " +
      "head -c 5000 /dev/zero | tr '\\0' x >&2; exit 3";
    const error = await rejectionOf(systemProbe(command("sh", "-c", script)));
    if (!(error instanceof CheckFailure)) throw error;
    const { lastLines } = error;
    expect(lastLines).toHaveLength(12);
    expect(lastLines.slice(0, 2)).toEqual(["22", "23"]);
    expect(lastLines.slice(9, 11)).toEqual(["\ufffd[31mstatus: degraded", "no luck"]);
    expect(lastLines[11]).toMatch(/^x{299}…$/);
    expect(error.message).toHaveLength(1_000);
  });

  test("fails where a signal ends it", async () => {
    expect(await failure(command("sh", "-c", "kill -9 $$"))).toContain("was ended by SIGKILL");
  });

  test("fails where there is none of the name", async () => {
    expect(await failure(command("no-such-program"))).toContain("no-such-program");
  });

  test("gets its arguments as they are", async () => {
    await systemProbe(command("test", "$HOME; true", "=", "$HOME; true"));
  });
});

describe("an address", () => {
  test("passes with the expected status, whatever that is", async () => {
    const url = await serve((_, response) => response.writeHead(204).end());
    await systemProbe(http(url, 204));
    expect(await failure(http(url))).toContain(`${url}: expected HTTP 200, found 204`);
  });

  test("is not looked for where it redirects to", async () => {
    const url = await serve((request, response) => {
      if (request.url === "/health") response.writeHead(302, { location: "/well" }).end();
      else response.end();
    });
    expect(await failure(http(url))).toContain("expected HTTP 200, found 302");
    await systemProbe(http(url, 302));
  });

  test("fails where nobody listens", async () => {
    expect(await failure(http(`http://127.0.0.1:${await closedPort()}/`))).toContain(
      "ECONNREFUSED",
    );
  });
});

describe("a port", () => {
  test("passes where somebody listens", async () => {
    await systemProbe(tcp(await listen(createServer())));
  });

  test("fails where nobody does", async () => {
    expect(await failure(tcp(await closedPort()))).toContain("ECONNREFUSED");
  });
});

// The time limits are real ones; the tests wait for them side by side.
describe("without an answer", () => {
  test("each kind fails after its time, and says so", async () => {
    const url = await serve(() => undefined);
    const started = performance.now();
    const messages = await Promise.all([
      failure({ ...command("sleep", "60"), timeout: "1s" }),
      failure({ ...http(url), timeout: "1s" }),
    ]);
    expect(performance.now() - started).toBeGreaterThan(900);
    expect(messages).toEqual(Array(2).fill('check "the check": no answer within 1s'));
  });

  test("each kind is interrupted at once by the signal", async () => {
    const url = await serve(() => undefined);
    const stop = new AbortController();
    const probes = [command("sleep", "60"), http(url)].map((check) =>
      rejectionOf(systemProbe(check, stop.signal)),
    );
    stop.abort();
    for (const { code } of await Promise.all(probes)) expect(code).toBe("INTERRUPTED");
    const late = await rejectionOf(systemProbe(tcp(1), stop.signal));
    expect(late.code).toBe("INTERRUPTED");
  });
});
