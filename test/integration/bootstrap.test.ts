import { execFile, execFileSync, spawnSync } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import { buildSystem } from "../support/closure.ts";
import { nixosPull, testEnvironment } from "../support/nixos-pull.ts";
import { createHost, createOperator, type Operator } from "../support/sandbox.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const run = promisify(execFile);
const BUNDLE = new URL("../../dist/nixos-pull.cjs", import.meta.url).pathname;
const hasShellcheck = spawnSync("shellcheck", ["--version"]).error === undefined;
const hasYaml = spawnSync("python3", ["-c", "import yaml"]).status === 0;

let toplevel = "";
beforeAll(async () => {
  toplevel = await buildSystem();
});

/** What a provisioner gets for web1, with further settings. */
async function bootstrapped(operator: Operator, settings: Record<string, unknown> = {}) {
  const file = join(operator.directory, "settings.json");
  await writeFile(file, JSON.stringify(settings));
  const { stdout, stderr } = await nixosPull([
    ...["bootstrap", "--json", "--hostname", "web1", "--settings", file],
    ...["--mirror", `file://${operator.mirror}`, "--public-key", `${operator.publicKey}\n`],
  ]);
  if (stdout === "") throw new Error(stderr);
  return JSON.parse(stdout) as Record<"hostname" | "config" | "script" | "user_data", string>;
}

/** A directory with `nixos-pull` in it, and other programs as scripts. */
async function programs(scripts: Record<string, string> = {}): Promise<string> {
  const bin = await temporaryDirectory();
  const all = { "nixos-pull": `exec '${process.execPath}' '${BUNDLE}' "$@"`, ...scripts };
  for (const [name, script] of Object.entries(all)) {
    await writeFile(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }
  return bin;
}

/** Settings of a sandbox host, without what bootstrap gives. */
async function sandboxSettings(operator: Operator) {
  const mirrors = [`file://${operator.mirror}`];
  const host = await createHost({ mirrors, publicKeys: [operator.publicKey] });
  const settings = JSON.parse(await readFile(host.configFile, "utf8")) as Record<string, unknown>;
  delete settings["mirrors"];
  delete settings["publicKeys"];
  return { host, settings };
}

describe("the script", () => {
  test("brings a host to its first release, and may be repeated", async () => {
    const operator = await createOperator();
    await operator.publish({ web1: toplevel });
    const { host, settings } = await sandboxSettings(operator);
    const { script } = await bootstrapped(operator, settings);
    const file = join(operator.directory, "bootstrap");
    await writeFile(file, script);
    execFileSync("sh", ["-n", file]);
    if (hasShellcheck) execFileSync("shellcheck", [file]);
    const directory = join(host.root, "bootstrap");
    const start = async () =>
      run("sh", [file, "--here"], {
        env: {
          ...testEnvironment(),
          PATH: `${await programs()}:${process.env["PATH"] ?? ""}`,
          NIXOS_PULL_BOOTSTRAP: directory,
        },
      });
    expect((await start()).stdout).toContain("Applied release 1 of stable");
    expect(await host.profileToplevel()).toBe(toplevel);
    expect((await start()).stdout).toContain("Nothing to do");
  });

  test("tries again while the mirror is not there, but not for ever", async () => {
    const operator = await createOperator();
    const { host, settings } = await sandboxSettings(operator);
    const { script } = await bootstrapped(operator, settings);
    const file = join(operator.directory, "bootstrap");
    await writeFile(file, script);
    await mkdir(operator.mirror);
    const start = async (sleep: string) => {
      const bin = await programs({ sleep });
      return run("sh", [file, "--here"], {
        env: {
          ...testEnvironment(),
          PATH: `${bin}:${process.env["PATH"] ?? ""}`,
          NIXOS_PULL_BOOTSTRAP: join(host.root, "bootstrap"),
          NIXOS_PULL_BOOTSTRAP_TRIES: "3",
        },
      });
    };
    const waits = join(operator.directory, "waits");
    await expect(start(`echo "$1" >> '${waits}'`)).rejects.toMatchObject({
      code: 5,
      stdout: expect.stringMatching(/exit code 5; the next try is in 30 s, 2 left\n[^]*, 1 left\n/),
      stderr: expect.stringContaining(
        `gave up: nixos-pull apply ended with exit code 5; run ${file}`,
      ),
    });
    expect(await readFile(waits, "utf8")).toBe("30\n30\n");

    // The mirror appears while the script waits.
    const publish = [
      `'${process.execPath}' '${BUNDLE}' publish --mirror '${operator.mirror}'`,
      `--key '${operator.keyFile}' --host 'web1=${toplevel}'`,
    ].join(" ");
    expect((await start(publish)).stdout).toContain("Applied release 1 of stable");
  });

  test("waits for the host's turn for as long as the rollout says", async () => {
    const operator = await createOperator();
    const { host, settings } = await sandboxSettings(operator);
    const { script } = await bootstrapped(operator, settings);
    const file = join(operator.directory, "bootstrap");
    await writeFile(file, script);
    const publish = await operator.publish({ web1: toplevel }, "--paused", "not yet");
    expect(publish.exitCode, publish.stderr).toBe(0);
    const waits = join(operator.directory, "waits");
    const resume = `'${process.execPath}' '${BUNDLE}' release resume --mirror '${operator.mirror}' --key '${operator.keyFile}'`;
    // The release is resumed after more waits than there are tries.
    const sleep = `echo "$1" >> '${waits}'; [ "$(wc -l < '${waits}')" -lt 4 ] || ${resume}`;
    const { stdout } = await run("sh", [file, "--here"], {
      env: {
        ...testEnvironment(),
        PATH: `${await programs({ sleep })}:${process.env["PATH"] ?? ""}`,
        NIXOS_PULL_BOOTSTRAP: join(host.root, "bootstrap"),
        NIXOS_PULL_BOOTSTRAP_TRIES: "1",
      },
    });
    expect(stdout).toContain("Applied release 2 of stable");
    expect(stdout).toContain("this host has to wait; the next try is in 300 s\n");
    expect(await readFile(waits, "utf8")).toBe("300\n".repeat(4));
  });

  test("says what an image without nixos-pull lacks", async () => {
    const operator = await createOperator();
    const { script } = await bootstrapped(operator);
    const bare = spawnSync("/bin/sh", ["-s", "--", "--here"], {
      input: script,
      env: { PATH: "/nowhere" },
      encoding: "utf8",
    });
    expect(bare).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("this image has no nixos-pull"),
    });
  });
});

