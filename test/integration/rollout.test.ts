import { readFile, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import { manifestSchema, type Manifest } from "../../agent/core/formats/manifest.ts";
import { turnOf } from "../../agent/core/release/rollout.ts";
import { buildSystem } from "../support/closure.ts";
import { nixosPull, startCommand, type CommandOutput } from "../support/nixos-pull.ts";
import { createHost, createOperator, type Operator, type SandboxHost } from "../support/sandbox.ts";
import { runsOf } from "../support/scripted-system.ts";

/** The manifest in force, unsigned. */
async function manifestOf({ mirror }: Operator, channel = "stable"): Promise<Manifest> {
  const file = join(mirror, "channels", channel, "manifest.json");
  const { payload } = JSON.parse(await readFile(file, "utf8"));
  return manifestSchema.parse(JSON.parse(Buffer.from(payload, "base64").toString()));
}

/** `nixos-pull release …` as the operator does it, to whatever end. */
function release({ mirror, keyFile }: Operator, ...args: string[]): Promise<CommandOutput> {
  return nixosPull(["release", ...args, "-m", mirror, "-k", keyFile]);
}

/** The same, expected to work. */
async function change(operator: Operator, ...args: string[]): Promise<CommandOutput> {
  const output = await release(operator, ...args);
  expect(output.exitCode, output.stderr).toBe(0);
  return output;
}

function hostOf(operator: Operator, name: string, settings: object = {}): Promise<SandboxHost> {
  const { mirror, publicKey } = operator;
  const mirrors = [pathToFileURL(mirror).href];
  return createHost({ mirrors, publicKeys: [publicKey], ...settings }, name);
}

/** What `check` finds. */
async function found(host: SandboxHost) {
  const { value } = await host.json("check");
  return { decision: value.decision, reasons: value.waits?.map((wait: any) => wait.reason) };
}

/** Applies what there is and gives the sequence of the release that the host then is. */
async function apply(host: SandboxHost): Promise<number | undefined> {
  const { value } = await host.json("apply");
  expect(value.error).toBeNull();
  return value.committed?.sequence;
}

// Each publishes, polls and switches more often than most tests.
const TIMEOUT_MS = 900_000;

describe("a rollout to canaries and then to all", { timeout: TIMEOUT_MS }, () => {
  test("is shown, paused, resumed, opened for one host, and aborted", async () => {
    const operator = await createOperator();
    const [old1, old2, new1, new2] = await Promise.all([
      buildSystem({ name: "web1", generation: "1" }),
      buildSystem({ name: "web2", generation: "1" }),
      buildSystem({ name: "web1", generation: "2" }),
      buildSystem({ name: "web2", generation: "2" }),
    ]);
    const [web1, web2] = await Promise.all([hostOf(operator, "web1"), hostOf(operator, "web2")]);
    await operator.publish({ web1: old1, web2: old2 });
    expect([await apply(web1), await apply(web2)]).toEqual([1, 1]);

    await operator.publish(
      { web1: new1, web2: new2 },
      ...["--group", "web1=canary", "--canary", "@canary", "--waves", "100%=1h"],
    );
    const { rollout, createdAt } = await manifestOf(operator);
    expect(rollout).toEqual({
      start: createdAt,
      salt: "stable 2",
      waves: [
        { groups: ["canary"], after: "0s" },
        { share: 1, after: "1h" },
      ],
    });
    const turn = new Date(Date.parse(createdAt) + 3_600_000).toISOString();
    expect(await apply(web1)).toBe(2);
    const { stdout } = await web2.run("check");
    expect(stdout).toMatch(
      /^Nothing to do yet: release 2 of stable waits: ROLLOUT_PENDING: this host's turn comes .*\d\d:\d\d \(in \d\d min\)\n$/,
    );
    expect((await web2.run("check", "--utc")).stdout).toContain(
      `this host's turn comes at ${turn.replace(".000Z", "Z")}`,
    );
    const checked = await web2.json("check");
    expect(checked.value).toMatchObject({ decision: "waiting", until: turn });
    // A person's word on the host does not count for more than the operator's.
    expect(await apply(web2)).toBe(1);
    expect((await web2.json("apply", "--again")).value).toMatchObject({ updated: false });
    expect((await web2.run("status")).stdout).toContain(`ROLLOUT_PENDING: this host's turn`);
    expect(await web2.switchLog()).toEqual(runsOf(old2));
    expect(await web2.stagingIsClean()).toBe(true);

    const shown = await nixosPull([
      ...["release", "show", "--utc", "-m", operator.mirror, "-p", operator.publicKey],
    ]);
    expect(shown.stdout).toContain("signed by test-1");
    expect(shown.stdout).toContain("the turn of 1 of 2 hosts has come");
    expect(shown.stdout).toMatch(
      new RegExp(`^web2 +[0-9a-z]{7}-\\S+ +switch +${turn.replace(".000Z", "Z")}$`, "m"),
    );

    await change(operator, "pause", "disks fill up");
    expect(await found(web2)).toEqual({
      decision: "waiting",
      reasons: ["ROLLOUT_PAUSED", "ROLLOUT_PENDING"],
    });
    await change(operator, "edit", "--now", "web2");
    expect(await found(web2)).toEqual({ decision: "waiting", reasons: ["ROLLOUT_PAUSED"] });
    // Who is there already has nothing to wait for.
    expect(await apply(web1)).toBe(4);
    await change(operator, "resume");
    const resumed = await manifestOf(operator);
    expect(resumed.rollout).toMatchObject({ salt: "stable 2", waves: rollout?.waves });
    expect(Date.parse(resumed.rollout!.start)).toBeGreaterThan(Date.parse(createdAt));
    expect(await apply(web2)).toBe(5);
    expect(await web2.switchLog()).toEqual(runsOf(old2, new2));

    const aborted = await change(operator, "abort");
    expect(aborted.stderr).toContain("going back to the systems of release 1 of stable");
    expect(await manifestOf(operator)).toMatchObject({
      sequence: 6,
      hosts: { web1: { toplevel: old1, groups: ["canary"] }, web2: { toplevel: old2 } },
    });
    expect(await manifestOf(operator)).not.toHaveProperty("rollout");
    expect([await apply(web1), await apply(web2)]).toEqual([6, 6]);
    expect(await web1.profileToplevel()).toBe(old1);
    expect(await web2.profileToplevel()).toBe(old2);
    // The second abort would bring back what the first one took away.
    const again = await release(operator, "abort");
    expect(again).toMatchObject({ exitCode: 10, stdout: "" });
    expect(again.stderr).toMatch(/PUBLISH_FAILED: .*may be an abort of release 5 of stable; --to/);
    expect((await manifestOf(operator)).sequence).toBe(6);
    await change(operator, "abort", "--to", "5");
    expect((await manifestOf(operator)).hosts["web1"]?.toplevel).toBe(new1);
  });

  test("keeps its order when it is refreshed, and a service wakes up for its turn", async () => {
    const operator = await createOperator();
    const [first, second] = await Promise.all([
      buildSystem({ generation: "1" }),
      buildSystem({ generation: "2" }),
    ]);
    const web1 = await hostOf(operator, "web1", { poll: { interval: "1d", jitter: "0s" } });
    await operator.publish({ web1: first });
    await apply(web1);
    await operator.publish({ web1: second }, "--over", "24h");
    const before = await manifestOf(operator);
    const refresh = ["publish", "--refresh", "-m", operator.mirror, "-k", operator.keyFile];
    expect((await nixosPull(refresh)).exitCode).toBe(0);
    const after = await manifestOf(operator);
    expect(after.sequence).toBe(before.sequence + 1);
    expect(after.rollout).toEqual(before.rollout);
    expect(turnOf(after.rollout!, "web1")).toBe(turnOf(before.rollout!, "web1"));

    const notBefore = new Date(Date.now() + 15_000).toISOString();
    await change(operator, "edit", "--not-before", notBefore, "--waves", "web1=2s");
    const turn = new Date(Date.parse(notBefore) + 2_000).toISOString();
    const agent = startCommand(["run", "--config", web1.configFile]);
    await agent.sees(`this host's turn comes at ${turn}`);
    expect(await web1.profileToplevel()).toBe(first);
    await agent.sees("release 4 is active");
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(turn));
    expect(await web1.profileToplevel()).toBe(second);
    agent.child.kill("SIGTERM");
    expect((await agent.ended).exitCode).toBe(0);
  });

  test("does not touch a host that is held, whatever is published", async () => {
    const operator = await createOperator();
    const systems = (await Promise.all(
      ["1", "2", "3"].map((generation) => buildSystem({ generation })),
    )) as [string, string, string];
    const web1 = await hostOf(operator, "web1");
    await operator.publish({ web1: systems[0] });
    await apply(web1);
    await operator.publish({ web1: systems[1] }, "--paused", "on monday");
    // A pause that another pause follows goes on.
    const again = await operator.publish({ web1: systems[1] }, "--paused", "on tuesday");
    expect(again.stderr).not.toContain("was paused");
    const unpaused = await operator.publish({ web1: systems[1] });
    expect(unpaused.stderr).toContain("release 3 was paused (on tuesday); this one is not");
    await change(operator, "edit", "--hold", "web1=being repaired", "--everyone");
    expect(await found(web1)).toEqual({ decision: "waiting", reasons: ["ROLLOUT_PAUSED"] });
    const { stderr } = await operator.publish({ web1: systems[2] });
    expect(stderr).toContain("web1 is still held: being repaired");
    expect(await apply(web1)).toBe(1);
    await change(operator, "edit", "--free", "web1", "--mode", "web1=boot");
    expect(await apply(web1)).toBe(7);
    expect(await web1.switchLog()).toEqual([...runsOf(systems[0]), `boot ${systems[2]}`]);
  });
});

