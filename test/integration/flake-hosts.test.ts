import { execFileSync } from "node:child_process";
import { access, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { SYSTEM_FILE } from "../support/closure.ts";
import { nixosPull, type CommandOutput } from "../support/nixos-pull.ts";
import { runNix } from "../support/real-nix.ts";
import { createOperator, type Operator } from "../support/sandbox.ts";

interface Published {
  readonly hosts: { hostname: string; toplevel: string }[];
  readonly failed: { hostname: string; message: string }[];
}

interface Fleet {
  readonly operator: Operator;
  readonly directory: string;
  /** Writes a flake with these outputs; `system NAME GENERATION` and `host NAME SAYS` are known. */
  write(outputs: string, inputs?: string): Promise<void>;
  publish(...args: string[]): Promise<CommandOutput>;
}

/** A directory with a flake whose configurations are as small as those of nixosSystem are large. */
async function createFleet(): Promise<Fleet> {
  const operator = await createOperator();
  const directory = join(operator.directory, "fleet");
  await mkdir(directory);
  // A pure evaluation does not say what machine this is.
  const machine = runNix("nix-instantiate", ["--eval", "-E", "builtins.currentSystem"]).trim();
  const system = (await readFile(SYSTEM_FILE, "utf8")).replace("builtins.currentSystem", machine);
  await writeFile(join(directory, "system.nix"), system);
  return {
    operator,
    directory,
    write: (outputs, inputs = "") =>
      writeFile(
        join(directory, "flake.nix"),
        `{
          ${inputs}
          outputs = { self, ... }: let
            system = name: generation: (import ./system.nix { inherit name generation; }).system;
            host = name: release: {
              config.system.build.toplevel = system name "1";
              config.services.nixos-pull.release = release;
            };
          in { ${outputs} };
        }`,
      ),
    publish: (...args) =>
      nixosPull(["publish", "--mirror", operator.mirror, "--key", operator.keyFile, ...args]),
  };
}

const THREE = `nixosConfigurations = {
  web1 = host "web1" { groups = [ "canary" ]; activation = { mode = "boot"; specialisation = null; }; };
  web2 = host "web2" { machineId = null; };
  db1 = { config.system.build.toplevel = system "db1" "1"; };
};`;

async function namesOf(fleet: Fleet, ...args: string[]): Promise<string[]> {
  const output = await fleet.publish(...args, "--json");
  expect(output.exitCode, output.stderr).toBe(0);
  const { hosts } = JSON.parse(output.stdout) as Published;
  return hosts.map(({ hostname }) => hostname).sort();
}

async function entriesOf({ operator }: Fleet): Promise<Record<string, any>> {
  const file = join(operator.mirror, "channels/stable/manifest.json");
  const { payload } = JSON.parse(await readFile(file, "utf8"));
  return JSON.parse(Buffer.from(payload, "base64").toString()).hosts;
}

describe("publish --flake", () => {
  test("publishes every configuration, with what each says of itself", async () => {
    const fleet = await createFleet();
    await fleet.write(THREE);
    expect(await namesOf(fleet, "--flake", fleet.directory)).toEqual(["db1", "web1", "web2"]);
    const { web1, web2, db1 } = await entriesOf(fleet);
    expect(web1).toMatchObject({ groups: ["canary"], activation: { mode: "boot" } });
    expect(web1.activation).not.toHaveProperty("specialisation");
    for (const entry of [web2, db1]) {
      for (const key of ["groups", "machineId", "activation"])
        expect(entry).not.toHaveProperty(key);
    }
  });

  test("takes those that patterns fit, and not those that others do", async () => {
    const fleet = await createFleet();
    await fleet.write(THREE);
    const flake = ["--flake", fleet.directory];
    expect(await namesOf(fleet, ...flake, "--only", "web*")).toEqual(["web1", "web2"]);
    expect(await namesOf(fleet, ...flake, "--except", "web?")).toEqual(["db1"]);
    const both = ["--only", "db1", "--only", "web*", "--except", "web2"];
    expect(await namesOf(fleet, ...flake, ...both)).toEqual(["db1", "web1"]);
    const one = ["--flake", `${fleet.directory}#web1`];
    expect(await namesOf(fleet, ...one)).toEqual(["web1"]);
    const two = ["--flake", `${fleet.directory}#nixosConfigurations.db1`];
    expect(await namesOf(fleet, ...one, ...two)).toEqual(["db1", "web1"]);
  });

  test.each([
    [["--only", "wbe*"], /expected a host of .*, found "wbe\*", which fits none of db1, /],
    [["--except", "db2"], /--except: expected a host of .*, found "db2", which fits none of db1, /],
    [["--except", "*"], /expected at least one host of .*, found none that is left/],
    [["--group", "web9=canary"], /--group: expected a host that is published, found web9/],
  ])("refuses %j before a host is evaluated", async (args, why) => {
    const fleet = await createFleet();
    const unevaluated = 'throw "this host was evaluated"';
    await fleet.write(`nixosConfigurations = { db1 = ${unevaluated}; web1 = ${unevaluated}; };`);
    const output = await fleet.publish("--flake", fleet.directory, ...args);
    expect(output.exitCode, output.stderr).toBe(2);
    expect(output.stderr).toMatch(why);
    expect(output.stderr).not.toContain("was evaluated");
  });

  test("leaves out, and says so, what is not to be published", async () => {
    const fleet = await createFleet();
    await fleet.write(`nixosConfigurations = {
      web1 = host "web1" { publish = true; };
      laptop = { config.system.build = throw "unused"; config.services.nixos-pull.release.publish = false; };
    };`);
    const output = await fleet.publish("--flake", fleet.directory, "--json");
    expect(output.exitCode, output.stderr).toBe(0);
    expect((JSON.parse(output.stdout) as Published).hosts).toHaveLength(1);
    expect(output.stderr).toContain("not published, since release.publish is false there: laptop");
    const none = await fleet.publish("--flake", fleet.directory, "--only", "laptop");
    expect(none.exitCode).toBe(2);
    expect(none.stderr).toContain("leave themselves out");
    const typo = await fleet.publish("--flake", `${fleet.directory}#web9`);
    expect(typo.exitCode).toBe(2);
    expect(typo.stderr).toMatch(/USAGE: expected a host of .*found "web9"/);
  });

  test("names a host that fails with Nix's own text; --keep-going publishes the others", async () => {
    const fleet = await createFleet();
    await fleet.write(`nixosConfigurations = {
      web1 = host "web1" { };
      web2 = host "web2" (throw "The option \`services.nope' does not exist.");
      web3 = host "web3" { };
    };`);
    const flake = ["--flake", fleet.directory];
    const refused = await fleet.publish(...flake);
    expect(refused.exitCode).toBe(10);
    expect(refused.stderr).toMatch(/1 of 3 hosts failed:\nweb2: error: .*`services.nope' does not/);
    const output = await fleet.publish(...flake, "--keep-going", "--json");
    expect(output.exitCode, output.stderr).toBe(12);
    const { hosts, failed } = JSON.parse(output.stdout) as Published;
    expect(hosts.map(({ hostname }) => hostname)).toEqual(["web1", "web3"]);
    expect(failed.map(({ hostname }) => hostname)).toEqual(["web2"]);
  });

  test("says what a flake without configurations lacks", async () => {
    const fleet = await createFleet();
    await fleet.write("packages = { };");
    const output = await fleet.publish("--flake", fleet.directory);
    expect(output.exitCode).toBe(3);
    expect(output.stderr).toMatch(
      /CONFIG_INVALID: expected nixosConfigurations in the flake .*fleet, found no such output/,
    );
  });

  test("never writes the lock file, and wants one that is whole", async () => {
    const fleet = await createFleet();
    const input = join(fleet.operator.directory, "input");
    await mkdir(input);
    await writeFile(join(input, "flake.nix"), "{ outputs = { self }: { }; }");
    await fleet.write(THREE, `inputs.input.url = "path:${input}";`);
    for (const hosts of [
      ["--flake", fleet.directory],
      ["--host", `web1=${fleet.directory}#web1`],
    ]) {
      const output = await fleet.publish(...hosts);
      expect(output.exitCode).toBe(10);
      expect(output.stderr).toMatch(/requires lock file changes .*run `nix flake lock` there/);
      await expect(access(join(fleet.directory, "flake.lock"))).rejects.toThrow("ENOENT");
    }
    const experimental = ["--extra-experimental-features", "nix-command flakes"];
    runNix("nix", [...experimental, "flake", "lock", fleet.directory]);
    expect(await namesOf(fleet, "--flake", fleet.directory)).toHaveLength(3);
  });

  test("publishes what Git knows, also of a directory with changes", async () => {
    const fleet = await createFleet();
    await fleet.write(THREE);
    const git = (...args: string[]): void => {
      const who = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
      execFileSync("git", [...who, "-C", fleet.directory, ...args], { stdio: "pipe" });
    };
    git("init");
    git("add", ".");
    git("commit", "--message", "x");
    expect(await namesOf(fleet, "--flake", fleet.directory)).toHaveLength(3);
    await fleet.write('nixosConfigurations.web9 = host "web9" { };');
    expect(await namesOf(fleet, "--flake", fleet.directory)).toEqual(["web9"]);
  });
});

