import { cp, readFile, readdir, readlink, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { parseSettings, trustPolicyOf } from "../../agent/core/settings.ts";
import {
  generateKey,
  parsePublicKey,
  parseSecretKey,
} from "../../agent/core/formats/signing-key.ts";
import { storePathHash } from "../../agent/core/formats/store-path.ts";
import { DirectoryMirror } from "../../agent/effects/mirror/directory-mirror.ts";
import { verifyMirror } from "../../agent/operator/mirror/verify-mirror.ts";
import { jsonOf } from "../support/answer.ts";
import { buildSystem } from "../support/closure.ts";
import { moveProfile } from "../support/hand-made-change.ts";
import { serveMirror } from "../support/mirror-server.ts";
import { nixosPull, startCommand, type RunningCommand } from "../support/nixos-pull.ts";
import { createHost, createOperator } from "../support/sandbox.ts";
import { runsOf } from "../support/scripted-system.ts";
import { publishedHosts } from "../support/published.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const FAILING = { generation: "3", exitCode: 3 };

test("check says what would happen now, and why nothing does", async () => {
  const operator = await createOperator();
  const host = await createHost({
    mirrors: [`file://${operator.mirror}`],
    publicKeys: [operator.publicKey],
  });
  const [first, second, third, fourth, fifth] = await Promise.all([
    buildSystem({ generation: "1" }),
    buildSystem({ generation: "2" }),
    buildSystem(FAILING),
    buildSystem({ generation: "4" }),
    buildSystem({ generation: "5" }),
  ]);
  const situations: {
    readonly name: string;
    prepare(): Promise<unknown>;
    readonly exitCode: number;
    /** With --exit-code, where it differs. */
    readonly strictly?: number;
    readonly words: RegExp;
    /** What standard error has. */
    readonly notes?: RegExp;
    readonly json: object;
  }[] = [
    {
      name: "no release",
      prepare: async () => undefined,
      exitCode: 5,
      words: /^No release could be read: MIRROR_ABSENT: /,
      json: { decision: null, error: { code: "MIRROR_ABSENT" }, release: null, preview: null },
    },
    {
      name: "host not in release",
      prepare: () => operator.publish({ web2: first }),
      exitCode: 4,
      words: /^Refused: HOST_NOT_IN_RELEASE: .*web1/,
      json: { decision: null, error: { code: "HOST_NOT_IN_RELEASE" }, release: null },
    },
    {
      name: "update",
      prepare: () => operator.publish({ web1: first }),
      exitCode: 0,
      strictly: 20,
      words:
        /^release 2 of stable would be applied: switch .*\nWould download 5 of 5 paths: .* in the store\.\n {2}packages: unknown, since/,
      json: {
        hostname: "web1",
        decision: "update",
        error: null,
        release: { sequence: 2, toplevel: first, mode: "switch" },
        preview: { paths: 5, newPaths: 5, packages: null },
        mirrors: [{ sequence: 2 }],
        state: { name: "Idle" },
      },
    },
    {
      name: "active",
      prepare: () => host.run("apply"),
      exitCode: 0,
      words: /^Nothing to do: release 2 of stable is active\.$/m,
      json: { decision: "active", error: null, preview: null },
    },
    {
      name: "adopt",
      prepare: () => operator.publish({ web1: first }),
      exitCode: 0,
      words: /^Nothing to do: this host already is what release 3 of stable asks for\.$/m,
      json: { decision: "adopt", release: { sequence: 3 } },
    },
    {
      name: "drifted",
      prepare: async () => {
        await operator.publish({ web1: second });
        await host.run("apply");
        await moveProfile(host, 1);
      },
      exitCode: 0,
      words: new RegExp(
        `^Nothing to do: .* changed by hand to ${storePathHash(first).slice(0, 7)}-web1-1; .*apply --again`,
      ),
      json: { decision: "drifted", found: first },
    },
    {
      name: "denied",
      prepare: async () => {
        await operator.publish({ web1: third });
        expect((await host.run("apply")).exitCode).toBe(8);
      },
      exitCode: 0,
      words:
        /^Nothing to do: release 5 of stable is denied on this host: RELEASE_DENIED: ACTIVATION_FAILED: .*apply --again/,
      json: { decision: "denied", reason: { code: "ACTIVATION_FAILED" }, preview: null },
    },
    {
      name: "backoff",
      prepare: async () => {
        const { stdout } = await operator.publish({ web1: fourth }, "--json");
        const { sha256 } = publishedHosts(stdout)["web1"]!.archive;
        await rm(join(operator.mirror, "archives", `${sha256}.tar`));
        expect((await host.run("apply")).exitCode).toBe(5);
      },
      exitCode: 0,
      words:
        /^Waiting until .*\d\d:\d\d \(in \d+ s\) to try release 6 of stable again: MIRROR_NOT_FOUND: /,
      json: {
        decision: "backoff",
        until: expect.stringMatching(/Z$/),
        reason: { code: "MIRROR_NOT_FOUND" },
        state: { name: "Failed", attempts: 1 },
      },
    },
    {
      name: "update after a failed attempt",
      prepare: () => operator.publish({ web1: fifth }, "--mode", "boot"),
      exitCode: 0,
      strictly: 20,
      words: /^release 7 of stable would be applied: boot /,
      notes: /^The last attempt, at release 6, failed: MIRROR_NOT_FOUND: /m,
      json: { decision: "update", state: { name: "Failed" }, pendingReboot: null },
    },
    {
      name: "reboot needed",
      prepare: () => host.run("apply"),
      exitCode: 0,
      words:
        /^Nothing to do: release 7 of stable is active\.\nREBOOT NEEDED: release 7 waits for it.*; policy never: a person has to make it\.$/m,
      json: {
        decision: "active",
        pendingReboot: { release: { sequence: 7, toplevel: fifth }, wayBack: false },
        rebootPolicy: "never",
      },
    },
  ];
  for (const { name, prepare, exitCode, strictly = exitCode, words, notes, json } of situations) {
    await prepare();
    const before = await host.switchLog();
    const [inWords, inJson] = await Promise.all([
      host.run("check"),
      host.json("check", "--exit-code"),
    ]);
    expect(inWords, name).toMatchObject({ exitCode, stdout: expect.stringMatching(words) });
    expect(inWords.stderr, name).toMatch(notes ?? /^/);
    expect(inWords.stderr, name).not.toContain("under way");
    expect(inJson, name).toMatchObject({ exitCode: strictly, value: json });
    expect(await host.switchLog(), name).toEqual(before);
  }
}, 600_000);

/** Waits until standard output holds `text`, from now on. */
function prints({ child }: RunningCommand, text: string): Promise<void> {
  let seen = "";
  return new Promise((resolve) => {
    child.stdout!.on("data", (more: string) => {
      seen += more;
      if (seen.includes(text)) resolve();
    });
  });
}

test("status and history tell what the host is and what happened; --watch ends on SIGTERM", async () => {
  const operator = await createOperator();
  const host = await createHost({
    mirrors: [`file://${operator.mirror}`],
    publicKeys: [operator.publicKey],
  });
  const [first, failing] = await Promise.all([
    buildSystem({ generation: "1" }),
    buildSystem(FAILING),
  ]);
  expect(await host.run("history")).toMatchObject({
    exitCode: 0,
    stdout: "Nothing has happened here yet.\n",
  });
  expect(await jsonOf(host, "history")).toMatchObject({ entries: [] });

  const watch = host.start("status", "--watch");
  await prints(watch, "none applied yet");
  await operator.publish({ web1: first });
  const noticed = prints(watch, "release      1 of stable, switch, ");
  await host.run("apply");
  await noticed;
  watch.child.kill("SIGTERM");
  const watched = await watch.ended;
  expect(watched).toMatchObject({ exitCode: 0, stderr: "" });
  // It is printed when it changes, not every second.
  const shown = watched.stdout.split(/^(?=[●○✗] )/m);
  expect(new Set(shown).size).toBe(shown.length);

  await operator.publish({ web1: failing });
  await host.run("apply");
  const reason = { code: "ACTIVATION_FAILED", message: expect.any(String) };
  const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/);
  const mirror = { mirror: expect.stringContaining(operator.mirror), unchanged: false };
  expect(await jsonOf(host, "status")).toEqual({
    exitCode: 0,
    drift: null,
    hold: { kind: "none" },
    hostname: "web1",
    channel: "stable",
    ...{ booted: null, profile: first, running: first, generation: 1 },
    lastPoll: {
      at: time,
      mirrors: [expect.objectContaining({ ...mirror, sequence: 2 })],
      decision: "update",
      release: expect.objectContaining({ sequence: 2, toplevel: failing, mode: "switch" }),
      error: reason,
      waits: [],
      archives: [{ mirror: expect.stringContaining(operator.mirror), at: time }],
    },
    lastImport: { at: time, sequence: 2, toplevel: failing },
    activity: { service: null, update: null, since: null, fetched: null },
    bootLoader: { name: null, cannotTry: expect.stringContaining("not known") },
    machineId: expect.toSatisfy((it) => it === null || /^[0-9a-f]{64}$/.test(it as string)),
    alarms: [],
    state: { name: "Idle" },
    trust: [expect.objectContaining({ sequence: 2 })],
    committed: expect.objectContaining({
      sequence: 1,
      toplevel: first,
      previous: null,
      mode: "switch",
    }),
    denied: [
      {
        toplevel: failing,
        sequence: 2,
        digest: expect.stringMatching(/^\w{64}$/),
        reason,
        at: time,
        mode: "switch",
        specialisation: null,
      },
    ],
    pendingReboot: null,
    rebootPolicy: "never",
    holdsRebootSlot: false,
    specialisation: null,
    wayBack: null,
    lastSwitches: [
      {
        ...{ at: time, event: "ActivationRejected", sequence: 2, toplevel: failing },
        ...{ mode: "switch", ...reason },
        lastLines: ["switching to generation 3 of web1: test", "warning: it was told to fail"],
      },
      {
        ...{ at: time, event: "RollbackSucceeded", sequence: 2, toplevel: failing },
        ...{ mode: "switch", lastLines: ["switching to generation 1 of web1: switch"] },
      },
    ],
  });
  const { stdout: status } = await host.run("status");
  expect(status).toMatch(/^✗ release 2 failed a moment ago: ACTIVATION_FAILED: /);
  expect(status).toMatch(/^ {2}web1 runs release 1 of stable\.$/m);
  expect(status.split("ACTIVATION_FAILED: ")).toHaveLength(2);
  const short = `${storePathHash(first).slice(0, 7)}-web1-1`;
  expect(status).toMatch(new RegExp(`^system +${short}, generation 1$`, "m"));
  expect((await host.run("status", "--utc")).stdout).toMatch(
    /^release +1 of stable, switch, \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z$/m,
  );

  const { entries } = await jsonOf<{ entries: { event: string }[] }>(host, "history");
  const events = entries.map(({ event }) => event);
  const begun = [
    ...["ManifestAccepted", "ReleaseAccepted", "FetchBegun", "ClosureImported"],
    ...["BaselineRecorded", "ActivationBegun"],
  ];
  expect(events).toEqual([
    ...[...begun, "ActivationSucceeded", "CommitBegun", "BootDefaultSet", "LeftoversRemoved"],
    ...[...begun, "ActivationRejected", "RollbackSucceeded", "LeftoversRemoved"],
  ]);
  expect(entries.at(-3)).toMatchObject({
    at: time,
    sequence: 2,
    toplevel: failing,
    code: "ACTIVATION_FAILED",
    lastLines: expect.arrayContaining(["warning: it was told to fail"]),
  });
  expect(await jsonOf(host, "history", "-n", "3")).toMatchObject({ entries: entries.slice(-3) });
  const { stdout: history } = await host.run("history", "--lines", "3");
  expect(history).toMatch(/^✗ {2}\S+ +release 2 failed.*, and was undone: ACTIVATION_FAILED: /);
  expect(history).toContain("| warning: it was told to fail\n");
  const { stdout: whole } = await host.run("history", "--all", "--utc");
  expect(whole).toMatch(/^ +\d{4}-\d\d-\d\dT\S+Z +activated \[ActivationSucceeded\]$/m);
});