describe("a barrier", { timeout: TIMEOUT_MS }, () => {
  async function threeReleases(operator: Operator): Promise<[string, string, string]> {
    const systems = (await Promise.all(
      ["1", "2", "3"].map((generation) => buildSystem({ generation })),
    )) as [string, string, string];
    await operator.publish({ web1: systems[0] });
    return systems;
  }

  test("is passed through in two steps by a host that was away, long after it was pruned", async () => {
    const operator = await createOperator();
    const [first, second, third] = await threeReleases(operator);
    const [away, there, fresh] = await Promise.all([
      hostOf(operator, "web1"),
      hostOf(operator, "web1"),
      hostOf(operator, "web1"),
    ]);
    expect([await apply(away), await apply(there)]).toEqual([1, 1]);
    await operator.publish({ web1: second }, "--mode", "test");
    expect(await apply(there)).toBe(2);
    await operator.publish({ web1: third }, "--barrier", "2");
    // Whoever was at the barrier goes on at once.
    expect(await apply(there)).toBe(3);
    // Later releases carry it on, and pruning leaves what they need.
    await operator.publish({ web1: third });
    await rm(join(operator.mirror, ".publish/releases/stable/0-2.json"));
    const pruned = await nixosPull(["prune", operator.mirror, "--keep", "1"]);
    expect(pruned.exitCode, pruned.stderr).toBe(0);
    const { barrier, hosts } = await manifestOf(operator);
    expect(barrier).toEqual({ sequence: 2 });
    const archives = await readdir(join(operator.mirror, "archives"));
    expect(archives).toContain(`${hosts["web1"]?.through?.[0]?.archive.sha256}.tar`);
    const verified = await nixosPull(["verify", operator.mirror, "-p", operator.publicKey]);
    expect(verified.exitCode, verified.stderr).toBe(0);
    expect(verified.stdout.match(/^web1 +ok/gm)).toHaveLength(2);

    const checked = await away.run("check");
    expect(checked.stdout).toMatch(
      /^release 2 of stable would be applied: test .*\nIt stands before release 4 of stable/,
    );
    const step = await away.run("apply");
    expect(step.stdout).toMatch(/^Applied release 2 of stable: .*\nrelease 4 of stable comes next/);
    expect(await apply(away)).toBe(4);
    expect(await away.switchLog()).toEqual([...runsOf(first), `test ${second}`, ...runsOf(third)]);
    // A host of which nothing is known passes through as well.
    expect(await apply(fresh)).toBe(2);
    expect(await apply(fresh)).toBe(4);
  });

  test("is passed through by the service without waiting for another poll", async () => {
    const operator = await createOperator();
    const [first, second, third] = await threeReleases(operator);
    const web1 = await hostOf(operator, "web1", { poll: { interval: "1d", jitter: "0s" } });
    await apply(web1);
    await operator.publish({ web1: second });
    await operator.publish({ web1: third }, "--barrier", "2");
    const agent = startCommand(["run", "--config", web1.configFile]);
    await agent.sees("release 3 is active");
    agent.child.kill("SIGTERM");
    expect((await agent.ended).exitCode).toBe(0);
    expect(await web1.switchLog()).toEqual(runsOf(first, second, third));
  });

  test("bars a host that it has nothing for, and an abort behind it", async () => {
    const operator = await createOperator();
    const [first, second, third] = await threeReleases(operator);
    const web1 = await hostOf(operator, "web1");
    await apply(web1);
    await operator.publish({ db1: second });
    await operator.publish({ web1: third, db1: third }, "--barrier", "2");
    expect(await found(web1)).toEqual({ decision: "waiting", reasons: ["BARRIER_AHEAD"] });
    const abort = await release(operator, "abort", "--to", "1");
    expect(abort.exitCode).toBe(10);
    expect(abort.stderr).toContain("lies before the barrier at release 2");
    await change(operator, "edit", "--no-barrier");
    expect(await apply(web1)).toBe(4);
    expect(await web1.switchLog()).toEqual(runsOf(first, third));
  });
});