/**
 * nix-eval-jobs as far as its manual says what it does: one line of JSON for each attribute that is a
 * derivation or fails, and none for others. It leaves its arguments behind in a file, and a group in
 * each host, which tells whether its answer was taken.
 */
const EVAL_JOBS = `#!/usr/bin/env node
import { spawnSync } from "node:child_process";
import { appendFileSync } from "node:fs";
const args = process.argv.slice(2);
if (args.includes("--help")) {
  console.log("  --apply  Apply provided Nix function to each derivation.");
  process.exit();
}
appendFileSync(process.env.EVAL_JOBS_LOG, args.join(" ") + "\\n");
if (process.env.EVAL_JOBS_FAIL) process.exit(1);
const valueOf = (flag) => args[args.indexOf(flag) + 1];
const options = args.flatMap((arg, at) => (arg === "--option" ? args.slice(at, at + 3) : []));
const nix = (text) =>
  spawnSync("nix-instantiate", [...options, "--eval", "--strict", "--json", "--read-write-mode", "-E", text], { encoding: "utf8" });
const jobs = valueOf("--expr");
for (const name of JSON.parse(nix(\`builtins.attrNames (\${jobs})\`).stdout)) {
  const attribute = { attr: name, attrPath: [name] };
  const job = \`(\${jobs}).\${name}\`;
  const { status, stdout, stderr } = nix(
    \`if \${job} == null then null else { inherit (\${job}) drvPath; extraValue = (\${valueOf("--apply")}) \${job}; }\`,
  );
  if (status !== 0) {
    console.log(JSON.stringify({ ...attribute, error: stderr }));
  } else if (stdout.trim() !== "null") {
    const { drvPath, extraValue } = JSON.parse(stdout);
    extraValue.says.groups = [...extraValue.says.groups ?? [], "of-program"];
    console.log(JSON.stringify({ ...attribute, drvPath, extraValue }));
  }
}
`;

