import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { PullError } from "../../../agent/core/errors.ts";
import { openReport } from "../../../agent/core/report.ts";
import { parsePublicKey } from "../../../agent/core/signing-key.ts";
import { AttackWorld } from "../../support/attack-world.ts";
import { startServer } from "../../support/hostile-server.ts";

let world: AttackWorld;

beforeAll(async () => {
  world = await AttackWorld.create();
});
afterAll(() => world.destroy());
beforeEach(() => world.restore());

describe("reports", () => {
  test("a host signs what it is with a key that it made and keeps", async () => {
    await world.forge((it) => ({ ...it, signatures: [] }));
    await world.refuses("SIGNATURE_THRESHOLD");
    const file = join(world.directory, "report.json");
    const written = await world.host(["report", "--out", file]);
    expect(written.exitCode, written.stderr).toBe(0);
    const key = await world.host(["report", "--public-key"]);
    const report = openReport(await readFile(file), parsePublicKey(key.stdout.trim()));
    expect(report).toMatchObject({
      hostname: "web1",
      channel: "stable",
      release: { sequence: 1, toplevel: world.first },
      state: "Idle",
      code: "SIGNATURE_THRESHOLD",
      running: world.first,
      profile: world.first,
    });
    expect((await stat(join(world.state, "host-key.secret"))).mode & 0o777).toBe(0o600);
  });

  test("a report is no release, and a release no report", async () => {
    const { stdout } = await world.host(["report"]);
    const key = await world.host(["report", "--public-key"]);
    world.configure({ publicKeys: [key.stdout.trim()] });
    await world.forge(() => stdout);
    await world.refuses("PAYLOAD_TYPE_WRONG");
  });

  test("a report that was changed, or another host's, is refused", async () => {
    const { stdout } = await world.host(["report"]);
    const key = parsePublicKey((await world.host(["report", "--public-key"])).stdout.trim());
    const envelope = JSON.parse(stdout) as { payload: string };
    const payload = Buffer.from(envelope.payload, "base64").toString().replace("web1", "web2");
    const forged = { ...envelope, payload: Buffer.from(payload).toString("base64") };
    for (const [text, by] of [
      [JSON.stringify(forged), key],
      [stdout, world.key.secret.publicKey],
    ] as const) {
      const open = (): unknown => openReport(Buffer.from(text), by);
      expect(open).toThrow(expect.objectContaining({ code: "SIGNATURE_THRESHOLD" }) as PullError);
    }
  });

  test("the service delivers to a directory and an address, and outlives one that refuses", async () => {
    const bodies: string[] = [];
    let status = 201;
    const inbox = await startServer(world.directory, (request, response) => {
      let body = "";
      request.setEncoding("utf8").on("data", (text: string) => (body += text));
      request.on("end", () => {
        bodies.push(`${request.method} ${request.url} ${body}`);
        response.writeHead(status, { location: "/elsewhere" }).end();
        status = 302;
      });
      return true;
    });
    onTestFinished(() => {
      inbox.close();
    });
    await world.forge((it) => ({ ...it, signatures: [] }));
    const directory = join(world.directory, "inbox");
    world.configure({
      poll: { interval: "1s", jitter: "0s" },
      reports: { directory, url: `${inbox.url}/reports` },
    });
    const agent = await world.serve(4_000);
    expect(agent.stderr).toContain("the report could not be delivered");
    expect(agent.stderr).toContain("stopped");
    expect(bodies[0]).toMatch(/^PUT \/reports\/web1.json \{/);
    expect(bodies.every((it) => !it.includes("/elsewhere"))).toBe(true);
    const key = await world.host(["report", "--public-key"]);
    const report = openReport(
      await readFile(join(directory, "web1.json")),
      parsePublicKey(key.stdout.trim()),
    );
    expect(report.code).toBe("SIGNATURE_THRESHOLD");
  });
});
