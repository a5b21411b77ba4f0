import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test, vi } from "vitest";
import { InstanceRole } from "../../../../agent/effects/mirror/instance-role.ts";
import { rejectionOf } from "../../../support/failure.ts";

const ROLES = "/latest/meta-data/iam/security-credentials/";

interface MetadataService {
  /** Method and path of each request. */
  readonly asked: string[];
  /** What is answered for a path, in place of what a machine's service answers. */
  answers: Record<string, { status: number; headers?: Record<string, string>; body?: string }>;
  lifetimeMs: number;
}

/**
 * A stand-in for the metadata service of a cloud's machine, which is nowhere to be had here. It
 * asks for the token of IMDSv2, and gives other keys each time.
 */
async function metadataService(): Promise<MetadataService> {
  const service: MetadataService = { asked: [], answers: {}, lifetimeMs: 6 * 3_600_000 };
  let given = 0;
  const server = createServer((request: IncomingMessage, response) => {
    const { method = "", url = "", headers } = request;
    service.asked.push(`${method} ${url}`);
    const own = service.answers[url];
    if (own) {
      response.writeHead(own.status, own.headers).end(own.body);
    } else if (method === "PUT" && url === "/latest/api/token") {
      const isBounded = Number(headers["x-aws-ec2-metadata-token-ttl-seconds"]) > 0;
      response.writeHead(isBounded ? 200 : 400).end("a-token");
    } else if (headers["x-aws-ec2-metadata-token"] !== "a-token") {
      response.writeHead(401).end();
    } else if (url === ROLES) {
      response.end("mirror-role");
    } else if (url === `${ROLES}mirror-role`) {
      given += 1;
      response.end(
        JSON.stringify({
          ...{ Code: "Success", AccessKeyId: `ASIA${given}`, SecretAccessKey: "s3cr3t" },
          Token: "session",
          Expiration: new Date(Date.now() + service.lifetimeMs).toISOString(),
        }),
      );
    } else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  vi.stubEnv("AWS_EC2_METADATA_SERVICE_ENDPOINT", `http://127.0.0.1:${port}`);
  // A proxy must not be asked: nobody listens there.
  vi.stubEnv("HTTP_PROXY", "http://127.0.0.1:1");
  vi.useFakeTimers({ toFake: ["Date"] });
  onTestFinished(() => {
    vi.useRealTimers();
    vi.unstubAllEnvs();
    server.close();
  });
  return service;
}

test("the keys of a machine's role are asked for with a token, once, and again before they end", async () => {
  const service = await metadataService();
  const role = new InstanceRole();
  const [first, second] = await Promise.all([role.keys(), role.keys()]);
  expect(first).toEqual({
    ...{ accessKeyId: "ASIA1", secretAccessKey: "s3cr3t", sessionToken: "session" },
  });
  expect(second).toEqual(first);
  expect(service.asked).toEqual([
    "PUT /latest/api/token",
    `GET ${ROLES}`,
    `GET ${ROLES}mirror-role`,
  ]);
  vi.setSystemTime(Date.now() + 6 * 3_600_000 - 6 * 60_000);
  expect((await role.keys()).accessKeyId).toBe("ASIA1");
  vi.setSystemTime(Date.now() + 2 * 60_000);
  expect((await role.keys()).accessKeyId).toBe("ASIA2");
});

test("keys that still hold are used while the service fails, and not after", async () => {
  const service = await metadataService();
  const role = new InstanceRole();
  await role.keys();
  service.answers["/latest/api/token"] = { status: 500 };
  vi.setSystemTime(Date.now() + 6 * 3_600_000 - 60_000);
  expect((await role.keys()).accessKeyId).toBe("ASIA1");
  vi.setSystemTime(Date.now() + 2 * 60_000);
  const error = await rejectionOf(role.keys());
  expect(error.code).toBe("CREDENTIAL_UNREADABLE");
  expect(error.message).toContain("expected HTTP 200 for latest/api/token, found 500");
});

test.each([
  ["no role", { [ROLES]: { status: 404 } }, /has the machine a role\?$/],
  [
    "a redirect",
    { [ROLES]: { status: 302, headers: { location: "/latest/api/token" } } },
    /expected HTTP 200 for .*, found 302$/,
  ],
  ["no JSON", { [`${ROLES}mirror-role`]: { status: 200, body: "s3cr3t" } }, /expected JSON/],
  [
    "half a key",
    {
      [`${ROLES}mirror-role`]: {
        status: 200,
        body: '{"SecretAccessKey":"s3cr3t","Expiration":"2100-01-01T00:00:00Z"}',
      },
    },
    /expected an access key and its secret/,
  ],
  ["an endless answer", { [ROLES]: { status: 200, body: "a".repeat(100_000) } }, /expected HTTP/],
] as const)("%s: CREDENTIAL_UNREADABLE, without the secret", async (_, answers, message) => {
  const service = await metadataService();
  service.answers = { ...answers };
  const error = await rejectionOf(new InstanceRole().keys());
  expect(error.code).toBe("CREDENTIAL_UNREADABLE");
  expect(error.message).toMatch(message);
  expect(error.message).not.toContain("s3cr3t");
});