describe("publish with nix-eval-jobs on PATH", () => {
  async function withProgram(fleet: Fleet, variables: Record<string, string> = {}) {
    const programs = join(fleet.operator.directory, "programs");
    await mkdir(programs);
    // A program without an extension is no module, unless it says so.
    await writeFile(join(programs, "jobs.mjs"), EVAL_JOBS);
    const script = `#!/bin/sh\nexec ${process.execPath} ${programs}/jobs.mjs "$@"\n`;
    await writeFile(join(programs, "nix-eval-jobs"), script, { mode: 0o755 });
    const log = join(programs, "log");
    const path = `${programs}:${process.env["PATH"] ?? ""}`;
    const { mirror, keyFile } = fleet.operator;
    return {
      publish: (...args: string[]) =>
        nixosPull(
          ["publish", "--mirror", mirror, "--key", keyFile, "--eval-memory", "2", ...args],
          { ...variables, PATH: path, EVAL_JOBS_LOG: log },
        ),
      calls: async () => (await readFile(log, "utf8")).split("--workers").length - 1,
      arguments: () => readFile(log, "utf8"),
    };
  }

  const FOUR = `nixosConfigurations = {
    web1 = host "web1" { groups = [ "canary" ]; };
    web2 = host "web2" { };
    web3 = host "web3" { publish = false; };
    db1 = host "db1" (throw "oops");
  };`;

  test.each([
    [{}, ["canary", "of-program"]],
    [{ EVAL_JOBS_FAIL: "1" }, ["canary"]],
  ])(
    "takes its systems, and leaves the rest to Nix: %j",
    async (variables: Record<string, string>, groups) => {
      const fleet = await createFleet();
      await fleet.write(FOUR);
      const program = await withProgram(fleet, variables);
      const output = await program.publish("--flake", fleet.directory, "--keep-going", "--json");
      expect(output.exitCode, output.stderr).toBe(12);
      const { hosts, failed } = JSON.parse(output.stdout) as Published;
      expect(hosts.map(({ hostname }) => hostname)).toEqual(["web1", "web2"]);
      expect(failed).toMatchObject([{ hostname: "db1", message: "error: oops" }]);
      expect((await entriesOf(fleet))["web1"]).toMatchObject({ groups });
      expect(output.stderr).toContain("release.publish is false there: web3");
      expect(await program.calls()).toBe(1);
      expect(await program.arguments()).toMatch(
        /--option pure-eval true --workers [12] --max-memory-size (768|1536) /,
      );
    },
  );

  test("evaluates Nix files by it too", async () => {
    const fleet = await createFleet();
    await fleet.write(FOUR);
    const file = join(fleet.operator.directory, "hosts.nix");
    await writeFile(file, `{ }: { web1 = (import ./fleet/system.nix { name = "web1"; }).system; }`);
    const program = await withProgram(fleet);
    const output = await program.publish("--hosts", file);
    expect(output.exitCode, output.stderr).toBe(0);
    expect(await program.calls()).toBe(1);
    expect((await entriesOf(fleet))["web1"]).toMatchObject({ groups: ["of-program"] });
  });
});

