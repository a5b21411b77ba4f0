// `nixos-pull doctor` on hosts that are well and hosts that are not, with the real thing.
import { chmod, readFile, readdir, lstat, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { beforeAll, beforeEach, expect, onTestFinished, test } from "vitest";
import { startNginx } from "../../scripts/bench/support/nginx.mjs";
import { generateKey } from "../../agent/core/formats/signing-key.ts";
import { buildSystem } from "../support/closure.ts";
import { issueCertificate, type CertificateRequest } from "../support/dated-certificate.ts";
import { makeCertificates, startServer, type Behaviour } from "../support/hostile-server.ts";
import { startNixDaemon } from "../support/nix-daemon.ts";
import { nixosPull } from "../support/nixos-pull.ts";
import { createHost, createOperator, type Operator, type SandboxHost } from "../support/sandbox.ts";
import { mountTmpfs, whyNoMounts } from "../support/scratch-mount.ts";
import { temporaryDirectory } from "../support/temporary.ts";

interface Check {
  readonly id: string;
  readonly subject: string | null;
  readonly outcome: string;
  readonly found: string;
  readonly advice: string | null;
  readonly code: string | null;
}

let system: string;
let operator: Operator;
beforeAll(async () => {
  system = await buildSystem();
});
beforeEach(async () => {
  operator = await createOperator();
  await operator.publish({ web1: system });
});

/** A host that follows these mirrors; `installed` has the release of the operator's mirror. */
async function hostWith(mirrors: string[], settings: object = {}): Promise<SandboxHost> {
  // Whether a time server sets the clock is this machine's business.
  const common = { publicKeys: [operator.publicKey], clock: "ignore" };
  return createHost({ mirrors, ...common, ...settings });
}

async function installedHost(settings: object = {}): Promise<SandboxHost> {
  const host = await hostWith([pathToFileURL(operator.mirror).href], settings);
  expect(await host.run("apply")).toMatchObject({ exitCode: 0 });
  return host;
}

async function examine(
  host: SandboxHost,
  env: Record<string, string> = {},
): Promise<{ exitCode: number | null; checks: Check[] }> {
  const args = ["doctor", "--config", host.configFile, "--json"];
  const { exitCode, stdout, stderr } = await nixosPull(args, env);
  expect(stderr).toBe("");
  return { exitCode, checks: (JSON.parse(stdout) as { checks: Check[] }).checks };
}

function failures(checks: readonly Check[]): string[] {
  return checks
    .filter(({ outcome }) => outcome === "failed")
    .map(({ id, code }) => `${id}${code === null ? "" : ` ${code}`}`);
}

function of(checks: readonly Check[], id: string): Check {
  const found = checks.find((check) => check.id === id);
  if (!found) throw new Error(`no ${id}`);
  return found;
}

/** Everything below a directory: kinds, modes, times, contents and links. */
async function treeOf(directory: string): Promise<Record<string, string>> {
  const tree: Record<string, string> = {};
  for (const name of await readdir(directory, { recursive: true })) {
    const path = join(directory, name);
    const { mode, mtimeMs, size } = await lstat(path);
    const isFile = (mode & 0o170000) === 0o100000;
    const link = await readlink(path).catch(() => "");
    const contents = isFile && size < 1e6 ? (await readFile(path)).toString("base64") : "";
    tree[name] = `${mode} ${mtimeMs} ${size} ${link} ${contents}`;
  }
  return tree;
}

test("a host that is well passes all that a sandbox can try, and nothing is changed", async () => {
  const host = await installedHost();
  const places = ["state", "run", "nix/store", "nix/var/nix/gcroots", "nix/var/nix/profiles"];
  const look = () => Promise.all(places.map((it) => treeOf(join(host.root, it))));
  const before = await look();
  const { exitCode, checks } = await examine(host);
  expect(failures(checks)).toEqual([]);
  // A sandbox has no units.
  expect(checks.filter(({ outcome }) => outcome === "untried").map(({ id }) => id)).toEqual([
    ...["units.agent", "units.boot-deadline", "units.boot-complete"],
  ]);
  expect(exitCode).toBe(23);
  expect(of(checks, "release.closure").found).toMatch(/^all \d+ paths are here$/);
  expect(of(checks, "mirror.archive").outcome).toBe("passed");
  expect(await look()).toEqual(before);
});

test("people read what failed first, with what to do", async () => {
  const host = await installedHost();
  await chmod(host.state, 0o777);
  const { exitCode, stdout } = await host.run("doctor");
  expect(exitCode).toBe(22);
  const lines = stdout.split("\n");
  expect(lines[0]).toBe(`FAILED files.state  ${host.state}`);
  expect(lines[1]).toBe("  expected  a state directory that is this host's alone");
  expect(lines[2]).toMatch(/^ {2}found {5}.*found mode 777 of user 0/);
  expect(lines[3]).toMatch(/^ {2}do {8}`chown/);
  expect(lines.at(-2)).toMatch(/^\d+ checks: 1 failed, \d could not be tried, \d+ passed\.$/);
  // It was not mended.
  expect((await lstat(host.state)).mode & 0o777).toBe(0o777);
});

test("a configuration that is wrong or missing is a check that failed", async () => {
  const host = await hostWith(["https://mirror.example.org"]);
  await writeFile(host.configFile, '{"mirrors": []}');
  const { exitCode, checks } = await examine(host);
  expect(exitCode).toBe(22);
  expect(failures(checks)).toEqual(["configuration.file CONFIG_INVALID"]);
  const lost = await nixosPull(["doctor", "--config", "/nowhere.json", "--json"]);
  expect(JSON.parse(lost.stdout)).toMatchObject({
    ...{ hostname: null, outcome: "failed", checks: [{ code: "CONFIG_NOT_FOUND" }] },
  });
});

const TLS: readonly [string, CertificateRequest, RegExp, RegExp][] = [
  [
    "has expired",
    { name: "localhost", to: "20210101000000Z" },
    /expired at 2021-01-01T00:00:00.000Z; this host's clock says/,
    /renew/,
  ],
  [
    "is not valid yet",
    { name: "localhost", from: "20980101000000Z" },
    /is valid from 2098-01-01T00:00:00.000Z/,
    /set the clock/,
  ],
  [
    "is for another name",
    { name: "other.example.org" },
    /DNS:other\.example\.org/,
    /correct the name/,
  ],
];

test.each(TLS)("a certificate that %s", async (_, request, found, advice) => {
  const directory = await temporaryDirectory();
  const { ca } = makeCertificates(directory, "ours");
  const { cert, key } = issueCertificate(directory, "ours", request);
  const server = await startServer(operator.mirror, undefined, {
    ...{ cert: await readFile(cert), key: await readFile(key) },
  });
  onTestFinished(() => {
    server.close();
  });
  const { exitCode, checks } = await examine(await hostWith([server.url], { tls: { caFile: ca } }));
  expect(exitCode).toBe(22);
  expect(failures(checks).filter((it) => it.startsWith("mirror."))).toEqual([
    ...["mirror.tls MIRROR_TLS", "mirror.any MIRROR_TLS"],
  ]);
  expect(of(checks, "mirror.connection").outcome).toBe("passed");
  expect(of(checks, "mirror.tls").found).toMatch(found);
  expect(of(checks, "mirror.tls").advice).toMatch(advice);
  expect(of(checks, "mirror.answer").outcome).toBe("untried");
});

test("a certificate by an authority that this host does not know, and one that it knows", async () => {
  const directory = await temporaryDirectory();
  const { server: pair, ca } = makeCertificates(directory, "ours");
  const { ca: other } = makeCertificates(directory, "others");
  const server = await startServer(operator.mirror, undefined, {
    ...{ cert: await readFile(pair.cert), key: await readFile(pair.key) },
  });
  onTestFinished(() => {
    server.close();
  });
  const refused = await examine(await hostWith([server.url], { tls: { caFile: other } }));
  expect(of(refused.checks, "mirror.tls")).toMatchObject({
    ...{ outcome: "failed", code: "MIRROR_TLS" },
  });
  expect(of(refused.checks, "mirror.tls").found).toContain("is not trusted");
  expect(of(refused.checks, "mirror.tls").advice).toContain("tls.caFile");
  const good = await examine(await hostWith([server.url], { tls: { caFile: ca } }));
  expect(of(good.checks, "mirror.tls").found).toContain("the certificate of localhost by ours");
  expect(failures(good.checks).filter((it) => it.startsWith("mirror."))).toEqual([]);
});

test("nginx passes all checks of a mirror, and one that was stopped is named", async () => {
  const nginx = await startNginx(operator.mirror, join(await temporaryDirectory(), "nginx"));
  onTestFinished(() => {
    nginx.stop();
  });
  const host = await hostWith([nginx.url]);
  const { checks } = await examine(host);
  expect(
    checks.filter(({ id }) => id.startsWith("mirror.")).map((it) => `${it.id} ${it.outcome}`),
  ).toEqual([
    "mirror.name passed",
    "mirror.connection passed",
    "mirror.answer passed",
    "mirror.manifest passed",
    "mirror.archive passed",
    "mirror.ranges passed",
    "mirror.any passed",
  ]);
  expect(of(checks, "clock.mirror").found).toBe("the same time");
  expect(of(checks, "release.closure").found).toContain("to download");
});

const ANSWERS: readonly [string, Behaviour, string[]][] = [
  [
    "wants credentials",
    (_, response) => {
      response.writeHead(401).end();
      return true;
    },
    ["mirror.answer MIRROR_STATUS"],
  ],
  [
    "lives in another year",
    (_, response) => {
      response.setHeader("date", "Thu, 01 Jan 2099 00:00:00 GMT");
      return false;
    },
    ["clock.mirror CLOCK_BEHIND"],
  ],
  [
    "has no manifest",
    (_, response) => {
      response.writeHead(404).end();
      return true;
    },
    ["mirror.manifest MIRROR_NOT_FOUND"],
  ],
  [
    "knows no ranges",
    (request) => {
      delete request.headers.range;
      return false;
    },
    ["mirror.ranges"],
  ],
];

test.each(ANSWERS)("a server that %s", async (_, behave, expected) => {
  const server = await startServer(operator.mirror, behave);
  onTestFinished(() => {
    server.close();
  });
  // A second mirror, so that everything else can be tried.
  const host = await installedHost();
  const config = JSON.parse(await readFile(host.configFile, "utf8")) as { mirrors: string[] };
  config.mirrors = [server.url, ...config.mirrors];
  await writeFile(host.configFile, JSON.stringify(config));
  const { exitCode, checks } = await examine(host);
  expect(failures(checks)).toEqual(expected);
  expect(exitCode).toBe(22);
});

test("a release that another key signed", async () => {
  const host = await installedHost();
  const config = JSON.parse(await readFile(host.configFile, "utf8")) as object;
  const publicKeys = [generateKey("other-1").public];
  await writeFile(host.configFile, JSON.stringify({ ...config, publicKeys }));
  const { checks } = await examine(host);
  expect(of(checks, "keys.release")).toMatchObject({ code: "SIGNATURE_THRESHOLD" });
});

test("a Nix daemon that does not trust this host's user", async () => {
  const daemon = await startNixDaemon(["trusted-users = nobody", "trusted-public-keys ="]);
  const host = await hostWith([pathToFileURL(operator.mirror).href], { store: daemon.store });
  const { checks } = await examine(host, daemon.env);
  expect(of(checks, "store.trust")).toMatchObject({ outcome: "failed", code: "IMPORT_FAILED" });
  expect(of(checks, "release.closure")).toMatchObject({ outcome: "failed", code: "IMPORT_FAILED" });
});

const noMounts = whyNoMounts();

test.skipIf(noMounts !== null)("a full disk for staging", async () => {
  const full = join(await temporaryDirectory(), "staging");
  await mountTmpfs(full, "64k");
  const host = await installedHost();
  const config = JSON.parse(await readFile(host.configFile, "utf8"));
  config.paths.staging = full;
  config.limits.reserveBytes = 1_000_000;
  await writeFile(host.configFile, JSON.stringify(config));
  const { checks } = await examine(host);
  expect(failures(checks)).toContain("disk.space DISK_FULL");
  const space = checks.find(({ id, outcome }) => id === "disk.space" && outcome === "failed");
  expect(space).toMatchObject({ subject: full });
  expect(space?.found).toContain("expected 976.6 KiB (limits.reserveBytes)");
  expect(space?.advice).toContain("--delete-generations");
});

test("a secret that other users may read", async () => {
  const secret = join(await temporaryDirectory(), "secret");
  await writeFile(secret, "x".repeat(9));
  await chmod(secret, 0o644);
  const mirror = "https://localhost:1/m";
  const host = await hostWith([mirror], {
    credentials: { [mirror]: { type: "bearer", file: secret } },
  });
  const { checks } = await examine(host);
  expect(of(checks, "files.credential").found).toContain("mode 0644");
  expect(of(checks, "mirror.connection")).toMatchObject({ code: "MIRROR_UNREACHABLE" });
});

test("a directory for reports that is not there", async () => {
  const host = await installedHost({ reports: { directory: "/nowhere/reports" } });
  const { checks } = await examine(host);
  expect(failures(checks)).toEqual(["reports.directory"]);
});