test("status --json --watch prints a document only when something changed", async () => {
  const host = await createHost({
    mirrors: ["file:///nowhere"],
    publicKeys: [generateKey("k").public],
  });
  const watch = host.start("status", "--watch", "--json");
  await prints(watch, "\n}\n");
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  watch.child.kill("SIGTERM");
  const { exitCode, stdout } = await watch.ended;
  expect(exitCode).toBe(0);
  expect(stdout.match(/^\{$/gm)).toHaveLength(1);
});

test("rollback goes back, stays there and ends with a release of another system", async () => {
  const operator = await createOperator();
  const host = await createHost({
    mirrors: [`file://${operator.mirror}`],
    publicKeys: [operator.publicKey],
  });
  const [first, second, next] = await Promise.all(
    ["1", "2", "4"].map((generation) => buildSystem({ generation })),
  );
  const nothing = {
    exitCode: 8,
    stdout: "",
    stderr: expect.stringContaining("NOTHING_TO_ROLL_BACK"),
  };
  await operator.publish({ web1: first! });
  await host.run("apply");
  expect(await host.run("rollback")).toMatchObject(nothing);

  await operator.publish({ web1: second! });
  await host.run("apply");
  expect(await host.profileToplevel()).toBe(second);
  expect(await host.run("rollback")).toMatchObject({
    exitCode: 0,
    stdout: expect.stringMatching(/^Back at generation 1: \w{7}-web1-1\nIt stays there until /),
  });
  expect(await host.profileToplevel()).toBe(first);
  expect((await host.switchLog()).at(-1)).toBe(`switch ${first}`);

  expect(await host.json("apply")).toMatchObject({
    exitCode: 8,
    value: { updated: false, decision: "denied", reason: { code: "RELEASE_DENIED" } },
  });
  expect(await host.profileToplevel()).toBe(first);
  expect(await host.switchLog()).toEqual([...runsOf(first!, second!), `switch ${first}`]);

  expect(await host.run("rollback", "--generation", "99")).toMatchObject(nothing);
  expect(await host.json("rollback", "-g", "2")).toEqual({
    exitCode: 0,
    value: { hostname: "web1", generation: 2, toplevel: second, needsReboot: false },
  });
  expect(await host.profileToplevel()).toBe(second);

  await operator.publish({ web1: next! });
  expect(await host.json("apply")).toMatchObject({ exitCode: 0, value: { updated: true } });
  expect(await host.profileToplevel()).toBe(next);
});

test("rollback on a host without any profile finds nothing to go back to", async () => {
  const host = await createHost({
    mirrors: ["file:///nowhere"],
    publicKeys: [generateKey("k").public],
  });
  const { stderr } = await host.run("rollback");
  expect(stderr).toContain("NOTHING_TO_ROLL_BACK");
});

test("rollback to the generation that is current denies nothing", async () => {
  const operator = await createOperator();
  const host = await createHost({
    mirrors: [`file://${operator.mirror}`],
    publicKeys: [operator.publicKey],
  });
  await operator.publish({ web1: await buildSystem({ generation: "1" }) });
  await host.run("apply");
  await host.run("rollback", "--generation", "1");
  expect(await jsonOf(host, "status")).toMatchObject({ denied: [] });
});

test("verify proves every byte, over a directory and over HTTP", async () => {
  const operator = await createOperator();
  const directory = await temporaryDirectory();
  const [web1, web2] = await Promise.all([
    buildSystem({ payloadBytes: 50_000 }),
    buildSystem({ name: "web2" }),
  ]);
  const { stdout } = await operator.publish({ web1, web2 }, "--json");
  const { sha256, size } = publishedHosts(stdout)["web1"]!.archive;

  const trusted = ["--public-key", operator.publicKey];
  const flipAt = (at: number) => async (archive: string) => {
    const bytes = await readFile(archive);
    bytes[at]! ^= 1;
    await writeFile(archive, bytes);
  };
  const cases: [
    name: string,
    damage: (archive: string) => Promise<unknown>,
    exitCode: number,
    code: string | null,
    overHttp?: boolean,
  ][] = [
    ["whole", async () => undefined, 0, null, true],
    ["flipped-in-header", flipAt(3), 6, "ARCHIVE_CORRUPT"],
    ["flipped-in-index", flipAt(600), 6, "ARCHIVE_CORRUPT"],
    ["flipped-in-nar", flipAt(size / 2), 6, "ARCHIVE_CORRUPT", true],
    ["flipped-at-end", flipAt(size - 1), 6, "ARCHIVE_MEMBER"],
    ["missing", (archive) => rm(archive), 5, "MIRROR_NOT_FOUND", true],
    ["truncated", (archive) => truncate(archive, size / 2), 6, "ARCHIVE_TRUNCATED", true],
    ["empty", (archive) => truncate(archive, 0), 6, "ARCHIVE_TRUNCATED"],
  ];
  const server = await serveMirror(directory);
  const check = async ([
    name,
    damage,
    exitCode,
    code,
    overHttp,
  ]: (typeof cases)[number]): Promise<void> => {
    const mirror = join(directory, name);
    await cp(operator.mirror, mirror, { recursive: true });
    await damage(join(mirror, "archives", `${sha256}.tar`));
    const addresses = overHttp ? [mirror, `${server.url}/${name}`] : [mirror];
    for (const address of addresses) {
      const output = await nixosPull(["verify", address, "--json", ...trusted]);
      expect(output.exitCode, `${address}: ${output.stderr}`).toBe(exitCode);
      const { hosts, ...release } = JSON.parse(output.stdout).channels[0];
      expect(release).toMatchObject({ channel: "stable", sequence: 1, expired: false });
      expect(release.signedBy).toEqual(["test-1"]);
      expect(hosts, address).toMatchObject([
        code === null
          ? { hostname: "web1", toplevel: web1, archive: { sha256 }, paths: 6 }
          : { hostname: "web1", paths: null, code },
        { hostname: "web2", toplevel: web2, paths: 5 },
      ]);
    }
  };
  await Promise.all(cases.map(check));
});

test("verify is told whom to trust, which channel and which host", async () => {
  const operator = await createOperator();
  const [web1, web2] = await Promise.all([buildSystem(), buildSystem({ name: "web2" })]);
  const { stdout } = await operator.publish({ web1, web2 }, "--json");
  const trusted = ["--public-key", operator.publicKey];
  const missing = `${operator.mirror}-missing`;
  await cp(operator.mirror, missing, { recursive: true });
  await rm(join(missing, "archives", `${publishedHosts(stdout)["web1"]!.archive.sha256}.tar`));
  const host = await createHost({ mirrors: ["file:///nowhere"], publicKeys: [operator.publicKey] });
  const stale = await operator.publish({ web1 }, "--channel", "stale", "--expires", "5s", "--json");
  await sleep(Date.parse(JSON.parse(stale.stdout).expiresAt) - Date.now() + 10);
  const rows: [args: string[], exitCode: number, stdout: RegExp, stderr: RegExp][] = [
    [[missing, ...trusted], 5, /^web1 {2}MIRROR_NOT_FOUND {2}.*\nweb2 {2}ok  +5 paths/m, /^$/],
    [
      [missing, ...trusted, "--host", "web2"],
      0,
      /^web2 {2}ok {2}5 paths {2}[0-9a-z]{7}-\S+\n$/m,
      /^$/,
    ],
    [[missing, ...trusted, "--host", "web9"], 4, /^$/, /HOST_NOT_IN_RELEASE: .*web9/],
    [[operator.mirror, "--config", host.configFile], 4, /EXPIRED[^]*^web1 {2}ok/m, /^$/],
    [[operator.mirror, "-p", generateKey("test-1").public], 4, /^$/, /SIGNATURE_THRESHOLD/],
    [[operator.mirror, ...trusted, "--threshold", "2"], 4, /^$/, /SIGNATURE_THRESHOLD/],
    [[operator.mirror, ...trusted, "--channel", "beta"], 5, /^$/, /MIRROR_NOT_FOUND/],
    [[operator.mirror, ...trusted, "--channel", "stale"], 4, /EXPIRED.*\nweb1 {2}ok/, /^$/],
    [[operator.mirror, "-p", "rubbish"], 3, /^$/, /KEY_INVALID/],
  ];
  await Promise.all(
    rows.map(async ([args, exitCode, stdout, stderr]) => {
      const output = await nixosPull(["verify", ...args]);
      const name = args.slice(1).join(" ");
      expect(output.exitCode, `${name}\n${output.stderr}`).toBe(exitCode);
      expect(output.stdout, name).toMatch(stdout);
      expect(output.stderr, name).toMatch(stderr);
    }),
  );
});

test("verify closes a damaged archive that it has stopped reading", async () => {
  const operator = await createOperator();
  const { stdout } = await operator.publish({ web1: await buildSystem() }, "--json");
  const archive = join(
    operator.mirror,
    "archives",
    `${publishedHosts(stdout)["web1"]!.archive.sha256}.tar`,
  );
  const bytes = await readFile(archive);
  bytes[600]! ^= 1;
  await writeFile(archive, bytes);
  const url = pathToFileURL(operator.mirror).href;
  const settings = parseSettings({ mirrors: [url], publicKeys: [operator.publicKey] }, "verify");
  const { hosts } = await verifyMirror(new DirectoryMirror(url, settings.limits), {
    channel: "stable",
    trust: trustPolicyOf(settings),
    storeKeys: settings.storeKeys,
    now: new Date(),
    onHost: () => undefined,
  });
  expect(hosts).toMatchObject([{ code: "ARCHIVE_CORRUPT" }]);
  const descriptors = await readdir("/proc/self/fd");
  const open = await Promise.all(
    descriptors.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => "")),
  );
  expect(open).not.toContain(archive);
});