describe("publish --hosts", () => {
  test("takes an attribute of a flake, with configurations, systems and what hosts files say", async () => {
    const fleet = await createFleet();
    await fleet.write(`fleet = {
      web1 = host "web1" { groups = [ "canary" ]; };
      web2 = system "web2" "1";
      web3 = { system = system "web3" "1"; groups = [ "late" ]; };
      web4 = { system = host "web4" { groups = [ "early" ]; activation.mode = "boot"; }; groups = [ "late" ]; };
      web5 = { system = throw "unused"; publish = false; };
    };`);
    const names = await namesOf(fleet, "--hosts", `${fleet.directory}#fleet`);
    expect(names).toEqual(["web1", "web2", "web3", "web4"]);
    expect(await entriesOf(fleet)).toMatchObject({
      ...{ web1: { groups: ["canary"] }, web3: { groups: ["late"] } },
      web4: { groups: ["late"], activation: { mode: "boot" } },
    });
  });

  test("takes a Nix file that looks into a flake, without settings of Nix for it", async () => {
    const fleet = await createFleet();
    await fleet.write(THREE);
    const file = join(fleet.operator.directory, "hosts.nix");
    await writeFile(file, `(builtins.getFlake "path:${fleet.directory}").nixosConfigurations`);
    expect(await namesOf(fleet, "--hosts", file, "--except", "db1")).toEqual(["web1", "web2"]);
  });

  test("leaves out what a JSON file says or a pattern fits", async () => {
    const fleet = await createFleet();
    await fleet.write(THREE);
    const file = join(fleet.operator.directory, "hosts.json");
    const system = `${fleet.directory}#web1`;
    await writeFile(
      file,
      JSON.stringify({ web1: system, web2: { system, publish: false }, db1: system }),
    );
    expect(await namesOf(fleet, "--hosts", file, "--only", "web*")).toEqual(["web1"]);
  });
});
