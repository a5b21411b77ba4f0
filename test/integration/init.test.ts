import { execFileSync, spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { nixosPull, testEnvironment } from "../support/nixos-pull.ts";
import { nixosPullSources, standInNixpkgs, tarballOf } from "../support/stand-in-nixpkgs.ts";
import { suiteDirectory } from "../support/suite-directory.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const BUNDLE = new URL("../../dist/nixos-pull.cjs", import.meta.url).pathname;
const DIRECTORY = suiteDirectory();
const hasShellcheck = spawnSync("shellcheck", ["--version"]).error === undefined;
let nixpkgs = "";
let sources = "";

beforeAll(async () => {
  nixpkgs = await standInNixpkgs(DIRECTORY);
  sources = await nixosPullSources(DIRECTORY);
});

/** Runs a program in a repository; gives what it printed, throws with its errors. */
function runIn(
  directory: string,
  command: string,
  args: readonly string[],
  env: Record<string, string> = {},
): string {
  return execFileSync(command, args, {
    cwd: directory,
    encoding: "utf8",
    env: { ...testEnvironment(), ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** The bundle, also in hooks. */
function runBundle(...args: string[]): string {
  return runIn(DIRECTORY, process.execPath, [BUNDLE, ...args]);
}

/** All files below a directory. */
async function filesOf(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

/** A repository with a key and, without flakes, with pins. */
async function startedRepository(...args: string[]): Promise<string> {
  const directory = join(await mkdtemp(join(DIRECTORY, "start-")), "fleet");
  runBundle("init", directory, ...args);
  runBundle("keygen", "fleet-1", "--out", join(directory, "keys/fleet-1"));
  if (!args.includes("--flake")) {
    runIn(directory, "./pin", ["nixpkgs", tarballOf(nixpkgs)]);
    runIn(directory, "./pin", ["nixos-pull", tarballOf(sources)]);
  }
  return directory;
}

function evaluate(directory: string, attribute: string, env: Record<string, string> = {}): unknown {
  const args = ["--eval", "--strict", "--json", "nixos.nix", "-A", attribute];
  return JSON.parse(runIn(directory, "nix-instantiate", args, env));
}

describe("what init writes", () => {
  test.each([[[]], [["--flake"]]])("is valid: %j", async (args) => {
    const directory = await startedRepository(
      ...["--host", "web1", "--host", "db.example.org", ...args],
      ...["--mirror", "https://releases.example.org/a", "--mirror", "file:///mnt/usb"],
    );
    const files = await filesOf(directory);
    for (const file of files) {
      const text = await readFile(file, "utf8");
      if (file.endsWith(".nix")) runIn(directory, "nix-instantiate", ["--parse", file]);
      if (file.endsWith(".json")) expect(() => JSON.parse(text) as unknown).not.toThrow();
      if (text.startsWith("#!")) {
        expect((await stat(file)).mode & 0o111).toBe(0o111);
        const shell = text.startsWith("#!/bin/sh\n") ? "sh" : "bash";
        runIn(directory, shell, ["-n", file]);
        if (hasShellcheck) runIn(directory, "shellcheck", [file]);
      }
    }
    expect(files.map((file) => file.slice(directory.length + 1))).toEqual(
      expect.arrayContaining(["hosts/db.example.org.nix", "publish", "upload", "README.md"]),
    );
  });

  test("never replaces anything", async () => {
    const directory = await temporaryDirectory();
    await mkdir(join(directory, "hosts"));
    await writeFile(join(directory, "hosts/web1.nix"), "mine");
    const refused = await nixosPull(["init", directory]);
    expect(refused).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("web1.nix") });
    expect(await filesOf(directory)).toEqual([join(directory, "hosts/web1.nix")]);
    expect(await readFile(join(directory, "hosts/web1.nix"), "utf8")).toBe("mine");
  });

  test.each([
    ["--host", "../x"],
    ["--host", 'a"b'],
    ["--mirror", "ftp://example.org"],
    ["--mirror", "https://u:p@example.org"],
    ["--nixpkgs", 'https://example.org/"${x}"'],
    ["--nixos-pull", "https://example.org/a b"],
    ["--nixos-pull", ""],
  ])("does not take %s %s", async (...args) => {
    const directory = join(await temporaryDirectory(), "fleet");
    const refused = await nixosPull(["init", directory, ...args]);
    expect(refused).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("USAGE") });
    await expect(stat(directory)).rejects.toThrow("ENOENT");
  });

  test("says what to do while nothing is pinned", async () => {
    const directory = join(await temporaryDirectory(), "fleet");
    await nixosPull(["init", directory]);
    expect(() => evaluate(directory, "web1.config.networking.hostName")).toThrow(
      /nixpkgs is not pinned yet: run \.\/pin nixpkgs URL/,
    );
  });
});

describe("nixos.nix", () => {
  let directory = "";
  beforeAll(async () => {
    directory = await startedRepository("--host", "web1", "--host", "db1");
  });

  test("gives every host its configuration, with pkgs, whatever NIX_PATH is", async () => {
    const trap = await temporaryDirectory();
    await writeFile(join(trap, "default.nix"), 'throw "NIX_PATH was read"');
    await writeFile(join(trap, "extra.nix"), 'throw "the environment was read"');
    const hostile = [`nixpkgs=${trap}`, `nixos-config=${trap}`, trap].join(":");
    for (const env of [
      {},
      { NIX_PATH: "" },
      { NIX_PATH: hostile, NIXOS_CONFIG: trap, NIXOS_EXTRA_MODULE_PATH: join(trap, "extra.nix") },
    ] as Record<string, string>[]) {
      expect(evaluate(directory, "db1.config.networking.hostName", env)).toBe("db1");
      expect(evaluate(directory, "db1.config.services.nixos-pull.settings.hostname", env)).toBe(
        "db1",
      );
      expect(evaluate(directory, "web1.config.nixpkgs.hostPlatform", env)).toBe("x86_64-linux");
      expect(evaluate(directory, "web1.pkgs.curl.name", env)).toBe("curl");
      const packages = evaluate(directory, "web1.config.environment.systemPackages", env);
      expect(packages).toEqual(expect.arrayContaining([expect.stringMatching(/-zstd$|-curl$/)]));
      expect(
        evaluate(directory, "web1.config.services.nixos-pull.settings.publicKeys", env),
      ).toEqual([await readFile(join(directory, "keys/fleet-1.public"), "utf8")]);
    }
  });

  test("the machine's own name has no dots, the host's name in releases has", async () => {
    const dotted = await startedRepository("--host", "web1.example.org");
    const config = '"web1.example.org".config';
    expect(evaluate(dotted, `${config}.networking.hostName`)).toBe("web1");
    expect(evaluate(dotted, `${config}.services.nixos-pull.settings.hostname`)).toBe(
      "web1.example.org",
    );
  });

  test("a file in hosts/ is a host", async () => {
    const file = join(directory, "hosts/new1.nix");
    await writeFile(file, "{ networking.firewall.allowedTCPPorts = [ 80 ]; }");
    expect(evaluate(directory, "new1.config.networking.firewall.allowedTCPPorts")).toEqual([80]);
    await rm(file);
  });
});

/** A repository whose only commit is all of it, with a `nixos-pull` on PATH. */
async function committed(directory: string): Promise<Record<string, string>> {
  const git = (...args: string[]): string =>
    runIn(directory, "git", ["-c", "user.name=t", "-c", "user.email=t@example.org", ...args]);
  git("init", "--quiet");
  git("add", "--all");
  git("commit", "--quiet", "--message", "Start");
  const bin = await temporaryDirectory();
  const program = `#!/bin/sh\nexec '${process.execPath}' '${BUNDLE}' "$@"\n`;
  await writeFile(join(bin, "nixos-pull"), program, { mode: 0o755 });
  // The script commits what it remembers.
  const [name, email] = ["t", "t@example.org"];
  return {
    PATH: `${bin}:${process.env["PATH"] ?? ""}`,
    ...{ GIT_AUTHOR_NAME: name, GIT_AUTHOR_EMAIL: email },
    ...{ GIT_COMMITTER_NAME: name, GIT_COMMITTER_EMAIL: email },
  };
}

describe("the scripts", () => {
  test("publish from a clean checkout, and from no other", async () => {
    const directory = await startedRepository("--host", "web1", "--host", "db1");
    const env = await committed(directory);
    expect(runIn(directory, "git", ["ls-files"])).not.toContain(".secret");
    await writeFile(join(directory, "stray"), "");
    expect(() => runIn(directory, "./publish", ["keys/fleet-1.secret"], env)).toThrow(/stray/);
    await rm(join(directory, "stray"));

    const output = runIn(directory, "./publish", ["keys/fleet-1.secret", "--mode", "boot"], env);
    expect(output).toMatch(/Published release 1 of stable, signed by fleet-1/);
    expect(output).toMatch(/web1 +ok/);
    expect(output).toMatch(/db1 +ok/);
    // What was published is ignored, and what was signed is committed: the checkout is clean still.
    expect(runIn(directory, "git", ["status", "--porcelain"])).toBe("");
    expect(runIn(directory, "git", ["ls-files", "memory.json"])).toBe("memory.json\n");
    expect(runIn(directory, "git", ["log", "-1", "--format=%s"])).toContain("Remember");
  });

  test("a flake is published by the same script", async () => {
    const directory = await startedRepository(
      ...["--flake", "--nixpkgs", `path:${nixpkgs}`, "--nixos-pull", `path:${sources}`],
    );
    const env = await committed(directory);
    const features = ["--extra-experimental-features", "nix-command flakes"];
    runIn(directory, "nix", [...features, "flake", "lock"], env);
    runIn(directory, "git", ["add", "flake.lock"]);
    runIn(directory, "git", [
      ...["-c", "user.name=t", "-c", "user.email=t@example.org"],
      ...["commit", "--quiet", "--message", "Lock"],
    ]);
    const output = runIn(directory, "./publish", ["keys/fleet-1.secret"], env);
    expect(output).toMatch(/web1 +ok/);
    const asked = await nixosPull(["option", "networking.hostName", "--flake", directory]);
    expect(asked).toMatchObject({ exitCode: 0, stdout: expect.stringContaining('= "web1"') });
  });
});
