import { spawn, spawnSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { breakingLink, type LinkFaults } from "../support/breaking-link.ts";
import { testEnvironment } from "../support/nixos-pull.ts";
import { PAYLOAD_BYTES, publishReleases, type ReleaseSeries } from "../support/release-series.ts";
import { suiteDirectory } from "../support/suite-directory.ts";
import { temporaryDirectory } from "../support/temporary.ts";
import { codeOf, expectConvergence, expectWhole } from "./support/host-end.ts";
import { pick, randomFor, samples, SEED, Tally } from "./support/sampling.ts";

const random = randomFor("links");
const tally = new Tally();
const directory = suiteDirectory();
let series: ReleaseSeries;

beforeAll(async () => {
  series = await publishReleases(directory);
});
afterAll(() => {
  console.log(`links: ${tally.text()}`);
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Starts a server until the test ends, and waits until it answers; gives its address. */
async function serving(port: number, command: string, args: readonly string[]): Promise<string> {
  const server = spawn(command, args, { env: testEnvironment(), stdio: "ignore" });
  const closed = new Promise((resolve) => server.once("close", resolve));
  onTestFinished(async () => {
    server.kill("SIGTERM");
    await closed;
  });
  const url = `http://127.0.0.1:${port}`;
  for (const end = performance.now() + 60_000; performance.now() < end;) {
    const answered = await fetch(url).then(
      () => true,
      () => false,
    );
    if (answered) return url;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${command} does not answer`);
}

async function nginx(mirror: string): Promise<string> {
  const port = await freePort();
  const home = await temporaryDirectory();
  await mkdir(join(home, "temporary"));
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (name) => `${name}_temp_path ${home}/temporary/${name};`,
  );
  await writeFile(
    join(home, "nginx.conf"),
    `daemon off; master_process off; pid ${home}/pid; error_log ${home}/error.log;
     ${process.getuid?.() === 0 ? "user root;" : ""}
     events {}
     http { access_log off; ${paths.join(" ")}
       server { listen 127.0.0.1:${port}; root ${mirror}; } }`,
  );
  return serving(port, "nginx", ["-c", join(home, "nginx.conf"), "-e", join(home, "error.log")]);
}

async function pythonServer(mirror: string): Promise<string> {
  const port = await freePort();
  const bind = ["--bind", "127.0.0.1", "--directory", mirror];
  return serving(port, "python3", ["-m", "http.server", String(port), ...bind]);
}

const has = (command: string): boolean => !spawnSync(command, ["-V"]).error;

const serverOf = (mirror: string): Promise<string> =>
  has("nginx") ? nginx(mirror) : pythonServer(mirror);

/** A link that still brings something by each connection. */
function badLink() {
  const size = Math.round(pick(random, [60_000, 150_000, 500_000]) * (0.6 + random()));
  const end = pick(random, ["reset", "close"] as const);
  return { bytes: () => size, end, delayMs: pick(random, [0, 0, 5, 30]) };
}

const titleOf = ({ bytes, end, delayMs }: ReturnType<typeof badLink>): string =>
  `${end} every ${bytes()} bytes, ${delayMs} ms late`;

describe(`a link that breaks (seed ${SEED})`, () => {
  test.skipIf(!has("nginx")).each(Array.from({ length: samples(4) }, badLink))(
    "brings a release from nginx in one attempt, however often it breaks (%#)",
    async (faults) => {
      const mirror = await series.mirror(2);
      const link = await breakingLink(await nginx(mirror.directory), faults);
      const host = await series.host({ mirrors: [link.url] });
      const output = await host.run("apply", "--json");
      expect(output.exitCode, `${titleOf(faults)}\n${output.stdout}${output.stderr}`).toBe(0);
      expect(link.broken).toBeGreaterThanOrEqual(Math.floor(PAYLOAD_BYTES / faults.bytes()));
      tally.count("in one attempt");
      await expectConvergence(host, series);
    },
  );

  test("and falls silent brings a release too, if another connection does not", async () => {
    const mirror = await series.mirror(2);
    const silent: LinkFaults = {
      bytes: (connection) => (connection === 1 ? 400_000 : Infinity),
      end: "silence",
    };
    const link = await breakingLink(await serverOf(mirror.directory), silent);
    const host = await series.host({ mirrors: [link.url], limits: { stallTimeout: "2s" } });
    const output = await host.run("apply", "--json");
    expect(output.exitCode, output.stdout).toBe(0);
    expect(link.broken).toBe(1);
    tally.count("in one attempt");
  });

  test("and never brings anything is named, and leaves the host as it is", async () => {
    const mirror = await series.mirror(2);
    const link = await breakingLink(await serverOf(mirror.directory), { bytes: () => 100 });
    const host = await series.host({ mirrors: [link.url] });
    const output = await host.run("apply", "--json");
    expect(output.exitCode).toBe(5);
    expect(codeOf(output)).toBe("MIRROR_UNREACHABLE");
    expect(link.connections).toBeLessThanOrEqual(3);
    tally.count("MIRROR_UNREACHABLE");
    await expectWhole(host, series);
    link.faults = {};
    await expectConvergence(host, series);
  });

  test.skipIf(!has("python3"))(
    "before a server without ranges brings a release if one connection lasts, and is named if none does",
    async () => {
      const mirror = await series.mirror(2);
      const link = await breakingLink(await pythonServer(mirror.directory));
      const host = await series.host({ mirrors: [link.url] });
      link.faults = { bytes: () => 150_000, end: "close" };
      const refused = await host.run("apply", "--json");
      expect(codeOf(refused), refused.stderr).toBe("MIRROR_UNREACHABLE");
      expect(refused.stdout).toContain("this server knows no ranges");
      tally.count("MIRROR_UNREACHABLE");
      await expectWhole(host, series);
      link.faults = { bytes: (connection) => 150_000 * 2 ** (connection % 8), end: "close" };
      await expectConvergence(host, series);
      tally.count("in two attempts");
    },
  );
});
