import {
  mkdir,
  readFile,
  readdir,
  readlink,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { PullError } from "../../../agent/core/errors.ts";
import { openReport } from "../../../agent/core/formats/report.ts";
import { parsePublicKey } from "../../../agent/core/formats/signing-key.ts";
import { comes, inAttackWorld, type AttackWorld } from "../../support/attack-world.ts";
import { startServer } from "../../support/hostile-server.ts";

let world: AttackWorld;

inAttackWorld((it) => (world = it));

describe("reports", () => {
  test("a host signs what it is with a key that it made and keeps", async () => {
    await symlink(world.first, join(world.root, "run/booted-system"));
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
      booted: world.first,
      accepted: { epoch: 0, sequence: 1 },
      profile: world.first,
    });
    expect((await stat(join(world.state, "host-key.secret"))).mode & 0o777).toBe(0o600);
  });

  test("two processes that begin together make one key, which only its owner can read", async () => {
    await rm(join(world.state, "host-key.secret"), { force: true });
    const keys = await Promise.all(
      Array.from({ length: 4 }, () => world.host(["report", "--public-key"])),
    );
    expect(new Set(keys.map(({ stdout }) => stdout)).size).toBe(1);
    expect((await stat(join(world.state, "host-key.secret"))).mode & 0o777).toBe(0o600);
    expect((await readdir(world.state)).filter((name) => name.includes(".new-"))).toEqual([]);
  });

  test("a torn key is told and not replaced", async () => {
    await world.host(["report"]);
    const file = join(world.state, "host-key.secret");
    await truncate(file, 20);
    const { stderr, exitCode } = await world.host(["report"]);
    expect(stderr).toMatch(/KEY_INVALID: .*host-key.secret/);
    expect(exitCode).toBe(3);
    expect((await stat(file)).size).toBe(20);
  });

  test("verify shows a report that its host signed, and refuses all others", async () => {
    const file = join(world.directory, "report.json");
    await world.host(["report", "--out", file]);
    const key = (await world.host(["report", "--public-key"])).stdout.trim();
    const shown = await world.command(["verify", file, "--public-key", key]);
    expect(shown.exitCode, shown.stderr).toBe(0);
    expect(shown.stdout).toMatch(/^host +web1$/m);
    expect(shown.stdout).toMatch(/^accepted +up to 1$/m);
    const others = await world.command(["verify", file, "--public-key", world.key.publicKey]);
    expect(others.stderr).toContain("SIGNATURE_THRESHOLD");
    // With the keys of two hosts, one could speak in the other's name.
    const two = ["--public-key", key, "--public-key", world.key.publicKey];
    expect((await world.command(["verify", file, ...two])).stderr).toContain("USAGE");
  });

  test("a host that forgot what it accepted says so in its report", async () => {
    const files = ["state.json", "trust.json"].map((name) => join(world.state, name));
    for (const name of [...files, world.trustElsewhere]) await writeFile(name, "#");
    await writeFile(join(world.state, "history.jsonl"), "#");
    const { stdout } = await world.host(["report"]);
    const key = parsePublicKey((await world.host(["report", "--public-key"])).stdout.trim());
    expect(openReport(Buffer.from(stdout), key)).toMatchObject({
      code: "STATE_CORRUPT",
      accepted: null,
      release: null,
    });
  });

  test("a link in the inbox leads no report elsewhere", async () => {
    const [inbox, victim] = [join(world.directory, "inbox"), join(world.directory, "victim")];
    await mkdir(inbox, { recursive: true });
    await writeFile(victim, "precious");
    await rm(join(inbox, "web1.json"), { force: true });
    await symlink(victim, join(inbox, "web1.json"));
    world.configure({
      poll: { interval: "1h", jitter: "0s" },
      mirrors: ["file:///nonexistent"],
      reports: { directory: inbox },
    });
    await world.serve((log) =>
      comes(async () => {
        expect(log()).toContain("UNSAFE_FILE");
      }),
    );
    expect(await readFile(victim, "utf8")).toBe("precious");
    expect(await readlink(join(inbox, "web1.json"))).toBe(victim);
    await rm(join(inbox, "web1.json"));
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
    await mkdir(directory, { recursive: true });
    world.configure({
      poll: { interval: "1s", jitter: "0s" },
      reports: { directory, url: `${inbox.url}/reports` },
    });
    const agent = await world.serve((log) =>
      comes(() => {
        expect(log()).toContain("the report could not be delivered");
      }),
    );
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