describe("user data", () => {
  test.skipIf(!hasYaml)("is YAML that writes the script and runs it", async () => {
    const operator = await createOperator();
    const { user_data: userData, script } = await bootstrapped(operator);
    expect(userData).toMatch(/^#cloud-config\n/);
    const parsed = JSON.parse(
      execFileSync(
        "python3",
        ["-c", "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"],
        { input: userData, encoding: "utf8" },
      ),
    ) as {
      write_files: { path: string; content: string; permissions: string }[];
      runcmd: string[][];
    };
    const path = "/var/lib/nixos-pull-bootstrap/bootstrap";
    expect(parsed.write_files).toEqual([{ path, permissions: "0755", content: script }]);
    expect(parsed.runcmd).toEqual([["/bin/sh", path]]);
  });

  test("is what is printed; --format script prints the script, --json all of it as texts", async () => {
    const operator = await createOperator();
    const all = await bootstrapped(operator);
    expect(Object.values(all).every((value) => typeof value === "string")).toBe(true);
    const args = [
      ...["bootstrap", "--hostname", "web1", "--mirror", `file://${operator.mirror}`],
      ...["--public-key", operator.publicKey],
    ];
    expect((await nixosPull(args)).stdout).toBe(all.user_data);
    expect((await nixosPull([...args, "--format", "script"])).stdout).toBe(all.script);
    expect(JSON.parse(all.config)).toEqual({
      hostname: "web1",
      mirrors: [`file://${operator.mirror}`],
      publicKeys: [operator.publicKey],
    });
  });
});

test.each([
  [["--mirror", "https://x.example.org"], "expected --public-key, or publicKeys in the file"],
  [
    ["--public-key", "k:v97JDaQfBAybKb1wBx3rpKQFLOKoYnc+OEyoZ72jkt8="],
    "expected --mirror, or mirrors",
  ],
])("what is missing is named as an option: %j", async (args, said) => {
  const refused = await nixosPull(["bootstrap", "--hostname", "web1", ...args]);
  expect(refused).toMatchObject({ exitCode: 2, stdout: "", stderr: expect.stringContaining(said) });
});

test.each([
  [["--hostname", "../x"], "USAGE"],
  [["--mirror", "ftp://example.org"], "CONFIG_INVALID"],
  [["--public-key", "nonsense"], "CONFIG_INVALID"],
  [["--channel", "UPPER CASE"], "CONFIG_INVALID"],
  [["--settings", "/nowhere/at/all"], "CONFIG_NOT_FOUND"],
])("what the agent would refuse is refused: %j", async (args, code) => {
  const { publicKey } = await createOperator();
  const base = ["bootstrap", "--hostname", "web1", "--mirror", "https://releases.example.org"];
  const refused = await nixosPull([...base, "--public-key", publicKey, ...args]);
  expect(refused).toMatchObject({ stdout: "", stderr: expect.stringContaining(code) });
});
