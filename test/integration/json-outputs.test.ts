// Every command that has --json prints a real result once. `nixosPull` holds each of them
// against the schema in agent/docs/schema/output; this file sees to it that none is left out.
import { cp, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { generateKey } from "../../agent/core/formats/signing-key.ts";
import { buildSystem } from "../support/closure.ts";
import { nixosPull } from "../support/nixos-pull.ts";
import { createHost, createOperator, type SandboxHost } from "../support/sandbox.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const SCHEMAS = new URL("../../agent/docs/schema/output/", import.meta.url);

/** The names of the schemas of the commands that printed a result. */
const printed = new Set<string>();

/** Runs a command with `--json`, expects its result and no error, and gives it. */
async function json(command: string, ...args: string[]): Promise<any> {
  const output = await nixosPull([...command.split(" "), "--json", ...args]);
  const name = [command, ...args].join(" ");
  expect(output.exitCode, `${name}\n${output.stdout}${output.stderr}`).toBe(0);
  const document: unknown = JSON.parse(output.stdout);
  expect(document, name).not.toHaveProperty("error.code");
  printed.add(command.replace(" ", "-"));
  return document;
}

/** The same of a command that reads a host's configuration. */
function jsonOn({ configFile }: SandboxHost, command: string, ...args: string[]): Promise<any> {
  return json(command, "--config", configFile, ...args);
}

async function sequencesOf(keys: string[], mirror: string): Promise<unknown> {
  const { sequence, hosts } = await json("release show", "-m", mirror, ...keys);
  return { sequence, hosts: hosts.length };
}

test("every command's --json prints what its schema says, for a result of every kind", async () => {
  const [operator, signer] = [await createOperator(), generateKey("second-1")];
  const { mirror, keyFile, publicKey } = operator;
  const signerFile = join(operator.directory, "second.secret");
  await writeFile(signerFile, signer.secret, { mode: 0o600 });
  const [systems, other] = await Promise.all([
    Promise.all(["1", "2", "3"].map((generation) => buildSystem({ generation }))),
    buildSystem({ name: "web2" }),
  ]);
  const [first = "", second = "", third = ""] = systems;
  const keys = ["-p", publicKey];
  const change = ["-m", mirror, "-k", keyFile];
  const web1 = await createHost({
    mirrors: [pathToFileURL(mirror).href],
    publicKeys: [publicKey],
    activation: { confirm: "required" },
  });

  // A fresh host, before anything was published.
  expect(await jsonOn(web1, "config")).toMatchObject({ hostname: "web1" });
  expect(await jsonOn(web1, "status")).toMatchObject({ committed: null, lastPoll: null });
  expect(await jsonOn(web1, "history")).toEqual({ hostname: "web1", entries: [] });
  expect(await jsonOn(web1, "repair")).toMatchObject({ verified: 0, damaged: [], error: null });
  const mirrorAt = pathToFileURL(mirror).href;
  const settings = ["--hostname", "web1", "--mirror", mirrorAt, "--public-key", publicKey];
  expect(await json("bootstrap", ...settings)).toMatchObject({ hostname: "web1" });

  // Three releases, the last of them with a rollout, and everything that changes one.
  const publish = (system: string, ...args: string[]): Promise<any> =>
    json("publish", ...change, "--host", `web1=${system}`, ...args);
  expect(await publish(first)).toMatchObject({ sequence: 1, draft: false });
  expect(await publish(second, "--host", `web2=${other}`)).toMatchObject({ sequence: 2 });
  const rollout = ["--group", "web1=canary", "--canary", "@canary", "--waves", "100%=1h"];
  expect(await publish(third, ...rollout)).toMatchObject({ sequence: 3, dropped: ["web2"] });
  expect(await sequencesOf(keys, mirror)).toEqual({ sequence: 3, hosts: 1 });
  expect(await sequencesOf([], mirror)).toEqual({ sequence: 3, hosts: 1 });
  expect(await json("release pause", "disks fill up", ...change)).toMatchObject({ sequence: 4 });
  expect(await sequencesOf(keys, mirror)).toEqual({ sequence: 4, hosts: 1 });
  expect(await json("release resume", ...change)).toMatchObject({ sequence: 5 });
  expect(await json("release edit", ...change, "--hold", "web1=it is mended")).toMatchObject({
    sequence: 6,
  });
  expect(await sequencesOf(keys, mirror)).toEqual({ sequence: 6, hosts: 1 });
  expect(await json("release edit", ...change, "--free", "web1")).toMatchObject({ sequence: 7 });
  const diff = await json("release diff", "-m", mirror, ...keys, "--from", "1", "--to", "2");
  const changed = [{ hostname: "web1" }, { hostname: "web2" }];
  expect(diff).toMatchObject({ difference: { hosts: changed } });
  expect(await json("release abort", ...change, "--to", "2")).toMatchObject({ sequence: 8 });
  const channels = ["--from", "stable", "--to", "beta"];
  expect(await json("release promote", ...channels, ...change)).toMatchObject({ channel: "beta" });
  const draft = join(operator.directory, "draft.json");
  const drafted = await json("publish", ...change, "--host", `web1=${second}`, "--draft", draft);
  expect(drafted).toMatchObject({ sequence: 9, draft: true });
  expect(await json("sign", draft, "-k", signerFile)).toMatchObject({ added: ["second-1"] });
  expect(await json("sign", draft, "-k", signerFile)).toMatchObject({ added: [] });
  expect(await json("verify", draft, ...keys)).toMatchObject({ sequence: 9 });
  expect(await json("publish", "-m", mirror, "--from-draft", draft, ...keys)).toMatchObject({
    sequence: 9,
    signedBy: ["test-1"],
  });

  // The host: a release waits, is confirmed, applied and taken back.
  expect(await jsonOn(web1, "check")).toMatchObject({ release: { sequence: 9 } });
  await confirmAndApply(web1, 9);
  await publish(first);
  await confirmAndApply(web1, 10);
  expect(await jsonOn(web1, "check")).toMatchObject({ decision: "active" });
  // A sandbox has no units; whether a time server sets the clock is this machine's business.
  const { exitCode, value: examined } = await web1.json("doctor");
  expect(examined).toMatchObject({ hostname: "web1" });
  expect(exitCode).toBe(examined.outcome === "failed" ? 22 : 23);
  printed.add("doctor");
  expect(await jsonOn(web1, "rollback")).toMatchObject({ toplevel: second });
  expect(await jsonOn(web1, "check")).toMatchObject({ decision: "denied" });
  await web1.run("hold", "--for", "1h", "--reason", "it is mended");
  expect(await jsonOn(web1, "status")).toMatchObject({ hold: { kind: "held" } });
  const { entries } = await jsonOn(web1, "history");
  expect(entries.length).toBeGreaterThan(10);

  // The mirror and the fleet, with this host's report.
  const reports = await temporaryDirectory();
  const reported = await web1.run("report", "--out", join(reports, "web1.json"));
  expect(reported.exitCode, reported.stderr).toBe(0);
  const reportKey = (await web1.run("report", "--public-key")).stdout.trim();
  const trustReports = ["--report-key", reportKey];
  expect(await json("verify", join(reports, "web1.json"), "-p", reportKey)).toMatchObject({
    hostname: "web1",
  });
  const fleet = await json("fleet", reports, ...trustReports, "-m", mirror, ...keys);
  expect(fleet.hosts).toMatchObject([{ hostname: "web1" }]);
  const stick = join(await temporaryDirectory(), "stick");
  const forReport = ["--for-report", join(reports, "web1.json"), ...trustReports];
  const dry = await json("mirror", mirror, stick, ...keys, "--dry-run");
  expect(dry.channels).toHaveLength(2);
  const packed = await json("mirror", mirror, stick, ...keys, ...forReport);
  expect(packed.channels.map(({ channel }: any) => channel)).toContain("stable");
  const home = join(await temporaryDirectory(), "home");
  await cp(reports, join(stick, "reports"), { recursive: true });
  expect(await json("mirror", stick, home, "--reports", ...trustReports)).toMatchObject({
    ...{ brought: ["web1"], known: [] },
  });
  expect((await json("verify", mirror, ...keys)).channels).toHaveLength(2);
  expect(await json("prune", mirror, "--keep", "1", "--dry-run")).toMatchObject({ dryRun: true });
  expect((await json("prune", mirror, "--keep", "1")).releases.length).toBeGreaterThan(0);

  const nix = join(await temporaryDirectory(), "nixos.nix");
  await writeFile(
    nix,
    `let option = {
      _type = "option"; value = [ 1 "a" null ]; isDefined = true;
      type.description = "list"; default = [ ]; description = "What it does.";
      definitionsWithLocations = [ { file = /srv/a.nix; value = [ 1 ]; } ];
      declarations = [ "/nixpkgs/x.nix" ];
    }; in { options.some.thing = option; config.some.thing = option.value; }`,
  );
  expect(await json("option", "some.thing", "--file", nix)).toMatchObject({
    path: "some.thing",
    hosts: [{ hostname: null, value: [1, "a", null] }],
  });

  const schemas = (await readdir(SCHEMAS)).map((name) => name.replace(".schema.json", ""));
  expect([...printed].sort()).toEqual(schemas.sort());
});

/** Lets the service find the release, confirms it, and applies it. */
async function confirmAndApply(host: SandboxHost, sequence: number): Promise<void> {
  const agent = host.start("run");
  await agent.sees(`release ${sequence} waits`);
  agent.child.kill("SIGTERM");
  expect((await agent.ended).exitCode).toBe(0);
  expect(await jsonOn(host, "confirm")).toMatchObject({ sequence });
  expect(await jsonOn(host, "apply")).toMatchObject({ updated: true });
}