test("config names the key, what was expected and what was found", async () => {
  const directory = await temporaryDirectory();
  const publicKeys = [generateKey("test-1").public];
  const good = { hostname: "web1", mirrors: ["https://mirror.test"], publicKeys };
  const rows: [config: object | string | null, exitCode: number, message: RegExp][] = [
    [good, 0, /^The configuration is valid: web1 follows stable from https:\/\/mirror\.test\.$/m],
    [{ ...good, poll: { cron: "*/10 4-6 * * *", timezone: "Europe/Berlin" } }, 0, /is valid/],
    [null, 3, /CONFIG_NOT_FOUND: .*bad\.json; .*--config/],
    ["{ nonsense", 3, /CONFIG_INVALID: .*bad\.json: expected JSON/],
    [{ ...good, mirors: [] }, 3, /bad\.json: top level: unknown key "mirors"/],
    [{ ...good, poll: { intervall: "1m" } }, 3, /poll: unknown key "intervall"/],
    [{ ...good, threshold: "two" }, 3, /threshold: expected number, found "two"/],
    [{ ...good, threshold: 2 }, 3, /threshold: expected .*no greater.*, found 2/],
    [{ ...good, mirrors: undefined }, 3, /mirrors: missing; expected array/],
    [{ ...good, mirrors: ["ftp://x"] }, 3, /mirrors\[0\]: expected an https:.*, found "ftp:\/\/x"/],
    [
      { ...good, limits: { retryMax: "soon" } },
      3,
      /limits\.retryMax: expected a duration .*found "soon"/,
    ],
    [
      { ...good, poll: { cron: "61 * * * *" } },
      3,
      /CONFIG_INVALID: .*poll\.cron: .*found "61 \* \* \* \*"/,
    ],
    [
      { ...good, poll: { cron: "0 * * * *", timezone: "Mars/Base" } },
      3,
      /poll\.timezone: .*"Mars\/Base"/,
    ],
    [{ ...good, publicKeys: [generateKey("test-1").secret] }, 3, /publicKeys\[0\]: .*SECRET key/],
  ];
  await Promise.all(
    rows.map(async ([config, exitCode, message], at) => {
      const file = join(directory, `${at}-bad.json`);
      const text = typeof config === "string" ? config : JSON.stringify(config);
      if (config !== null) await writeFile(file, text);
      const output = await nixosPull(["config", "--config", file]);
      expect(output.exitCode, `${text}\n${output.stderr}`).toBe(exitCode);
      expect(exitCode === 0 ? output.stdout : output.stderr).toMatch(message);
      expect(output.stderr).not.toContain("    at ");
    }),
  );
  const file = join(directory, "0-bad.json");
  const { stdout } = await nixosPull(["config", "--json", "--config", file]);
  expect(JSON.parse(stdout)).toMatchObject({
    ...good,
    threshold: 1,
    poll: { kind: "interval", interval: 900_000, jitter: 120_000 },
    paths: { state: "/var/lib/nixos-pull", staging: "/var/lib/nixos-pull/staging" },
  });
});

