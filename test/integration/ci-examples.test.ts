import { execFileSync, spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { newMachine, paste, RUN_BUNDLE, type NewMachine } from "../support/newcomer.ts";
import { nixosPull } from "../support/nixos-pull.ts";
import { nixosPullSources, standInNixpkgs, tarballOf } from "../support/stand-in-nixpkgs.ts";
import { suiteDirectory } from "../support/suite-directory.ts";

/** What of the examples is not run here, and why. */
const NOT_RUN: Readonly<Record<string, string>> = {
  "actions/checkout@v4": "GitHub's own; the test clones as it does",
  "cachix/install-nix-action@v31": "Nix is here already",
  "actions/cache@v4": "GitHub's own; the examples work without a cache",
};

const DIRECTORY = suiteDirectory();
const PASSWORD = "rclone-password-3141";
let nixpkgs = "";
let sources = "";

beforeAll(async () => {
  nixpkgs = await standInNixpkgs(DIRECTORY);
  sources = await nixosPullSources(DIRECTORY);
});

/** What a job of the example came to. */
interface JobResult {
  readonly exitCode: number;
  /** Everything that the job's log shows. */
  readonly log: string;
  /** The directory that the job worked in. */
  readonly workspace: string;
}

/** An operator's repository on a code host, with its secrets, and where the mirror goes. */
interface Project {
  readonly machine: NewMachine;
  /** The operator's own clone. */
  readonly clone: string;
  /** The repository on the code host. */
  readonly origin: string;
  readonly destination: string;
  readonly publicKey: string;
  readonly secretKey: string;
  readonly rcloneConfig: string;
  /** The wrapper that the hosts' package is, of which a test may make another. */
  readonly program: string;
}

async function newProject(...args: string[]): Promise<Project> {
  const machine = await newMachine(DIRECTORY, { "nixos-pull": RUN_BUNDLE });
  const { directory } = machine;
  const [clone, origin, storage] = ["fleet", "origin.git", "storage"].map((name) =>
    join(directory, name),
  ) as [string, string, string];
  await mkdir(storage);
  const flake = args.includes("--flake");
  const inputs = {
    nixpkgs: flake ? `path:${nixpkgs}` : tarballOf(nixpkgs),
    nixosPull: flake ? `path:${sources}` : tarballOf(sources),
  };
  const program = join(directory, "program");
  await writeFile(program, `#!/bin/sh\n${RUN_BUNDLE}\n`, { mode: 0o755 });
  const started = await nixosPull([
    ...["init", clone, "--host", "web1", "--host", "db1", ...args],
    ...["--nixpkgs", inputs.nixpkgs, "--nixos-pull", inputs.nixosPull],
  ]);
  expect(started.exitCode, started.stderr).toBe(0);
  const common = join(clone, "common.nix");
  // The package itself cannot be built out of the stand-in of nixpkgs.
  await writeFile(
    common,
    (await readFile(common, "utf8"))
      .replace("{ lib, ... }", "{ lib, pkgs, ... }")
      .replace(
        "enable = true;",
        `enable = true;\n    package = pkgs.writeShellScriptBin "nixos-pull" ''exec ${program} "$@"'';`,
      ),
  );
  await paste(
    machine,
    clone,
    `git init --quiet --bare --initial-branch main ${origin}
    git init --quiet --initial-branch main
    git config user.name x; git config user.email x@example.org
    nixos-pull keygen fleet-1 --out keys/fleet-1
    mv keys/fleet-1.secret ${directory}
    ${
      flake
        ? "git add --all; nix --extra-experimental-features 'nix-command flakes' flake lock"
        : `./pin nixpkgs ${inputs.nixpkgs}; ./pin nixos-pull ${inputs.nixosPull}`
    }
    git add --all; git commit --quiet --message Start
    git remote add origin ${origin}; git push --quiet --set-upstream origin main`,
  );
  return {
    ...{ machine, clone, origin, destination: join(storage, "releases"), program },
    publicKey: await readFile(join(clone, "keys/fleet-1.public"), "utf8"),
    secretKey: await readFile(join(directory, "fleet-1.secret"), "utf8"),
    rcloneConfig: `[mirror]\ntype = alias\nremote = ${storage}\npassword = ${PASSWORD}\n`,
  };
}

/** Makes a commit of the operator and pushes it. */
function pushing({ clone }: Project, change: string): string {
  return `cd ${clone}; git pull --quiet --rebase; ${change}
    git add --all; git commit --quiet --message Change; git push --quiet`;
}

async function pushes(project: Project, change: string): Promise<void> {
  await paste(project.machine, project.clone, pushing(project, change));
}

interface Step {
  readonly name?: string;
  readonly id?: string;
  readonly uses?: string;
  readonly run?: string;
  readonly env?: Readonly<Record<string, string>>;
}
interface GitHubWorkflow {
  readonly env: Readonly<Record<string, string>>;
  readonly jobs: { readonly publish: { readonly steps: readonly Step[] } };
}
interface GitLabPipeline {
  readonly publish: {
    readonly variables: Readonly<Record<string, string>>;
    readonly script: readonly string[];
  };
}

function parseYaml(file: string): unknown {
  const program = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
  return JSON.parse(execFileSync("python3", ["-c", program, file], { encoding: "utf8" }));
}

/** Runs a script with a umask; gives its exit code and what it printed. */
async function runScript(
  script: { readonly shell: readonly string[]; readonly umask: string; readonly text: string },
  where: string,
  env: Readonly<Record<string, string>>,
): Promise<{ exitCode: number; log: string }> {
  const file = `${await mkdtemp(join(DIRECTORY, "script-"))}/script`;
  await writeFile(file, script.text);
  const command = ["-c", `umask ${script.umask}; exec "$@"`, "sh", ...script.shell, file];
  const child = spawn("/bin/sh", command, { cwd: where, env, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => (log += text));
  }
  const exitCode = await new Promise<number>((resolve) => {
    child.once("close", (code) => {
      resolve(code ?? -1);
    });
  });
  return { exitCode, log };
}

/** Runs the job as GitHub does: each step in a shell of its own, until one fails. */
async function runGitHubJob(
  { machine, origin, secretKey, rcloneConfig }: Project,
  options: string,
  /** What somebody does after the upload, in shell. */
  meanwhile = "",
): Promise<JobResult> {
  const runner = await mkdtemp(join(machine.directory, "github-"));
  const workspace = join(runner, "workspace");
  await paste(machine, runner, `git clone --quiet --depth 1 file://${origin} ${workspace}`);
  const workflow = parseYaml(join(workspace, ".github/workflows/publish.yml")) as GitHubWorkflow;
  const { steps } = workflow.jobs.publish;
  const files = { GITHUB_PATH: join(runner, "path"), GITHUB_OUTPUT: join(runner, "output") };
  for (const file of Object.values(files)) await writeFile(file, "");
  const home = join(runner, "home");
  for (const made of [home, join(runner, "temp")]) await mkdir(made);
  const outputs: Record<string, string> = {};
  const values: Record<string, () => string | undefined> = {
    "secrets.NIXOS_PULL_KEY": () => secretKey,
    "secrets.RCLONE_CONFIG_TEXT": () => rcloneConfig,
    "steps.publish.outputs.status": () => outputs["status"],
  };
  const evaluated = (text: string): string =>
    text.replaceAll(/\$\{\{ (\S+) \}\}/g, (_, name: string) => {
      const value = values[name]?.();
      if (value === undefined) throw new Error(`the test does not know ${name}`);
      return value;
    });
  let log = "";
  for (const { run, uses, env = {}, name } of steps) {
    if (run === undefined) {
      expect(NOT_RUN).toHaveProperty([uses ?? name ?? ""]);
      continue;
    }
    const path = (await readFile(files.GITHUB_PATH, "utf8")).split("\n").filter(Boolean).reverse();
    const result = await runScript({ shell: ["bash", "-e"], umask: "077", text: run }, workspace, {
      ...{ ...machine.env, ...files, HOME: home, RUNNER_TEMP: join(runner, "temp") },
      // Without the machine's own nixos-pull.
      PATH: [...path, (machine.env["PATH"] ?? "").replace(`${machine.bin}:`, "")].join(":"),
      ...{ ...workflow.env, PUBLISH_OPTIONS: options },
      ...Object.fromEntries(Object.entries(env).map(([key, text]) => [key, evaluated(text)])),
    });
    log += result.log;
    for (const line of (await readFile(files.GITHUB_OUTPUT, "utf8")).split("\n")) {
      const [key = "", value = ""] = line.split("=");
      outputs[key] = value;
    }
    if (result.exitCode !== 0) return { ...result, log, workspace };
    if (name === "Upload") await paste(machine, workspace, meanwhile);
  }
  expect(await readdir(join(runner, "temp"))).toEqual([]);
  return { exitCode: 0, log, workspace };
}

/** Runs the job as GitLab does: all lines in one shell, in a checkout of the commit alone. */
async function runGitLabJob(
  { machine, origin, secretKey, rcloneConfig }: Project,
  options: string,
  /** What somebody does after the upload, in shell. */
  meanwhile = "",
): Promise<JobResult> {
  const runner = await mkdtemp(join(machine.directory, "gitlab-"));
  const workspace = join(runner, "workspace");
  await paste(
    machine,
    runner,
    `git clone --quiet --depth 20 file://${origin} ${workspace}
    cd ${workspace}; git checkout --quiet --detach
    # GitLab knows this option of a push, which Git's own server has to be told.
    git -C ${origin} config receive.advertisePushOptions true`,
  );
  const { publish } = parseYaml(join(workspace, ".gitlab-ci.yml")) as GitLabPipeline;
  const [key, config] = [join(runner, "key"), join(runner, "rclone.conf")];
  await writeFile(key, secretKey, { mode: 0o666 });
  await writeFile(config, rcloneConfig, { mode: 0o666 });
  const after = publish.script.findIndex((line) => line.startsWith("./upload")) + 1;
  const lines = [
    ...publish.script.slice(0, after),
    `(${meanwhile || ":"}\n)`,
    ...publish.script.slice(after),
  ];
  const result = await runScript(
    { shell: ["bash", "-eo", "pipefail"], umask: "0000", text: lines.join("\n") },
    workspace,
    {
      ...{ ...machine.env, HOME: runner },
      PATH: (machine.env["PATH"] ?? "").replace(`${machine.bin}:`, ""),
      ...{ ...publish.variables, PUBLISH_OPTIONS: options },
      ...{ NIXOS_PULL_KEY: key, RCLONE_CONFIG: config, PUSH_TOKEN: "push-token-2718" },
      CI_PROJECT_URL: `file://${origin.replace(/\.git$/, "")}`,
      CI_COMMIT_BRANCH: "main",
    },
  );
  expect(result.log).not.toContain("push-token");
  return { ...result, workspace };
}

/** The sequence of the release that hosts see. */
async function sequenceAt({ destination, publicKey }: Project): Promise<number> {
  const shown = await nixosPull([
    ...["release", "show", "--json", "--mirror", destination, "--public-key", publicKey],
  ]);
  return (JSON.parse(shown.stdout) as { sequence: number }).sequence;
}

const BROKEN = `cat > hosts/db1.nix <<'END'
{ nixpkgs.hostPlatform = "x86_64-linux"; networking.firewall.allowedTCPPorts = throw "db1 is broken"; }
END`;

describe.each([
  ["GitHub", runGitHubJob, []],
  ["GitHub, a flake", runGitHubJob, ["--flake"]],
  ["GitLab", runGitLabJob, []],
  ["GitLab, a flake", runGitLabJob, ["--flake"]],
] as const)("the example for %s", (_, runJob, args) => {
  test("publishes, verifies, uploads and keeps what was signed, also with --keep-going", async () => {
    const project = await newProject(...args);
    const first = await runJob(project, "");
    expect(first.exitCode, first.log).toBe(0);
    expect(await sequenceAt(project)).toBe(1);

    // One host fails, and somebody pushes while the job runs.
    await pushes(project, BROKEN);
    const second = await runJob(project, "--keep-going", pushing(project, "touch meanwhile"));
    expect(second.exitCode, second.log).toBe(12);
    expect(second.log).toContain("db1 is broken");
    expect(await sequenceAt(project)).toBe(2);
    const pushed = await paste(
      project.machine,
      project.clone,
      "git pull --quiet --rebase; git log --format=%s; cat memory.json",
    );
    expect(pushed).toMatch(
      /^Remember what was signed\nChange\nChange\nRemember what was signed\nStart\n/,
    );

    for (const { log } of [first, second]) {
      for (const secret of [project.secretKey.trim(), PASSWORD]) expect(log).not.toContain(secret);
    }
    for (const name of await readdir(join(second.workspace, "mirror/archives"))) {
      const { mode } = await stat(join(second.workspace, "mirror/archives", name));
      expect(mode & 0o777, name).toBe(0o644);
    }
  });

  test("uploads nothing if a host fails, or if the release does not verify", async () => {
    const project = await newProject(...args);
    await pushes(project, BROKEN);
    const failed = await runJob(project, "");
    expect(failed.exitCode, failed.log).toBe(10);
    expect(await readdir(project.destination)).toEqual([]);

    await pushes(project, "git checkout --quiet HEAD~1 hosts/db1.nix");
    await writeFile(project.program, `#!/bin/sh\n[ "$1" != verify ] || exit 6\n${RUN_BUNDLE}\n`);
    const unverified = await runJob(project, "");
    expect(unverified.exitCode, unverified.log).toBe(6);
    expect(await readdir(project.destination)).toEqual([]);
    const pushed = await paste(
      project.machine,
      project.clone,
      "git fetch --quiet; git log origin/main --format=%s",
    );
    expect(pushed).not.toContain("Remember");
  });
});

test("what is not run is in the examples", async () => {
  const { clone } = await newProject();
  const workflow = parseYaml(join(clone, ".github/workflows/publish.yml")) as GitHubWorkflow;
  const used = workflow.jobs.publish.steps.flatMap(({ uses }) =>
    uses === undefined ? [] : [uses],
  );
  expect(used.sort()).toEqual(Object.keys(NOT_RUN).sort());
});
