import { cp, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import type { ErrorCode } from "../../../agent/core/errors.ts";
import { comes, inAttackWorld, type AttackWorld } from "../../support/attack-world.ts";
import {
  makeCertificates,
  startProxy,
  startServer,
  type Behaviour,
  type Certificates,
  type HostileServer,
} from "../../support/hostile-server.ts";

let world: AttackWorld;
let ours: Certificates;
let theirs: Certificates;

inAttackWorld((it) => {
  world = it;
  ours = makeCertificates(world.directory, "ours");
  theirs = makeCertificates(world.directory, "theirs");
});

async function serve(
  behave?: Behaviour,
  tls?: Parameters<typeof startServer>[2],
): Promise<HostileServer> {
  const server = await startServer(world.mirror, behave, tls);
  onTestFinished(() => {
    server.close();
  });
  return server;
}

async function serveTls(
  certificates: Certificates,
  options: Parameters<typeof startServer>[2] = {},
): Promise<HostileServer> {
  const { cert, key } = certificates.server;
  return serve(undefined, { cert: await readFile(cert), key: await readFile(key), ...options });
}

function filesOf({ ca, client }: Certificates): Record<string, string> {
  return { caFile: ca, certFile: client.cert, keyFile: client.key };
}

const isManifest = (url: string | undefined): boolean => url?.endsWith("manifest.json") ?? false;

interface Attack {
  readonly name: string;
  readonly code: ErrorCode;
  readonly behave: Behaviour;
  readonly limits?: Record<string, unknown>;
}

describe("hostile HTTP", () => {
  const status =
    (code: number, headers: Record<string, string> = {}): Behaviour =>
    (_, response) => {
      response.writeHead(code, headers).end("no");
      return true;
    };
  const onArchive =
    (behave: Behaviour): Behaviour =>
    (request, response) =>
      !isManifest(request.url) && behave(request, response);
  const drip: Behaviour = (_, response) => {
    response.writeHead(200);
    const timer = setInterval(() => response.write(" "), 100);
    response.on("close", () => {
      clearInterval(timer);
    });
    return true;
  };
  const flood: Behaviour = (_, response) => {
    response.writeHead(200);
    const more = (): void => {
      while (response.write(Buffer.alloc(65_536, " ")));
      response.once("drain", more);
    };
    more();
    return true;
  };

  const table: Attack[] = [
    { name: "not found", code: "MIRROR_NOT_FOUND", behave: status(404) },
    {
      name: "more bytes announced than are allowed",
      code: "MIRROR_OVERSIZE",
      behave: (_, response) => {
        response.writeHead(200, { "content-length": 1e12 }).write("{");
        return true;
      },
    },
    { name: "a server in trouble", code: "MIRROR_STATUS", behave: status(500) },
    { name: "who wants to know", code: "MIRROR_STATUS", behave: status(401) },
    {
      name: "not modified, although nothing was known",
      code: "MIRROR_STATUS",
      behave: status(304),
    },
    {
      name: "a page of HTML with status 200",
      code: "ENVELOPE_INVALID",
      behave: (_, response) => {
        response.writeHead(200, { "content-type": "text/html" }).end("<html>Hotel Wi-Fi</html>");
        return true;
      },
    },
    {
      name: "redirects in a circle",
      code: "MIRROR_REDIRECT",
      behave: status(302, { location: "/again" }),
    },
    {
      name: "a redirect to a local file",
      code: "MIRROR_REDIRECT",
      behave: status(302, { location: "file:///etc/passwd" }),
    },
    { name: "a redirect to nowhere", code: "MIRROR_REDIRECT", behave: status(301) },
    {
      name: "silence after the headers",
      code: "MIRROR_STALLED",
      behave: (_, response) => {
        response.writeHead(200, { "content-length": 1000 }).write("{");
        return true;
      },
    },
    { name: "silence before the headers", code: "MIRROR_STALLED", behave: () => true },
    {
      name: "a byte now and then, for ever",
      code: "MIRROR_SLOW",
      behave: drip,
      limits: { rateWindow: "1s" },
    },
    {
      name: "bytes without end",
      code: "MIRROR_OVERSIZE",
      behave: flood,
      limits: { manifestBytes: 200_000 },
    },
    {
      name: "a huge header",
      code: "MIRROR_UNREACHABLE",
      behave: status(200, { "x-fill": "x".repeat(40_000) }),
    },
    {
      name: "a connection cut in the manifest",
      code: "MIRROR_UNREACHABLE",
      behave: (_, response) => {
        response.writeHead(200, { "content-length": 1000 }).write("{");
        setTimeout(() => response.destroy(), 50);
        return true;
      },
    },
    {
      name: "an archive of HTML",
      code: "ARCHIVE_TRUNCATED",
      behave: onArchive((_, response) => {
        response.writeHead(200).end("<html>quota exceeded</html>");
        return true;
      }),
    },
    {
      name: "another range than was asked",
      code: "MIRROR_STATUS",
      behave: onArchive((_, response) => {
        response.writeHead(206, { "content-range": "bytes 0-9/10" }).end("0123456789");
        return true;
      }),
    },
    {
      name: "an archive in drips",
      code: "MIRROR_SLOW",
      behave: onArchive(drip),
      limits: { rateWindow: "1s", minRate: 100_000 },
    },
    {
      name: "an archive without end",
      code: "ARCHIVE_CORRUPT",
      behave: onArchive(flood),
    },
    {
      name: "an archive compressed on its way, against our wish",
      code: "ARCHIVE_CORRUPT",
      behave: onArchive((_, response) => {
        response.writeHead(200, { "content-encoding": "gzip" }).end(Buffer.alloc(200_000, 0x1f));
        return true;
      }),
    },
  ];

  const dripping =
    (code: number, headers: Record<string, string> = {}): Behaviour =>
    (_, response) => {
      response.writeHead(code, headers);
      const timer = setInterval(() => response.write("x"), 50);
      response.on("close", () => {
        clearInterval(timer);
      });
      return true;
    };
  const answers: [number, Record<string, string>, ErrorCode][] = [
    [404, {}, "MIRROR_NOT_FOUND"],
    [500, {}, "MIRROR_STATUS"],
    [302, { location: "/elsewhere" }, "MIRROR_REDIRECT"],
    [416, {}, "ARCHIVE_TRUNCATED"],
    [206, { "content-range": "bytes 0-9/10" }, "MIRROR_STATUS"],
  ];
  table.push(
    ...answers.map(([status, headers, code]) => ({
      ...{ name: `an answer ${status} in drips, for ever`, code },
      behave: onArchive(dripping(status, headers)),
    })),
    {
      name: "early hints without end",
      code: "MIRROR_STALLED",
      behave: (_, response) => {
        const timer = setInterval(() => {
          response.writeEarlyHints({ link: "</x>; rel=preload" });
        }, 50);
        response.on("close", () => {
          clearInterval(timer);
        });
        return true;
      },
    },
    ...["10.1.2.3", "169.254.169.254", "[fd00::1]"].map((host) => ({
      ...{ name: `a redirect into another network, to ${host}`, code: "MIRROR_REDIRECT" as const },
      behave: status(302, { location: `http://${host}/secrets` }),
    })),
  );

  test.each(table)("$name: $code", async ({ code, behave, limits }) => {
    const server = await serve(behave);
    world.configure({ mirrors: [server.url], limits: limits ?? {} });
    await world.refuses(code);
  });

  test("nobody listens: MIRROR_UNREACHABLE", async () => {
    const listener = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => listener.once("listening", resolve));
    const { port } = listener.address() as AddressInfo;
    listener.close();
    world.configure({ mirrors: [`http://127.0.0.1:${port}`] });
    await world.refuses("MIRROR_UNREACHABLE");
  });

  test("a bad mirror does not keep a good one from serving, and status names it", async () => {
    const slow = await serve(onArchive(drip));
    const good = await serve();
    world.configure({ mirrors: [slow.url, good.url], limits: { rateWindow: "1s" } });
    // Nothing is installed: the store's own program is not there.
    world.leavesDownload();
    await world.apply(["apply"], { PATH: await world.pathWithout("nix") });
    const { value } = await world.apply(["status"]);
    expect(value).toMatchObject({
      lastPoll: {
        archives: [{ mirror: slow.url, code: "MIRROR_SLOW" }, { mirror: good.url }],
      },
    });
    const text = await world.host(["status"]);
    expect(text.stdout).toMatch(
      new RegExp(`mirror +${slow.url}: release 2; its archives, .*: MIRROR_SLOW`),
    );
  });

  test("a mirror that drips for ever does not hold back the news of another", async () => {
    const slow = await serve((request, response) => {
      return isManifest(request.url) && drip(request, response);
    });
    world.configure({ mirrors: [slow.url, `file://${world.mirror}`] });
    const { value } = await world.apply(["check"]);
    expect(value).toMatchObject({ decision: "update", mirrors: [{ code: "MIRROR_SLOW" }, {}] });
  });

  test("dead mirrors in front cost their time once, and not for each file", async () => {
    const dead = await Promise.all(Array.from({ length: 9 }, () => serve(() => true)));
    const good = await serve();
    world.configure({ mirrors: [...dead.map(({ url }) => url), good.url] });
    world.leavesDownload();
    const started = performance.now();
    await world.apply(["apply"], { PATH: await world.pathWithout("nix") });
    expect(good.requests.filter(({ path }) => path.startsWith("/archives/"))).not.toEqual([]);
    for (const { requests } of dead) {
      expect(requests.map(({ path }) => path)).toEqual(["/channels/stable/manifest.json"]);
    }
    // One time limit of 2 s for all of them, and no such limit for each.
    expect(performance.now() - started).toBeLessThan(9 * 2_000);
  });

  test("nothing of what a stranger's service answers is told to anybody", async () => {
    const inbox = join(world.directory, "inbox");
    await mkdir(inbox, { recursive: true });
    const genuine = await readFile(world.manifestFile, "utf8");
    const bodies = [
      "S3cret",
      '{"S3cret":"S3cret"}',
      genuine.replace('"fleet-1"', '"S3cret"').replace(/"sig": "..../, '"sig": "AAAA'),
      genuine.replace("vnd.nixos-pull", "S3cret"),
      `${genuine}S3cret`,
    ];
    for (const body of bodies) {
      const server = await serve((_, response) => {
        response.end(body);
        return true;
      });
      world.configure({ mirrors: [server.url], reports: { directory: inbox } });
      const { stdout, stderr } = await world.apply();
      expect(stdout).toContain('"code"');
      const status = await world.host(["status", "--json"]);
      const report = await world.host(["report"]);
      const { payload } = JSON.parse(report.stdout) as { payload: string };
      const poll = await readFile(join(world.state, "poll.json"), "utf8");
      const told = [stdout, stderr, status.stdout, poll, Buffer.from(payload, "base64").toString()];
      expect(told.join("\n")).not.toContain("S3cret");
    }
  });

  test("a bandwidth cap is kept", async () => {
    const server = await serve();
    world.configure({ mirrors: [server.url], limits: { maxRate: 100_000 } });
    const started = performance.now();
    world.leavesDownload();
    await world.apply(["apply"], { PATH: await world.pathWithout("nix") });
    // 300 kB that do not compress take three seconds at least, less the last piece.
    expect(performance.now() - started).toBeGreaterThan(2_000);
    expect((await readdir(join(world.state, "staging"))).length).toBe(1);
  });
});

describe("TLS", () => {
  test("a certificate of an unknown authority: MIRROR_TLS", async () => {
    const server = await serveTls(theirs);
    world.configure({ mirrors: [server.url], tls: { caFile: ours.ca } });
    await world.refuses("MIRROR_TLS");
    expect(server.requests).toEqual([]);
  });

  test("a certificate for another name: MIRROR_TLS", async () => {
    const server = await serveTls(ours);
    world.configure({
      mirrors: [server.url.replace("localhost", "127.0.0.1")],
      tls: { caFile: ours.ca },
    });
    await world.refuses("MIRROR_TLS");
  });

  test("no client certificate where one is demanded: MIRROR_UNREACHABLE", async () => {
    const server = await serveTls(ours, {
      ca: await readFile(ours.ca),
      requestCert: true,
      rejectUnauthorized: true,
    });
    world.configure({ mirrors: [server.url], tls: { caFile: ours.ca } });
    // In TLS 1.3 the refusal comes after the handshake: a connection that is closed.
    await world.refuses("MIRROR_UNREACHABLE");
    world.configure({
      tls: { caFile: ours.ca, certFile: ours.client.cert, keyFile: ours.client.key },
    });
    expect((await world.apply(["check"])).value).toMatchObject({ decision: "update", error: null });
  });

  test("a redirect from https to http: MIRROR_REDIRECT", async () => {
    const plain = await serve();
    const server = await serveTls(ours);
    server.behave = (request, response) => {
      response.writeHead(302, { location: `${plain.url}${request.url}` }).end();
      return true;
    };
    world.configure({ mirrors: [server.url], tls: { caFile: ours.ca } });
    await world.refuses("MIRROR_REDIRECT");
    expect(plain.requests).toEqual([]);
  });

  test("the environment cannot turn the check of certificates off: MIRROR_TLS", async () => {
    const server = await serveTls(theirs);
    world.configure({ mirrors: [server.url], tls: { caFile: ours.ca } });
    await world.refuses("MIRROR_TLS", ["apply"], { NODE_TLS_REJECT_UNAUTHORIZED: "0" });
    expect(server.requests).toEqual([]);
  });

  test.each([
    ["authorities", (it: Certificates, broken: string) => ({ ...filesOf(it), caFile: broken })],
    ["a key", (it: Certificates, broken: string) => ({ ...filesOf(it), keyFile: broken })],
  ])("%s that are no PEM: CREDENTIAL_UNREADABLE, and no word of them", async (_, broken) => {
    const file = join(world.directory, "broken.pem");
    await writeFile(file, "S3cret, but no PEM\n");
    const server = await serveTls(ours);
    world.configure({ mirrors: [server.url], tls: broken(ours, file) });
    const { stdout, stderr } = await world.refuses("CREDENTIAL_UNREADABLE");
    expect(stdout + stderr).toContain("expected PEM");
    expect(stdout + stderr).not.toContain("S3cret");
  });

  test("a renewed certificate is used at once by a service that runs", async () => {
    const server = await serveTls(ours, {
      ca: await readFile(ours.ca),
      requestCert: true,
      rejectUnauthorized: false,
    });
    const shown: boolean[] = [];
    server.behave = (request, response) => {
      const { authorized } = request.socket as typeof request.socket & { authorized: boolean };
      shown.push(authorized);
      response.writeHead(404).end();
      return true;
    };
    const [certFile, keyFile] = [
      join(world.directory, "now.pem"),
      join(world.directory, "now.key"),
    ];
    await cp(theirs.client.cert, certFile);
    await cp(theirs.client.key, keyFile);
    world.configure({
      mirrors: [server.url],
      tls: { caFile: ours.ca, certFile, keyFile },
      poll: { interval: "1s", jitter: "0s" },
    });
    await world.serve(async () => {
      await comes(() => {
        expect(shown.length).toBeGreaterThan(0);
      });
      expect(shown).not.toContain(true);
      await cp(ours.client.cert, certFile);
      await cp(ours.client.key, keyFile);
      await comes(() => {
        expect(shown.at(-1)).toBe(true);
      });
    });
  });

  test("a missing key file: CREDENTIAL_UNREADABLE", async () => {
    const server = await serveTls(ours);
    const missing = join(world.directory, "missing.pem");
    world.configure({ mirrors: [server.url], tls: { caFile: missing } });
    await world.refuses("CREDENTIAL_UNREADABLE");
  });

  test("through a proxy the mirror is still who it says", async () => {
    const proxy = await startProxy();
    onTestFinished(() => {
      proxy.close();
    });
    const env = { HTTPS_PROXY: proxy.url };
    const good = await serveTls(ours);
    world.configure({ mirrors: [good.url], tls: { caFile: ours.ca } });
    expect((await world.apply(["check"], env)).value.decision).toBe("update");
    expect(proxy.tunnels).toContain(new URL(good.url).host);
    const bad = await serveTls(theirs);
    world.configure({ mirrors: [bad.url] });
    await world.refuses("MIRROR_TLS", ["apply"], env);
  });
});

describe("credentials", () => {
  const SECRET = "fleet:S3cret-that-nobody-may-see";
  const BASIC = `Basic ${Buffer.from(SECRET).toString("base64")}`;

  async function credentialFile(): Promise<string> {
    const file = join(world.directory, "mirror.password");
    await writeFile(file, `${SECRET}\n`, { mode: 0o600 });
    return file;
  }

  test("a mirror gets its secret, and no other origin does, whatever it redirects to", async () => {
    const other = await serve();
    const server = await serve((request, response) => {
      if (request.headers.authorization !== BASIC) {
        response.writeHead(401).end();
        return true;
      }
      if (isManifest(request.url)) return false;
      response.writeHead(302, { location: `${other.url}${request.url}` }).end();
      return true;
    });
    const file = await credentialFile();
    world.configure({
      mirrors: [server.url],
      credentials: { [server.url]: { type: "basic", file } },
    });
    const { value, stderr, stdout } = await world.apply(["check"]);
    expect(value, stderr).toMatchObject({ decision: "update", error: null });
    expect(other.requests.length).toBeGreaterThan(0);
    for (const { headers } of other.requests) expect(headers.authorization).toBeUndefined();
    expect(stdout + stderr).not.toContain("S3cret");
  });

  test("the client certificate is not shown to where a mirror redirects", async () => {
    const asked: boolean[] = [];
    const other = await serveTls(ours, {
      ca: await readFile(ours.ca),
      requestCert: true,
      rejectUnauthorized: false,
    });
    other.behave = (request) => {
      const { authorized } = request.socket as typeof request.socket & { authorized: boolean };
      asked.push(authorized);
      return false;
    };
    const server = await serveTls(ours);
    server.behave = (request, response) => {
      if (isManifest(request.url)) return false;
      response.writeHead(302, { location: `${other.url}${request.url}` }).end();
      return true;
    };
    const { cert: certFile, key: keyFile } = ours.client;
    world.configure({ mirrors: [server.url], tls: { caFile: ours.ca, certFile, keyFile } });
    expect((await world.apply(["check"])).value.decision).toBe("update");
    expect(asked.length).toBeGreaterThan(0);
    expect(asked).not.toContain(true);
  });

  test("a bearer token from a systemd credential", async () => {
    const server = await serve((request, response) => {
      if (request.headers.authorization === "Bearer t0ken") return false;
      response.writeHead(401).end();
      return true;
    });
    await writeFile(join(world.directory, "mirror-token"), "t0ken\n");
    world.configure({
      mirrors: [server.url],
      credentials: { [server.url]: { type: "bearer", credential: "mirror-token" } },
    });
    await world.refuses("CREDENTIAL_UNREADABLE");
    const env = { CREDENTIALS_DIRECTORY: world.directory };
    expect((await world.apply(["check"], env)).value.decision).toBe("update");
  });

  test("a secret is in no file, log line or status, also when everything fails", async () => {
    const server = await serve((request, response) => {
      if (isManifest(request.url)) return false;
      response.writeHead(500).end();
      return true;
    });
    const file = await credentialFile();
    world.configure({
      mirrors: [server.url],
      credentials: { [server.url]: { type: "basic", file } },
      log: { level: "debug", format: "json" },
    });
    const failed = await world.refuses("MIRROR_STATUS");
    const status = await world.host(["status", "--json"]);
    const history = await world.host(["history", "--json"]);
    const files = await Promise.all(
      (await readdir(world.state, { withFileTypes: true }))
        .filter((entry) => entry.isFile())
        .map(({ name }) => readFile(join(world.state, name), "utf8")),
    );
    const everything = [failed, status, history].flatMap((it) => [it.stdout, it.stderr]);
    for (const text of [...everything, ...files]) {
      expect(text).not.toContain("S3cret");
      expect(text).not.toContain(BASIC.slice(6));
    }
  });

  test.each([
    ["a password in an address", { mirrors: ["https://fleet:S3cret@mirror.example"] }],
    [
      "a secret for a mirror in the clear",
      {
        mirrors: ["http://mirror.example"],
        credentials: { "http://mirror.example": { type: "basic", file: "/run/secret" } },
      },
    ],
    [
      "a secret for an address that is no mirror",
      { credentials: { "https://elsewhere.example": { type: "basic", file: "/run/secret" } } },
    ],
    ["a certificate without its key", { tls: { certFile: "/run/cert.pem" } }],
  ])("%s: CONFIG_INVALID", async (_, settings) => {
    world.configure(settings);
    const { stdout, stderr } = await world.refuses("CONFIG_INVALID");
    expect(stdout + stderr).not.toContain("S3cret");
  });
});