test("a release is promoted from one channel to another with the same archives", async () => {
  const operator = await createOperator();
  const [first, second] = await Promise.all([
    buildSystem({ generation: "1" }),
    buildSystem({ generation: "2" }),
  ]);
  const web1 = await hostOf(operator, "web1");
  await operator.publish({ web1: first, old: first });
  await apply(web1);
  await operator.publish({ web1: second }, "--channel", "canary", "--mode", "test");
  const archives = await readdir(join(operator.mirror, "archives"));
  const promote = ["promote", "--from", "canary", "--to", "stable"];
  await change(operator, "pause", "bad", "--channel", "canary");
  const refused = await release(operator, ...promote);
  expect(refused.exitCode).toBe(10);
  expect(refused.stderr).toContain("release 2 of canary is paused: bad");
  await change(operator, "resume", "--channel", "canary");

  const { stderr } = await change(operator, ...promote, "--waves", "100%=1h");
  expect(stderr).toContain("release 2 no longer names old");
  expect(await found(web1)).toEqual({ decision: "waiting", reasons: ["ROLLOUT_PENDING"] });
  await change(operator, ...promote);
  const [canary, stable] = [await manifestOf(operator, "canary"), await manifestOf(operator)];
  expect(stable).toMatchObject({ channel: "stable", sequence: 3, hosts: canary.hosts });
  expect(await readdir(join(operator.mirror, "archives"))).toEqual(archives);
  expect(await apply(web1)).toBe(3);
  expect(await web1.switchLog()).toEqual([...runsOf(first), `test ${second}`]);
});