test("config names its file for a bad cron expression too", async () => {
  const file = join(await temporaryDirectory(), "cron.json");
  const publicKeys = [generateKey("test-1").public];
  const poll = { cron: "61 * * * *" };
  await writeFile(
    file,
    JSON.stringify({ hostname: "web1", mirrors: ["http://x"], publicKeys, poll }),
  );
  const { stderr } = await nixosPull(["config", "--config", file]);
  expect(stderr).toContain(file);
});

test("keygen makes a pair that fits and never overwrites one", async () => {
  const directory = await temporaryDirectory();
  const base = join(directory, "fleet");
  const made = await nixosPull(["keygen", "fleet-1", "--out", base]);
  expect(made).toMatchObject({ exitCode: 0, stderr: expect.stringContaining(`${base}.secret`) });
  const [secret, publicKey] = await Promise.all(
    ["secret", "public"].map((kind) => readFile(`${base}.${kind}`, "utf8")),
  );
  expect(made.stdout).toBe(`${publicKey}\n`);
  expect(parseSecretKey(secret!).publicKey.text).toBe(parsePublicKey(publicKey!).text);
  expect((await stat(`${base}.secret`)).mode & 0o777).toBe(0o600);
  expect((await stat(`${base}.public`)).mode & 0o777).toBe(0o644);

  const [again, orphan, spaced] = await Promise.all([
    nixosPull(["keygen", "fleet-1", "--out", base]),
    writeFile(join(directory, "half.public"), "mine").then(() =>
      nixosPull(["keygen", "half", "--out", join(directory, "half")]),
    ),
    nixosPull(["keygen", "with space", "--out", join(directory, "spaced")]),
  ]);
  expect(again).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("not overwritten") });
  expect(await readFile(`${base}.secret`, "utf8")).toBe(secret);
  expect(orphan.exitCode).toBe(2);
  expect(await readFile(join(directory, "half.public"), "utf8")).toBe("mine");
  expect(spaced).toMatchObject({ exitCode: 3, stderr: expect.stringContaining("KEY_INVALID") });

  const mirror = join(directory, "mirror");
  const system = await buildSystem();
  const host = ["--host", `web1=${system}`];
  await nixosPull(["publish", "--mirror", mirror, "--key", `${base}.secret`, ...host]);
  expect(await nixosPull(["verify", mirror, "-p", publicKey!])).toMatchObject({ exitCode: 0 });
});

