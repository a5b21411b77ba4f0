import {
  cp,
  mkdir,
  readFile,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { sealEnvelope } from "../../agent/core/formats/envelope.ts";
import { openReport } from "../../agent/core/formats/report.ts";
import { parsePublicKey } from "../../agent/core/formats/signing-key.ts";
import { answerOf } from "../support/answer.ts";
import { buildSystem } from "../support/closure.ts";
import { serveMirror, type MirrorServer } from "../support/mirror-server.ts";
import { nixosPull, startCommand, type CommandOutput } from "../support/nixos-pull.ts";
import { createHost, createOperator, type Operator, type SandboxHost } from "../support/sandbox.ts";
import { publishedHosts } from "../support/published.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const PART = 300_000;
/** What two hosts share, and what a second generation leaves as it is. */
const ROW = { parts: 3, partBytes: PART };

const systemOf = (name: string, generation = "1"): Promise<string> =>
  buildSystem({ ...ROW, name, generation });

/** `nixos-pull mirror` with the operator's key; its parsed output. */
async function mirror(
  operator: Operator,
  from: string,
  to: string,
  ...args: string[]
): Promise<CommandOutput & { value: any }> {
  const output = await nixosPull([
    ...["mirror", from, to, "--public-key", operator.publicKey, "--json"],
    ...args,
  ]);
  return { ...output, value: output.stdout === "" ? null : JSON.parse(output.stdout) };
}

/** The same, where nothing may go wrong. */
async function mirrored(
  operator: Operator,
  from: string,
  to: string,
  ...args: string[]
): Promise<any> {
  const { exitCode, stderr, value } = await mirror(operator, from, to, ...args);
  expect(exitCode, stderr).toBe(0);
  return value;
}

async function proved(operator: Operator, stick: string): Promise<any> {
  const verify = ["verify", stick, "--public-key", operator.publicKey, "--json"];
  const { exitCode, stdout, stderr } = await nixosPull(verify);
  return { exitCode, stderr, channels: stdout === "" ? [] : JSON.parse(stdout).channels };
}

const manifestOf = (directory: string, channel = "stable"): string =>
  join(directory, "channels", channel, "manifest.json");

const archivesOf = async (directory: string): Promise<string[]> =>
  (await readdir(join(directory, "archives"))).sort();

async function bytesOf(directory: string): Promise<number> {
  const sizes = (await archivesOf(directory)).map(
    async (name) => (await stat(join(directory, "archives", name))).size,
  );
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** An empty stick. */
const newStick = async (): Promise<string> => join(await temporaryDirectory(), "stick");

/** A sandbox host that follows a stick. */
const hostOn = (
  stick: string,
  operator: Operator,
  hostname = "web1",
  settings: Record<string, unknown> = {},
): Promise<SandboxHost> =>
  createHost(
    { mirrors: [`file://${stick}`], publicKeys: [operator.publicKey], ...settings },
    hostname,
  );

async function applies(host: SandboxHost, toplevel: string): Promise<void> {
  const { exitCode, stderr } = await host.run("apply");
  expect(exitCode, stderr).toBe(0);
  expect(await host.profileToplevel()).toBe(toplevel);
}

/** The host's signed report as a file, and its key. */
async function reportOf(host: SandboxHost): Promise<{ file: string; key: string }> {
  const file = join(host.root, "report.json");
  expect((await host.run("report", "--out", file)).exitCode).toBe(0);
  return { file, key: (await host.run("report", "--public-key")).stdout.trim() };
}

describe("mirror copies a release", () => {
  test("from a server or a directory, whole, and then only what lacks", async () => {
    const operator = await createOperator();
    const [web1, db1] = [await systemOf("web1"), await systemOf("db1")];
    await operator.publish({ web1, db1 });
    await operator.publish({ web1 }, "--channel", "canary");
    const server = await serveMirror(operator.mirror);
    const [fromServer, fromDirectory] = [await newStick(), await newStick()];

    const copied = await mirrored(operator, server.url, fromServer);
    expect(copied).toMatchObject({
      channels: [{ channel: "stable", sequence: 1, isNews: true, expired: false }],
      copied: { archives: 3, present: 0 },
    });
    const both = await mirrored(operator, operator.mirror, fromDirectory);
    expect(both.channels.map((it: any) => it.channel)).toEqual(["canary", "stable"]);
    expect(await archivesOf(fromDirectory)).toEqual(await archivesOf(operator.mirror));
    for (const [stick, count] of [
      [fromServer, 1],
      [fromDirectory, 2],
    ] as const) {
      const { exitCode, channels } = await proved(operator, stick);
      expect(exitCode).toBe(0);
      expect(channels).toHaveLength(count);
      expect(await readFile(manifestOf(stick))).toEqual(
        await readFile(manifestOf(operator.mirror)),
      );
    }
    await applies(await hostOn(fromServer, operator), web1);

    await operator.publish({ web1: await systemOf("web1", "2"), db1 });
    const from = server.requests.length;
    const next = await mirrored(operator, server.url, fromServer);
    // The host's own archive; what did not change is on the stick.
    expect(next.copied).toMatchObject({ archives: 1, present: 2 });
    expect(next.copied.bytes).toBeLessThan(PART);
    expect(server.requests.length - from).toBeLessThan(6);
    expect((await proved(operator, fromServer)).exitCode).toBe(0);
    const again = await mirrored(operator, server.url, fromServer);
    expect(again).toMatchObject({
      channels: [{ isNews: false }],
      copied: { archives: 0, bytes: 0 },
    });
  });

  test("for some hosts, and verify tells what was left out from what was lost", async () => {
    const operator = await createOperator();
    const [web1, db1] = [await systemOf("web1"), await buildSystem({ name: "db1" })];
    await operator.publish({ web1, db1 });
    const stick = await newStick();
    const dry = await mirrored(operator, operator.mirror, stick, "--host", "db1", "--dry-run");
    expect(await isThere(manifestOf(stick))).toBe(false);
    const copied = await mirrored(operator, operator.mirror, stick, "--host", "db1");
    expect(copied.copied).toEqual(dry.copied);
    expect(await bytesOf(stick)).toBeLessThan(PART);
    const { exitCode, channels } = await proved(operator, stick);
    expect(exitCode).toBe(0);
    expect(channels[0].hosts).toMatchObject([
      { hostname: "db1" },
      { hostname: "web1", leftOut: true },
    ]);
    await applies(await hostOn(stick, operator, "db1"), db1);

    const stranger = await mirror(operator, operator.mirror, stick, "--host", "web9");
    expect(stranger).toMatchObject({ exitCode: 4 });
    expect(stranger.stderr).toContain("HOST_NOT_IN_RELEASE");
    // A host that is not meant finds nothing, and stays as it is.
    const other = await hostOn(stick, operator, "web1");
    expect(await answerOf(other, "apply")).toMatchObject({
      updated: false,
      error: { code: "MIRROR_NOT_FOUND" },
    });
    expect(await other.stagingIsClean()).toBe(true);

    const [archive = ""] = await archivesOf(stick);
    await rm(join(stick, "archives", archive));
    const lost = await proved(operator, stick);
    expect(lost.exitCode).toBe(5);
    // The rest comes to a stick for one host as to any other.
    await mirrored(operator, operator.mirror, stick);
    const whole = await proved(operator, stick);
    expect(whole.exitCode).toBe(0);
    expect(whole.channels[0].hosts[1]).toMatchObject({ hostname: "web1", paths: 8 });
  });

  test("and keeps as many releases there as it is told", async () => {
    const operator = await createOperator();
    const stick = await newStick();
    for (const generation of ["1", "2", "3"]) {
      await operator.publish({ web1: await buildSystem({ generation }) }, "--whole");
      await mirrored(
        operator,
        operator.mirror,
        stick,
        ...(generation === "3" ? ["--keep", "2"] : []),
      );
    }
    // Each with the patch for its index.
    expect(await archivesOf(stick)).toHaveLength(4);
    expect((await proved(operator, stick)).exitCode).toBe(0);
  });
});

describe("mirror is interrupted without harm", () => {
  /** Sends some of the largest archive and then nothing more, until told otherwise. */
  function holdBack(server: MirrorServer, directory: string, after: number): Promise<void> {
    return new Promise((reached) => {
      server.misbehave = (request, response) => {
        const path = request.url ?? "";
        const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
        if (!path.endsWith(".tar") || !range || Number(range[2]) - Number(range[1]) < after) {
          return false;
        }
        void readFile(join(directory, path)).then((bytes) => {
          const [from, to] = [Number(range[1]), Number(range[2])];
          response.writeHead(206, {
            "content-range": `bytes ${from}-${to}/${bytes.length}`,
            "content-length": to - from + 1,
          });
          response.write(bytes.subarray(from, from + after), () => {
            reached();
          });
        });
        return true;
      };
    });
  }

  test("by SIGKILL in the middle of an archive, and goes on there", async () => {
    const operator = await createOperator();
    const first = await buildSystem();
    await operator.publish({ web1: first });
    const stick = await newStick();
    await mirrored(operator, operator.mirror, stick);
    const before = await readFile(manifestOf(stick));
    const SIZE = 3_000_000;
    await operator.publish({ web1: await buildSystem({ payloadBytes: SIZE, generation: "2" }) });

    const server = await serveMirror(operator.mirror);
    const reached = holdBack(server, operator.mirror, 2_000_000);
    const copying = startCommand([
      ...["mirror", server.url, stick, "--public-key", operator.publicKey],
    ]);
    await reached;
    const incoming = join(stick, ".publish/incoming");
    await vi.waitFor(async () => {
      const [name = ""] = await readdir(incoming);
      expect((await stat(join(incoming, name))).size).toBeGreaterThan(1_900_000);
    }, 120_000);
    copying.child.kill("SIGKILL");
    await copying.ended;
    // Hosts still find the release before, and all of it.
    expect(await readFile(manifestOf(stick))).toEqual(before);
    expect((await proved(operator, stick)).exitCode).toBe(0);

    server.misbehave = () => false;
    const from = server.requests.length;
    await mirrored(operator, server.url, stick);
    const asked = server.requests.slice(from).map(({ range }) => /^bytes=(\d+)-/.exec(range ?? ""));
    expect(asked.some((range) => Number(range?.[1]) > 1_900_000)).toBe(true);
    expect(await readdir(incoming)).toEqual([]);
    const { exitCode, channels } = await proved(operator, stick);
    expect(exitCode).toBe(0);
    expect(channels[0].sequence).toBe(2);
  });

  test("and what a power cut left damaged is copied anew", async () => {
    const operator = await createOperator();
    const { stdout } = await operator.publish({ web1: await buildSystem() }, "--json");
    const { sha256 } = publishedHosts(stdout)["web1"]!.archive;
    const stick = await newStick();
    await mkdir(join(stick, ".publish/incoming"), { recursive: true });
    await writeFile(join(stick, ".publish/incoming", `${sha256}.tar`), Buffer.alloc(5_000, 1));
    await mirrored(operator, operator.mirror, stick);
    expect((await proved(operator, stick)).exitCode).toBe(0);
  });
});

describe("mirror refuses, and publishes nothing:", () => {
  test("an archive that was tampered with", async () => {
    const operator = await createOperator();
    const { stdout } = await operator.publish({ web1: await systemOf("web1") }, "--json");
    const { sha256, size } = publishedHosts(stdout)["web1"]!.archive;
    const file = join(operator.mirror, "archives", `${sha256}.tar`);
    const bytes = await readFile(file);
    bytes[size - PART] = (bytes[size - PART] ?? 0) ^ 1;
    await writeFile(file, bytes);
    const server = await serveMirror(operator.mirror);
    for (const from of [operator.mirror, server.url]) {
      const stick = await newStick();
      const { exitCode, stderr } = await mirror(operator, from, stick);
      expect(exitCode).toBe(6);
      expect(stderr).toContain("ARCHIVE_CORRUPT");
      expect(await archivesOf(stick)).toEqual([]);
      expect(await isThere(manifestOf(stick))).toBe(false);
    }
  });

  test("a manifest that too few have signed", async () => {
    const operator = await createOperator();
    await operator.publish({ web1: await buildSystem() });
    const stick = await newStick();
    const { exitCode, stderr } = await mirror(operator, operator.mirror, stick, "--threshold", "2");
    expect(exitCode).toBe(4);
    expect(stderr).toContain("SIGNATURE_THRESHOLD");
    expect(await isThere(stick)).toBe(false);
  });

  test("a release that is older than the one that is there, unless told", async () => {
    const operator = await createOperator();
    await operator.publish({ web1: await buildSystem({ generation: "1" }) });
    const [older, stick] = [`${operator.mirror}-older`, await newStick()];
    await cp(operator.mirror, older, { recursive: true });
    await operator.publish({ web1: await buildSystem({ generation: "2" }) });
    await mirrored(operator, operator.mirror, stick);
    const newer = await readFile(manifestOf(stick));
    const archives = await archivesOf(stick);
    const { exitCode, stderr } = await mirror(operator, older, stick);
    expect(exitCode).toBe(4);
    expect(stderr).toContain("SEQUENCE_REPLAYED");
    expect(await readFile(manifestOf(stick))).toEqual(newer);
    expect(await archivesOf(stick)).toEqual(archives);
    await mirrored(operator, older, stick, "--allow-older");
    expect(await readFile(manifestOf(stick))).toEqual(await readFile(manifestOf(older)));
  });

  test("another release of the same number", async () => {
    const [operator, other] = [await createOperator(), await createOperator()];
    await operator.publish({ web1: await buildSystem({ generation: "1" }) });
    const stick = await newStick();
    await mirrored(operator, operator.mirror, stick);
    await other.publish({ web1: await buildSystem({ generation: "2" }) });
    const { payload } = JSON.parse(await readFile(manifestOf(other.mirror), "utf8"));
    const envelope = sealEnvelope(Buffer.from(payload, "base64"), [operator.secretKey]);
    await writeFile(manifestOf(other.mirror), envelope);
    const { exitCode, stderr } = await mirror(operator, other.mirror, stick);
    expect(exitCode).toBe(4);
    expect(stderr).toContain("SEQUENCE_CONFLICT");
  });
});

describe("a thin stick", () => {
  /** Two hosts that run release 1, and a mirror that has release 2. */
  async function world(...publish: string[]) {
    const operator = await createOperator();
    const first = { web1: await systemOf("web1", "1"), db1: await systemOf("db1", "1") };
    await operator.publish(first);
    const hosts: Record<string, SandboxHost> = {};
    const keys: string[] = [];
    const reports = join(operator.directory, "reports");
    await mkdir(reports);
    const stick = await newStick();
    for (const [name, toplevel] of Object.entries(first)) {
      const host = await hostOn(operator.mirror, operator, name);
      await applies(host, toplevel);
      const { file, key } = await reportOf(host);
      await cp(file, join(reports, `${name}.json`));
      keys.push("--report-key", key);
      const config = JSON.parse(await readFile(host.configFile, "utf8"));
      await writeFile(host.configFile, JSON.stringify({ ...config, mirrors: [`file://${stick}`] }));
      hosts[name] = host;
    }
    const second = { web1: await systemOf("web1", "2"), db1: await systemOf("db1", "2") };
    await operator.publish(second, ...publish);
    return { operator, hosts, reports, keys, stick, first, second };
  }

  test("has only what the hosts lack, is proved, and brings each of them to the release", async () => {
    const { operator, hosts, reports, keys, stick, second } = await world("--whole");
    const copied = await mirrored(
      operator,
      operator.mirror,
      stick,
      "--for-report",
      reports,
      ...keys,
    );
    expect(copied.channels[0].hosts).toMatchObject([{ hostname: "db1" }, { hostname: "web1" }]);
    expect(await bytesOf(stick)).toBeLessThan(PART / 4);
    expect(await bytesOf(operator.mirror)).toBeGreaterThan(6 * PART);
    const { exitCode, channels, stderr } = await proved(operator, stick);
    expect(exitCode, stderr).toBe(0);
    expect(channels[0].hosts).toMatchObject([{ paths: 8 }, { paths: 8 }]);
    expect(channels[0].hosts[0].missing).toBeGreaterThanOrEqual(3);
    for (const name of ["web1", "db1"] as const) {
      const host = hosts[name]!;
      await applies(host, second[name]);
    }
    // A copy of the stick is as good, made by the same command.
    const site = await newStick();
    await mirrored(operator, stick, site);
    expect((await proved(operator, site)).exitCode).toBe(0);
  });

  test("tells a host that it was not made for, and leaves it as it was", async () => {
    const { operator, reports, keys, stick } = await world("--whole");
    const report = join(reports, "web1.json");
    await mirrored(operator, operator.mirror, stick, "--for-report", report, ...keys);
    const empty = await hostOn(stick, operator, "web1");
    const answer = await answerOf(empty, "apply");
    expect(answer).toMatchObject({ updated: false, error: { code: "ARCHIVE_PARTIAL" } });
    expect(answer.error?.message).toContain("it was made for hosts that have the rest");
    expect(await empty.profileToplevel()).toBeNull();
    expect(await empty.stagingIsClean()).toBe(true);
    // With another mirror beside it, the rest comes from there.
    const config = JSON.parse(await readFile(empty.configFile, "utf8"));
    const mirrors = [...config.mirrors, `file://${operator.mirror}`];
    await writeFile(empty.configFile, JSON.stringify({ ...config, mirrors }));
    expect((await empty.run("apply", "--again")).exitCode).toBe(0);
  });

  test("grows by what another host needs, and verify notices what it lost", async () => {
    const { operator, hosts, reports, keys, stick, second } = await world();
    for (const name of ["web1", "db1"]) {
      const report = join(reports, `${name}.json`);
      await mirrored(operator, operator.mirror, stick, "--for-report", report, ...keys);
    }
    expect((await proved(operator, stick)).exitCode).toBe(0);
    await applies(hosts["web1"]!, second.web1);
    await applies(hosts["db1"]!, second.db1);
    const sized = await Promise.all(
      (await archivesOf(stick)).map(async (name) => ({
        file: join(stick, "archives", name),
        size: (await stat(join(stick, "archives", name))).size,
      })),
    );
    const [largest] = sized.sort((a, b) => b.size - a.size);
    const bytes = await readFile(largest?.file ?? "");
    bytes[bytes.length - 700] = (bytes[bytes.length - 700] ?? 0) ^ 1;
    await writeFile(largest?.file ?? "", bytes);
    expect((await proved(operator, stick)).exitCode).toBe(6);
    await writeFile(largest?.file ?? "", '{"formatVersion":1,"size":100,"ranges":[[0,600]]}\n');
    expect((await proved(operator, stick)).exitCode).toBe(6);
    await rm(largest?.file ?? "");
    expect((await proved(operator, stick)).exitCode).toBe(5);
  });

  test("carries deltas in place of paths where told, and a host makes the paths of them", async () => {
    const operator = await createOperator();
    const rebuilt = (salt: string): Promise<string> =>
      buildSystem({ ...ROW, salt, generation: salt });
    const stick = await newStick();
    await operator.publish({ web1: await rebuilt("a") });
    const host = await hostOn(operator.mirror, operator);
    await applies(host, await rebuilt("a"));
    const { file, key } = await reportOf(host);
    const toplevel = await rebuilt("b");
    await operator.publish({ web1: toplevel }, "--deltas", "1");
    const args = ["--for-report", file, "--report-key", key];
    const [thick, thin] = [stick, await newStick()];
    // Deltas are offered in the index; a stick without them has the paths.
    await mirrored(operator, operator.mirror, thick, ...args);
    await mirrored(operator, operator.mirror, thin, ...args, "--deltas");
    expect(await bytesOf(thick)).toBeGreaterThan(3 * PART);
    expect(await bytesOf(thin)).toBeLessThan(PART / 4);
    for (const one of [thick, thin]) expect((await proved(operator, one)).exitCode).toBe(0);
    const config = JSON.parse(await readFile(host.configFile, "utf8"));
    const follow = (one: string): Promise<void> =>
      writeFile(host.configFile, JSON.stringify({ ...config, mirrors: [`file://${one}`] }));
    await follow(thin);
    await applies(host, toplevel);
    const other = await hostOn(operator.mirror, operator);
    await rm(manifestOf(operator.mirror));
    const twin = JSON.parse(await readFile(other.configFile, "utf8"));
    await writeFile(other.configFile, JSON.stringify({ ...twin, mirrors: [`file://${thick}`] }));
    // It holds no base and lacks what the report said to be there.
    expect(await answerOf(other, "apply")).toMatchObject({ error: { code: "ARCHIVE_PARTIAL" } });
  });

  test("is made of believed reports only", async () => {
    const { operator, hosts, reports, stick } = await world();
    const other = await reportOf(hosts["db1"]!);
    const forged = other.key.replace("host-db1", "host-web1");
    const report = join(reports, "web1.json");
    for (const [args, exitCode, code] of [
      [[], 2, "USAGE"],
      [["--report-key", forged], 4, "SIGNATURE_THRESHOLD"],
      [["--report-key", other.key], 4, "SIGNATURE_THRESHOLD"],
      [["--report-key", operator.publicKey], 3, "KEY_INVALID"],
    ] as const) {
      const output = await mirror(
        operator,
        operator.mirror,
        stick,
        "--for-report",
        report,
        ...args,
      );
      expect(output.exitCode, output.stderr).toBe(exitCode);
      expect(output.stderr).toContain(code);
    }
    expect(await isThere(stick)).toBe(false);
  });
});

describe("a stick that comes and goes", () => {
  const STICKS = { poll: { interval: "1h", jitter: "0s" }, sticks: { watch: "1s", reports: true } };

  test("is followed as soon as it is there, quietly missed, and takes the report home", async () => {
    const operator = await createOperator();
    const toplevel = await buildSystem();
    await operator.publish({ web1: toplevel });
    const packed = await newStick();
    await mirrored(operator, operator.mirror, packed);
    const mount = await temporaryDirectory();
    const stick = join(mount, "stick");
    // An empty mount point.
    await mkdir(stick);
    const host = await hostOn(stick, operator, "web1", STICKS);
    const agent = host.start("run");
    await agent.sees("there is no mirror now");
    await rename(stick, `${stick}-empty`);
    await rename(packed, stick);
    await agent.sees("has news; polling now");
    await agent.sees("release 1 is active");
    const report = join(stick, "reports/web1.json");
    await vi.waitFor(async () => {
      const key = parsePublicKey((await host.run("report", "--public-key")).stdout.trim());
      const said = openReport(await readFile(report), key);
      expect(said).toMatchObject({ hostname: "web1", release: { toplevel }, code: null });
    }, 120_000);
    expect(await host.profileToplevel()).toBe(toplevel);

    await rename(stick, packed);
    await rename(`${stick}-empty`, stick);
    agent.child.kill("SIGTERM");
    const { exitCode, stderr } = await agent.ended;
    expect(exitCode, stderr).toBe(0);
    expect(stderr).not.toMatch(/ (warn|error) /);
    // Nothing is written under the mount point while the stick is elsewhere.
    expect((await host.run("apply")).exitCode).toBe(5);
    expect(await readdir(stick)).toEqual([]);

    const home = await mirrorReports(packed, operator.mirror);
    expect(home).toMatchObject({ exitCode: 0, value: { brought: ["web1"], known: [] } });
    expect(await readFile(join(operator.mirror, "reports/web1.json"))).toEqual(
      await readFile(join(packed, "reports/web1.json")),
    );
  });

  async function mirrorReports(from: string, to: string, ...args: string[]): Promise<any> {
    const output = await nixosPull(["mirror", from, to, "--reports", "--json", ...args]);
    return { ...output, value: JSON.parse(output.stdout) };
  }

  test("brings home newer reports only, and none that is not its host's", async () => {
    const operator = await createOperator();
    await operator.publish({ web1: await buildSystem() });
    const host = await hostOn(operator.mirror, operator, "web1");
    const [older, key] = [await reportOf(host), (await reportOf(host)).key];
    const [first, second, home] = [await newStick(), await newStick(), await newStick()];
    await mkdir(join(first, "reports"), { recursive: true });
    await mkdir(join(second, "reports"), { recursive: true });
    await cp(older.file, join(first, "reports/web1.json"));
    await cp((await reportOf(host)).file, join(second, "reports/web1.json"));
    const trusted = ["--report-key", key];
    expect((await mirrorReports(second, home, ...trusted)).value.brought).toEqual(["web1"]);
    const newer = await readFile(join(home, "reports/web1.json"));
    expect((await mirrorReports(first, home, ...trusted)).value.known).toEqual(["web1"]);
    expect(await readFile(join(home, "reports/web1.json"))).toEqual(newer);

    await rename(join(second, "reports/web1.json"), join(second, "reports/web2.json"));
    await writeFile(join(second, "reports/web3.json"), "{}");
    const refused = await mirrorReports(second, home, ...trusted);
    expect(refused.exitCode).toBe(4);
    expect(refused.value.refused.map((it: any) => it.code)).toEqual([
      ...["REPORT_INVALID", "ENVELOPE_INVALID"],
    ]);
    expect(await readdir(join(home, "reports"))).toEqual(["web1.json"]);
  });

  test("leads no report elsewhere by a link", async () => {
    const operator = await createOperator();
    await operator.publish({ web1: await buildSystem() });
    const victim = await temporaryDirectory();
    await symlink(victim, join(operator.mirror, "reports"));
    const host = await hostOn(operator.mirror, operator, "web1", { sticks: { reports: true } });
    const { exitCode, stderr } = await host.run("apply");
    expect(exitCode, stderr).toBe(0);
    expect(stderr).toContain("the report could not be left there");
    expect(await readdir(victim)).toEqual([]);
  });
});