test("a change is drafted, signed elsewhere and put into force like any release", async () => {
  const operator = await createOperator();
  const { mirror, keyFile, publicKey, directory } = operator;
  await operator.publish({ web1: await buildSystem({ generation: "1" }) });
  const draft = join(directory, "pause.json");
  const paused = await nixosPull([
    ...["release", "pause", "wait", "-m", mirror, "-p", publicKey, "--unsigned", draft],
  ]);
  expect(paused.stdout).toMatch(/^Drafted release 2 of stable, signed by nobody yet/);
  expect((await manifestOf(operator)).sequence).toBe(1);
  expect((await nixosPull(["sign", draft, "-k", keyFile])).exitCode).toBe(0);
  const put = await nixosPull(["publish", "-m", mirror, "--from-draft", draft, "-p", publicKey]);
  expect(put.exitCode, put.stderr).toBe(0);
  expect((await manifestOf(operator)).rollout?.paused).toMatchObject({ reason: "wait" });
});

test("what cannot be changed is told, and nothing is", async () => {
  const operator = await createOperator();
  const { mirror, keyFile } = operator;
  const system = await buildSystem({ generation: "1" });
  const host = ["--host", `web1=${system}`];
  await operator.publish({ web1: system });
  const before = await manifestOf(operator);
  const stranger = await createOperator("stranger-1");
  const change = ["-m", mirror, "-k", keyFile];
  const rows: [args: string[], exitCode: number, message: RegExp][] = [
    [["release", "resume", ...change], 10, /PUBLISH_FAILED: release 1 of stable is not paused/],
    [["release", "abort", ...change], 10, /PUBLISH_FAILED: no earlier release with other systems/],
    [
      ["release", "abort", "--to", "9", ...change],
      10,
      /--to: .* found 9; only release 1 is retained/,
    ],
    [["release", "pause", "x", "-m", mirror], 2, /USAGE: expected a --key or --signer/],
    [["release", "pause", "x", "-m", mirror, "-k", stranger.keyFile], 10, /--public-key/],
    [
      ["release", "pause", "x", ...change, "--channel", "beta"],
      10,
      /expected a release of channel beta in .*, found only /,
    ],
    [["release", "pause", "", ...change], 2, /USAGE: reason: expected a reason/],
    [["release", "edit", ...change, "--now", "web9"], 10, /release 1 of stable names no host web9/],
    [["release", "edit", ...change, "--remove", "web9"], 10, /names no host web9/],
    [
      ["release", "edit", ...change, "--mode", "web1=fast"],
      2,
      /USAGE: --mode: expected HOST=switch/,
    ],
    [["release", "edit", ...change, "--hold", "web1"], 2, /USAGE: --hold: expected HOST=/],
    [["release", "edit", ...change, "--everyone", "--over", "1d"], 2, /USAGE: expected no rollout/],
    [["release", "edit", ...change, "--not-before", "monday"], 2, /USAGE: --not-before: expected/],
    [["release", "edit", ...change, "--not-before", "2026-01-31T06:00"], 2, /with its zone/],
    [
      ["release", "edit", ...change, "--barrier", "7"],
      10,
      /--barrier: expected a release that is retained here .* found 7/,
    ],
    [
      ["release", "promote", "--from", "beta", "--to", "stable", ...change],
      10,
      /expected a release of channel beta in .*, found only /,
    ],
    [
      ["release", "promote", "--from", "stable", "--to", "stable", ...change],
      2,
      /USAGE: expected two/,
    ],
    [["publish", ...change, ...host, "--canary", "@nobody", "--over", "1d"], 10, /in group nobody/],
    [["publish", ...change, ...host, "--canary", "web9", "--over", "1d"], 10, /names no host web9/],
    [["publish", ...change, ...host, "--canary", "web1"], 2, /USAGE: .*when the other hosts go/],
    [
      ["publish", ...change, ...host, "--group", "web9=a"],
      2,
      /USAGE: --group: expected a host that/,
    ],
  ];
  for (const [args, exitCode, message] of rows) {
    const output = await nixosPull(args);
    const name = args.join(" ");
    expect(output.exitCode, `${name}\n${output.stderr}`).toBe(exitCode);
    expect(output.stderr, name).toMatch(message);
    expect(output.stdout, name).toBe("");
    expect(await manifestOf(operator), name).toEqual(before);
  }
});