test("keygen leaves no half pair where the public file exists", async () => {
  const directory = await temporaryDirectory();
  await writeFile(join(directory, "half.public"), "mine");
  await nixosPull(["keygen", "half", "--out", join(directory, "half")]);
  expect(await readdir(directory)).toEqual(["half.public"]);
});

test("a command line that is not understood exits with 2 and says so; help exits with 0", async () => {
  const rows: [args: string, exitCode: number, output: RegExp][] = [
    ["--help", 0, /On a host:[^]*For operators:/],
    ["publish --help", 0, /--keep-hosts/],
    ["help verify", 0, /--public-key/],
    ["--version", 0, /^\d+\.\d+\.\d+/],
    ["", 2, /Usage: nixos-pull/],
    ["aply", 2, /unknown command 'aply'[^]*apply[^]*--help/],
    ["apply --fast", 2, /unknown option '--fast'/],
    ["apply now", 2, /too many arguments/],
    ["check --config", 2, /argument missing/],
    ["history -n 0", 2, /expected a positive number/],
    ["rollback -g first", 2, /expected a positive number/],
    ["keygen", 2, /missing required argument 'name'/],
    ["publish --key k", 2, /required option '-m, --mirror/],
    [
      "publish -m m --mode reboot",
      2,
      /--mode: expected switch, boot, test or dry-activate, found "reboot"/,
    ],
    ["publish -m m --expires soon", 2, /expected a duration/],
    ["verify", 2, /missing required argument 'target'/],
  ];
  await Promise.all(
    rows.map(async ([args, exitCode, output]) => {
      const { ended } = startCommand(args.split(" ").filter((arg) => arg !== ""));
      const { stdout, stderr, ...found } = await ended;
      expect(found.exitCode, args).toBe(exitCode);
      expect(exitCode === 0 ? stdout : stderr, args).toMatch(output);
      expect(exitCode === 0 ? stderr : stdout, args).toBe("");
    }),
  );
});
