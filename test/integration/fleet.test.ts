import { createServer } from "node:http";
import { createServer as createSocket, type AddressInfo } from "node:net";
import { copyFile, mkdir, readFile, readdir, stat, symlink, writeFile } from "node:fs/promises";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { fleetView } from "../../agent/core/fleet/fleet.ts";
import { openReport } from "../../agent/core/formats/report.ts";
import { parsePublicKey } from "../../agent/core/formats/signing-key.ts";
import { fleetPage } from "../../agent/fleet/page/page.ts";
import { buildSystem } from "../support/closure.ts";
import { domOf, hasChromium, screenshotOf } from "../support/chromium.ts";
import { makeCertificates, startServer } from "../support/hostile-server.ts";
import { nixosPull } from "../support/nixos-pull.ts";
import { promtool } from "../support/promtool.ts";
import {
  FLEET_NOW,
  sampleHostnames,
  sampleManifest,
  sampleReport,
  sealedReport,
  variedReport,
} from "../support/sample-fleet.ts";
import { createHost, createOperator, type Operator, type SandboxHost } from "../support/sandbox.ts";
import { testKey } from "../support/test-key.ts";
import { temporaryDirectory } from "../support/temporary.ts";

/** Starts the service and ends it once `done` holds. */
async function serveUntil(host: SandboxHost, done: () => Promise<void>): Promise<string> {
  const agent = host.start("run");
  await vi.waitFor(done, { timeout: 120_000, interval: 100 });
  agent.child.kill("SIGTERM");
  const { stderr } = await agent.ended;
  return stderr;
}

/** A host that follows the operator's mirror and polls once. */
function hostOf(
  operator: Operator,
  hostname: string,
  settings: Record<string, unknown>,
): Promise<SandboxHost> {
  return createHost(
    {
      mirrors: [pathToFileURL(operator.mirror).href],
      publicKeys: [operator.publicKey],
      poll: { interval: "1h", jitter: "0s" },
      ...settings,
    },
    hostname,
  );
}

describe("delivery", () => {
  test("a report that the server refuses is kept and delivered later, the newest alone", async () => {
    const operator = await createOperator();
    await operator.publish({ web1: await buildSystem({ name: "web1" }) });
    const statuses = [503, 500, 201];
    const bodies: string[] = [];
    const inbox = createServer((request, response) => {
      let body = "";
      request.setEncoding("utf8").on("data", (text: string) => (body += text));
      request.on("end", () => {
        bodies.push(body);
        response.writeHead(statuses.shift() ?? 201).end();
      });
    });
    await new Promise<void>((resolve) => inbox.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => {
      inbox.close();
    });
    const url = `http://127.0.0.1:${(inbox.address() as AddressInfo).port}/reports`;
    const host = await hostOf(operator, "web1", {
      reports: { url },
      limits: { retryBase: "1s", retryMax: "2s" },
    });
    const spool = join(host.state, "report.pending.json");
    const log = await serveUntil(host, async () => {
      expect(bodies).toHaveLength(3);
      expect(await stat(spool).catch(() => null)).toBeNull();
    });
    expect(log).toContain("the report could not be delivered: ");
    expect(log).toContain("the report was delivered (url), attempt 3");
    // The very same report, not a new one for each attempt.
    expect(new Set(bodies).size).toBe(1);
    const key = parsePublicKey((await host.run("report", "--public-key")).stdout.trim());
    expect(openReport(Buffer.from(bodies[0]!), key)).toMatchObject({
      hostname: "web1",
      publicKey: key.text,
      release: { sequence: 1, committedAt: expect.any(String) },
      lastPoll: { decision: "applied", sequence: 1 },
      disk: { total: expect.any(Number) },
    });
  });

  test("a report that nobody took outlives the agent, and a newer one takes its place", async () => {
    const operator = await createOperator();
    const host = await hostOf(operator, "web1", { reports: { url: "http://127.0.0.1:9/" } });
    const spool = join(host.state, "report.pending.json");
    const atOf = async (): Promise<string> => {
      const { value } = JSON.parse(await readFile(spool, "utf8"));
      const { payload } = JSON.parse(value.envelope);
      return JSON.parse(Buffer.from(payload, "base64").toString()).at;
    };
    const failed = async (count: number): Promise<void> => {
      const { value } = JSON.parse(await readFile(spool, "utf8"));
      expect(value.targets[0].failures).toBe(count);
    };
    await serveUntil(host, () => failed(1));
    const first = await atOf();
    await serveUntil(host, () => failed(2));
    expect(Date.parse(await atOf())).toBeGreaterThan(Date.parse(first));
  });
});

