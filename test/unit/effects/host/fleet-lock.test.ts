import { Agent } from "undici";
import { describe, expect, onTestFinished, test } from "vitest";
import type { RebootLock } from "../../../../agent/core/ports.ts";
import { fleetLock } from "../../../../agent/effects/host/fleet-lock.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { lockServer } from "../../../support/lock-server.ts";

function lockAt(url: string): RebootLock {
  const dispatcher = new Agent();
  onTestFinished(() => dispatcher.destroy());
  return fleetLock({ url, group: "web", id: "web1" }, () => Promise.resolve(dispatcher));
}

describe("a slot", () => {
  test("is taken by pre-reboot and given back by steady-state", async () => {
    const { asked, url } = await lockServer();
    const lock = lockAt(url);
    await lock.take();
    await lock.release();
    expect(asked.map(({ method, url }) => `${method} ${url}`)).toEqual([
      "POST /v1/pre-reboot",
      "POST /v1/steady-state",
    ]);
    for (const { headers, body } of asked) {
      expect(headers["fleet-lock-protocol"]).toBe("true");
      expect(headers["content-type"]).toBe("application/json");
      expect(body).toEqual({ client_params: { group: "web", id: "web1" } });
    }
  });

  test.each(["/locks", "/locks/", "/locks//"])(
    "is asked for below the address …%s",
    async (path) => {
      const { asked, url } = await lockServer();
      await lockAt(url + path).take();
      expect(asked.map(({ url }) => url)).toEqual(["/locks/v1/pre-reboot"]);
    },
  );
});

describe("a refusal", () => {
  const words = '{"kind":"failed_lock","value":"semaphore currently full"}';

  test.each([201, 204, 302, 400, 404, 409, 500, 503])("is the status %i", async (status) => {
    const { url } = await lockServer(status, status === 204 ? "" : words);
    const lock = lockAt(url);
    for (const [operation, refused] of [
      ["pre-reboot", lock.take()],
      ["steady-state", lock.release()],
    ] as const) {
      const failure = await rejectionOf(refused);
      expect(failure.code).toBe("REBOOT_REFUSED");
      expect(failure.transient).toBe(true);
      expect(failure.message).toBe(
        `${url}/v1/${operation}: HTTP ${status}: ${status === 204 ? "" : words}`,
      );
    }
  });

  test("of many words is cut short", async () => {
    const { url } = await lockServer(500, "x".repeat(100_000));
    expect((await rejectionOf(lockAt(url).take())).message.length).toBeLessThan(1_000);
  });
});

test("a server that cannot be reached gives no slot", async () => {
  const { url, server } = await lockServer();
  await new Promise((resolve) => server.close(resolve));
  const failure = await rejectionOf(lockAt(url).take());
  expect(failure.code).toBe("REBOOT_REFUSED");
  expect(failure.message).toContain(`${url}/v1/pre-reboot: `);
  expect(failure.message).toContain("ECONNREFUSED");
});

test("a server that hangs up gives no slot", async () => {
  const { url, server } = await lockServer();
  server.removeAllListeners("request").on("request", (request) => request.destroy());
  expect((await rejectionOf(lockAt(url).take())).code).toBe("REBOOT_REFUSED");
});
