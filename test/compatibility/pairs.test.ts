import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { describe, expect, inject, test } from "vitest";
import { runAgent } from "../kill/support/process.ts";
import { createHostFor, SCENARIOS } from "../kill/support/scenario.ts";
import { createSimulatedHost, type SimulatedHost } from "../kill/support/simulated-host.ts";
import { buildScriptedSystem } from "../support/scripted-system.ts";
import { temporaryDirectory } from "../support/temporary.ts";
import { applyUntilDone, expectEnd, expectLaterKeys } from "./support/going-on.ts";
import {
  copyMirror,
  publish,
  runVersion,
  valueIn,
  type Pair,
  type Version,
} from "./support/world.ts";

/** A host of a template, which is removed with the test. */
async function withHost(
  pair: Pair,
  template: "old" | "new" | null,
  work: (host: SimulatedHost) => Promise<void>,
): Promise<void> {
  const host =
    template === "old"
      ? await createHostFor(pair, SCENARIOS.good)
      : await createSimulatedHost(pair, template);
  try {
    await work(host);
  } finally {
    await host.remove();
  }
}

/** The host follows another mirror from now on. */
async function follow(host: SimulatedHost, mirror: string): Promise<void> {
  const path = host.configFor("new");
  const config = JSON.parse(await readFile(path, "utf8")) as object;
  await writeFile(path, JSON.stringify({ ...config, mirrors: [pathToFileURL(mirror).href] }));
}

for (const pair of inject("compatibility").pairs) {
  const { from, to, tools, systems } = pair;
  describe(`${from.name} and then ${to.name}`, () => {
    test("first install, from a mirror of later tools", () =>
      withHost(pair, null, async (host) => {
        for (const version of [to, from]) {
          await applyUntilDone(host, version);
          expect((await host.observe()).profile).toBe(systems.new);
        }
      }));

    test("a rollback by hand, and what it denies", () =>
      withHost(pair, "new", async (host) => {
        const rolledBack = await host.run("rollback", { bundle: to.bundle });
        expect(rolledBack.exitCode, rolledBack.stderr).toBe(0);
        await expectEnd(host, pair, "denied");
      }));

    test("a host that was away for years, with an expired manifest, a barrier and an old history", () =>
      withHost(pair, "old", async (host) => {
        const directory = await temporaryDirectory();
        const [expired, current] = [join(directory, "expired"), join(directory, "current")];
        await copyMirror(fileURLToPath(pair.mirrors.old), expired);
        await publish(pair, tools, expired, systems.new, "--expires", "1s");
        const published = Date.now();
        await copyMirror(expired, current);
        const third = await buildScriptedSystem("3");
        await publish(pair, tools, current, third, "--barrier", "2");
        await sleep(Math.max(0, published + 1500 - Date.now()));
        const old = { at: "2023-11-30T00:00:00.000Z", event: "Forgotten", state: "Bygone" };
        const history = join(host.state, "history.jsonl");
        await writeFile(history, `${JSON.stringify(old)}\n${await readFile(history, "utf8")}`);

        await follow(host, expired);
        const refused = await host.run("apply", { bundle: to.bundle });
        expect(refused.stdout).toContain("MANIFEST_EXPIRED");
        expect((await host.observe()).profile).toBe(systems.old);

        await follow(host, current);
        for (const version of [to, from]) await applyUntilDone(host, version);
        expect((await host.observe()).profile).toBe(third);
        const lines = (await readFile(history, "utf8")).trim().split("\n");
        const commits = lines.filter((line) => line.includes('"event":"BootDefaultSet"'));
        expect(commits.map((line) => (JSON.parse(line) as { sequence: number }).sequence)).toEqual([
          ...[1, 2, 3],
        ]);
        expect(lines[0]).toBe(JSON.stringify(old));
      }));

    test("a thin stick, made for the report of one and read by the other", () =>
      withHost(pair, "old", async (host) => {
        const directory = await temporaryDirectory();
        const report = join(directory, "web1.json");
        const config = ["--config", host.configFor("new")];
        await runVersion(from, "report", ...config, "--out", report);
        const key = (await runVersion(from, "report", ...config, "--public-key")).trim();
        const stick = join(directory, "stick");
        await mkdir(stick);
        const about = ["--public-key", pair.publicKey, "--report-key", key];
        const mirror = fileURLToPath(pair.mirrors.new);
        await runVersion(tools, "mirror", mirror, stick, ...about, "--for-report", report);
        await follow(host, stick);
        await expectEnd(host, pair, "new");
      }));

    test("holds and confirmations of one bind the other", () =>
      withHost(pair, "old", async (host) => {
        const config = ["--config", host.configFor("new")];
        await runVersion(from, "hold", ...config, "--reason", "a storm");
        const held = await host.run("apply", { bundle: to.bundle });
        expect(held.stdout).toContain("HELD");
        expect((await host.observe()).profile).toBe(systems.old);
        await runVersion(to, "unhold", ...config);
        await expectEnd(host, pair, "new");
        if (from.name === "later") await expectLaterKeys(host);
      }));

    test("reports of both are believed and shown by both fleets", () =>
      withHost(pair, "new", async (host) => {
        const directory = await temporaryDirectory();
        const config = ["--config", host.configFor("new")];
        const key = (await runVersion(from, "report", ...config, "--public-key")).trim();
        const reports = join(directory, "reports");
        await mkdir(reports);
        const memory = join(directory, "memory");
        for (const reporting of [from, to]) {
          await runVersion(reporting, "report", ...config, "--out", join(reports, "new.json"));
          await cp(join(reports, "new.json"), join(reports, "web1.json"));
          for (const reading of [from, to]) {
            const shown = await fleet(reading, reports, key, memory);
            expect(shown).toMatchObject([
              { hostname: "web1", standing: "current", release: 2, onTarget: true },
            ]);
          }
        }
        // Each fleet wrote the memory, and none lost what the other knows of it.
        expect(JSON.stringify(await valueIn(memory))).toContain('"later"');
      }));
  });
}

/** What `fleet` shows of hosts. */
async function fleet(
  { bundle }: Version,
  reports: string,
  key: string,
  memory: string,
): Promise<unknown> {
  const place = join(reports, "..", "shown");
  await mkdir(place, { recursive: true });
  await cp(join(reports, "web1.json"), join(place, "web1.json"));
  const args = ["fleet", place, "--report-key", key, "--memory", memory, "--json"];
  const { exitCode, stdout, stderr } = await runAgent(args, null, bundle);
  expect(exitCode, stderr).toBe(0);
  return (JSON.parse(stdout) as { hosts: unknown }).hosts;
}