describe("the fleet", () => {
  test("is shown from real agents' reports, the failing host first with its last lines", async () => {
    const operator = await createOperator();
    const [good, bad] = await Promise.all([
      buildSystem(),
      buildSystem({ name: "web2", exitCode: 1 }),
    ]);
    await operator.publish({ web1: good, web2: bad, web3: good });
    const inbox = join(operator.directory, "inbox");
    await mkdir(inbox);
    for (const [name, code] of [
      ["web1", null],
      ["web2", "ACTIVATION_FAILED"],
    ] as const) {
      const host = await hostOf(operator, name, { reports: { directory: inbox } });
      await serveUntil(host, async () => {
        const { payload } = JSON.parse(await readFile(join(inbox, `${name}.json`), "utf8"));
        const report = JSON.parse(Buffer.from(payload, "base64").toString());
        expect(report.code).toBe(code);
      });
    }
    const memory = join(operator.directory, "memory.json");
    const html = join(operator.directory, "fleet.html");
    const metrics = join(operator.directory, "fleet.prom");
    const args = [
      ...["fleet", inbox, "--memory", memory, "--exit-code"],
      ...["--manifest", operator.mirror, "--public-key", operator.publicKey],
    ];
    // Nobody is believed who is not known.
    const strangers = await nixosPull([...args, "--json"]);
    expect(JSON.parse(strangers.stdout).counts).toMatchObject({ distrusted: 2, missing: 1 });
    expect(strangers.stderr).toContain("web1: KEY_UNKNOWN");

    const shown = await nixosPull([
      ...args,
      ...["--trust-new", "--html", html, "--prometheus", metrics],
    ]);
    expect(shown.exitCode, shown.stderr).toBe(21);
    expect(shown.stderr).toContain("pinned the key of web1: host-web1:");
    const lines = shown.stdout.split("\n");
    expect(lines[0]).toBe("● 1 of 3 hosts run release 1 of stable.");
    expect(lines[4]).toMatch(/^web2 +- +failing +ACTIVATION_FAILED /);
    expect(shown.stdout).toMatch(/^ +\| .+/m);
    expect(shown.stdout).toMatch(/^web3 +- +missing/m);
    expect(shown.stdout).toMatch(/^web1 +1 +current/m);
    expect(shown.stdout).toContain("1 of 3 hosts run release 1 of stable.");
    expect(await readFile(html, "utf8")).toContain("ACTIVATION_FAILED");
    expect(await readFile(metrics, "utf8")).toContain(
      'nixos_pull_fleet_release_hosts_on_target{channel="stable"} 1',
    );
    const { value } = JSON.parse(await readFile(memory, "utf8"));
    expect(Object.keys(value.hosts).sort()).toEqual(["web1", "web2"]);
  });

  test("shouts about changed keys and refuses old reports, foreign files and links", async () => {
    const inbox = await temporaryDirectory();
    const memory = join(inbox, "memory");
    const now = Date.now();
    const at = (minutes: number): string => new Date(now - minutes * 60_000).toISOString();
    const put = (host: string, text: string): Promise<void> =>
      writeFile(join(inbox, `${host}.json`), text);
    for (const name of ["web1", "web2", "web3"]) {
      await put(name, sealedReport(sampleReport(name, { at: at(10) })));
    }
    const args = ["fleet", inbox, "--memory", memory, "--json"];
    const first = await nixosPull([...args, "--trust-new"]);
    expect(JSON.parse(first.stdout).counts.current, first.stderr).toBe(3);

    const secret = join(inbox, "secret");
    await writeFile(secret, sealedReport(sampleReport("web4", { at: at(1) })));
    await symlink(secret, join(inbox, "web4.json"));
    await mkdir(join(inbox, "web5.json"));
    await put("web1", sealedReport(sampleReport("web1", { at: at(20) })));
    const another = await createHost(
      { mirrors: ["file:///nowhere"], publicKeys: [testKey("any").publicKey.text] },
      "web2",
    );
    await put("web2", (await another.run("report")).stdout);
    await copyFile(join(inbox, "web3.json"), join(inbox, "web6.json"));
    await put("web7", "x".repeat(100_000));
    await put("web8", '{"payload": "\u001b[2J"}');
    const { stdout, stderr } = await nixosPull([...args, "--trust-new"]);
    const codes = Object.fromEntries(
      JSON.parse(stdout).hosts.map((it: any) => [it.hostname, it.code ?? it.standing]),
    );
    expect(codes).toEqual({
      web1: "REPORT_REPLAYED",
      web2: "KEY_CHANGED",
      web3: "current",
      web4: "REPORT_UNREADABLE",
      web5: "REPORT_UNREADABLE",
      web6: "REPORT_INVALID",
      web7: "REPORT_UNREADABLE",
      web8: "KEY_UNKNOWN",
    });
    expect(stderr).toContain("KEY CHANGED! web2: KEY_CHANGED: expected the key host-web2:");
    expect(stderr).not.toContain("\u001b");
    // An operator's own list wins over what was pinned.
    const keys = join(inbox, "keys");
    const key = (await another.run("report", "--public-key")).stdout.trim();
    await writeFile(keys, `# moved to new hardware\nweb2 ${key}\n`);
    const told = await nixosPull([...args, "--keys", keys]);
    expect(told.stderr).not.toContain("KEY CHANGED");
  });

  test("is read from a web server by the names that are known", async () => {
    const report = sealedReport(sampleReport("web1", { at: new Date().toISOString() }));
    const server = createServer((request, response) => {
      if (request.url === "/in/web1.json") response.end(report);
      else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => {
      server.closeAllConnections();
      server.close();
    });
    const keys = join(await temporaryDirectory(), "keys");
    const { publicKey } = JSON.parse(Buffer.from(JSON.parse(report).payload, "base64").toString());
    await writeFile(keys, `web1 ${publicKey}\nweb2 ${publicKey}\n`);
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/in`;
    const { stdout, exitCode } = await nixosPull(["fleet", url, "--keys", keys, "--exit-code"]);
    expect(stdout).toMatch(/^web1 +12 +current/m);
    expect(stdout).toContain("1 of 1 host runs release 12 of stable.");
    expect(exitCode).toBe(0);
  });
});

describe("reports on a server that asks who is there", () => {
  /** A server over HTTPS that wants a client certificate and a password, with one report. */
  async function privateInbox() {
    const directory = await temporaryDirectory();
    const certificates = makeCertificates(directory, "site");
    const { ca, server: own, client } = certificates;
    const report = sealedReport(sampleReport("web1", { at: new Date().toISOString() }));
    await mkdir(join(directory, "in"));
    await writeFile(join(directory, "in/web1.json"), report);
    const wanted = `Basic ${Buffer.from("ada:secret-word").toString("base64")}`;
    const server = await startServer(
      directory,
      (request, response) => {
        if (request.headers.authorization === wanted) return false;
        response.writeHead(401).end();
        return true;
      },
      {
        cert: await readFile(own.cert),
        key: await readFile(own.key),
        ca: await readFile(ca),
        ...{ requestCert: true, rejectUnauthorized: true },
      },
    );
    onTestFinished(() => {
      server.close();
    });
    const { publicKey } = JSON.parse(Buffer.from(JSON.parse(report).payload, "base64").toString());
    const keys = join(directory, "keys");
    await writeFile(keys, `${publicKey} # as the host prints it\nweb9 ${publicKey}\n`);
    const password = join(directory, "password");
    await writeFile(password, "ada:secret-word\n");
    const place = `${server.url}/in`;
    const tls = ["--ca", ca, "--cert", client.cert, "--cert-key", client.key];
    const fleet = (...args: string[]): ReturnType<typeof nixosPull> =>
      nixosPull(["fleet", place, "--keys", keys, "--json", ...args]);
    return { server, place, keys, ca, client, tls, password, publicKey, fleet };
  }

  const standingsOf = ({ stdout }: { stdout: string }): unknown =>
    JSON.parse(stdout).hosts.map((it: any) => [it.hostname, it.code ?? it.standing]);

  test("are read with a password, an authority and a client certificate out of files", async () => {
    const { fleet, tls, password } = await privateInbox();
    const read = await fleet(...tls, "--user-file", password);
    expect(read.exitCode, read.stderr).toBe(0);
    expect(standingsOf(read)).toEqual([["web1", "current"]]);
  });

  test("are read as a configuration says", async () => {
    const { fleet, place, ca, client, password } = await privateInbox();
    const anyKey = testKey("any").publicKey.text;
    const host = await createHost({
      ...{ mirrors: [place], publicKeys: [anyKey] },
      tls: { caFile: ca, certFile: client.cert, keyFile: client.key },
      credentials: { [place]: { type: "basic", file: password } },
    });
    expect(standingsOf(await fleet("--config", host.configFile))).toEqual([["web1", "current"]]);
  });

  test("are not read without them, and what lacks is said", async () => {
    const { fleet, tls, ca, password } = await privateInbox();
    const noPassword = await fleet(...tls);
    expect(standingsOf(noPassword)).toEqual([
      ["web1", "REPORT_UNREADABLE"],
      ["web9", "REPORT_UNREADABLE"],
    ]);
    expect((await fleet("--user-file", password)).stderr).toContain("MIRROR_TLS");
    const noCertificate = await fleet("--ca", ca, "--user-file", password);
    expect(noCertificate.exitCode).toBe(5);
    expect((await fleet(...tls, "--user-file", `${password}.no`)).stderr).toContain(
      "CREDENTIAL_UNREADABLE",
    );
  });

  test("get no secret by way of a redirect, nor a second server", async () => {
    const { server, fleet, tls, password } = await privateInbox();
    const elsewhere = await startServer(await temporaryDirectory());
    onTestFinished(() => {
      elsewhere.close();
    });
    server.behave = (request, response) => {
      response.writeHead(302, { location: `${elsewhere.url}${request.url}` }).end();
      return true;
    };
    const redirected = await fleet(...tls, "--user-file", password);
    expect(standingsOf(redirected)).toEqual([
      ["web1", "REPORT_UNREADABLE"],
      ["web9", "REPORT_UNREADABLE"],
    ]);
    expect(redirected.stderr).toContain("expected HTTP 200, found 302");
    const both = await fleet(elsewhere.url, ...tls, "--user-file", password);
    expect(both.exitCode).toBe(2);
    expect(both.stderr).toContain("a password or token is for one server, found 2");
    expect(elsewhere.requests).toEqual([]);
  });

  test("get no password over plain HTTP, nor two secrets at once", async () => {
    const { password } = await privateInbox();
    const plain = ["fleet", "http://reports.example.org/in"];
    const refused = await nixosPull([...plain, "--token-file", password]);
    expect(refused.exitCode).toBe(3);
    expect(refused.stderr).toContain("CONFIG_INVALID: credentials");
    const two = await nixosPull([...plain, "--token-file", password, "--user-file", password]);
    expect(two.exitCode).toBe(2);
  });

  test("and one key may be given on the command line", async () => {
    const { place, tls, password, publicKey } = await privateInbox();
    const args = ["fleet", place, "--json", ...tls, "--user-file", password];
    expect(standingsOf(await nixosPull([...args, "--report-key", publicKey]))).toEqual([
      ["web1", "current"],
    ]);
    const foreign = await nixosPull([...args, "--report-key", testKey("any").publicKey.text]);
    expect(foreign.stderr).toContain("KEY_INVALID: --report-key: expected HOST KEY");
  });
});

describe.skipIf(!hasChromium)("the page in a browser", () => {
  const HOSTILE = `</pre><script>document.title="taken"</script><img src=x onerror="document.title='taken'">`;

  test.for([3, 50, 1000])(
    "%i hosts: the script runs, and nothing that hosts say does",
    { timeout: 900_000 },
    async (count) => {
      const names = sampleHostnames(count);
      const reports = names.flatMap((name, at) => variedReport(name, at, count) ?? []);
      const hostile = sampleReport(names[0]!, { code: "DISK_FULL", message: HOSTILE });
      const view = fleetView(
        {
          reports: [hostile, ...reports.slice(1)],
          manifests: [{ manifest: sampleManifest(names), digest: "" }],
          distrusted: [],
        },
        { now: FLEET_NOW, silentAfter: 86_400_000 },
      );
      const file = join(await temporaryDirectory(), "fleet.html");
      await writeFile(file, fleetPage(view));
      const dom = await domOf(file);
      expect(dom.includes('data-ready="yes"')).toBe(true);
      expect(dom.includes("<title>taken")).toBe(false);
      expect(dom.includes("&lt;/pre&gt;&lt;script&gt;")).toBe(true);
      const rows = dom.match(/<tr data-standing="[a-z]+"(?! hidden)/g) ?? [];
      expect(rows).toHaveLength(Math.min(count, 100));
      for (const size of [
        [1280, 1200],
        [390, 844],
      ] as const) {
        const picture = await screenshotOf(file, size);
        expect([picture.width, picture.height]).toEqual(size);
        expect(picture.bytes).toBeGreaterThan(20_000);
      }
    },
  );
});

describe("metrics of a host", () => {
  test("are in a file after each poll and on loopback while the service runs", async () => {
    const operator = await createOperator();
    await operator.publish({ web1: await buildSystem({ name: "web1" }) });
    const textfile = join(operator.directory, "nixos-pull.prom");
    const listen = `127.0.0.1:${await freePort()}`;
    const host = await hostOf(operator, "web1", { metrics: { textfile, listen } });
    let scraped = "";
    await serveUntil(host, async () => {
      expect(await readFile(textfile, "utf8")).toContain("nixos_pull_release_sequence 1\n");
      const answer = await fetch(`http://${listen}/metrics`);
      expect(answer.headers.get("content-type")).toMatch(/^text\/plain; version=0.0.4/);
      scraped = await answer.text();
      expect((await fetch(`http://${listen}/`)).status).toBe(404);
      expect((await fetch(`http://${listen}/metrics`, { method: "POST" })).status).toBe(405);
    });
    for (const text of [scraped, await readFile(textfile, "utf8")]) {
      expect(text).toContain("nixos_pull_updates_total 1\n");
      expect(text).toContain('nixos_pull_state{state="Idle"} 1\n');
      expect(text).toMatch(/^nixos_pull_store_free_bytes \d+$/m);
      if (!promtool.isThere) continue;
      const checked = spawnSync(promtool.path, ["check", "metrics"], { input: text });
      expect(checked.status, checked.stderr.toString()).toBe(0);
    }
    await host.run("apply");
    expect(await readFile(textfile, "utf8")).toContain("nixos_pull_polls_total 2\n");
    // Nothing half-written is left beside it.
    const left = (await readdir(operator.directory)).filter((name) => name.includes(".prom."));
    expect(left).toEqual([]);
  });
});

async function freePort(): Promise<number> {
  const server = createSocket();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
