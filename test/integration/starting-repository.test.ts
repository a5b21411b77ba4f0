import { createServer } from "node:http";
import { mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { newMachine, paste, RUN_BUNDLE, type NewMachine } from "../support/newcomer.ts";
import { nixosPull } from "../support/nixos-pull.ts";
import { nixosPullSources, standInNixpkgs, tarballOf } from "../support/stand-in-nixpkgs.ts";
import { suiteDirectory } from "../support/suite-directory.ts";

const DIRECTORY = suiteDirectory();
let nixpkgs = "";
let sources = "";

beforeAll(async () => {
  nixpkgs = await standInNixpkgs(DIRECTORY);
  sources = await nixosPullSources(DIRECTORY);
});

/** A person's machine, with a server behind `ssh`. */
interface Machine extends NewMachine {
  /** What the server has at /srv. */
  readonly server: string;
}

async function personsMachine(): Promise<Machine> {
  const server = await mkdtemp(join(DIRECTORY, "srv-"));
  await mkdir(join(server, "mirror"));
  const ssh = [
    'while [ "$1" != releases.example.org ]; do shift; done; shift',
    `exec sh -c "$(printf '%s' "$*" | sed 's|/srv/|${server}/|g')"`,
  ].join("\n");
  return { ...(await newMachine(DIRECTORY, { "nixos-pull": RUN_BUNDLE, ssh })), server };
}

/** The shell blocks of a Markdown text, without the indentation of a list around them. */
function shellBlocks(markdown: string): string[] {
  const fenced = /^( *)```sh\n([\s\S]*?)^\1```$/gm;
  return Array.from(markdown.matchAll(fenced), ([, indent = "", text = ""]) =>
    text.replaceAll(new RegExp(`^${indent}`, "gm"), ""),
  );
}

/** `init` as a person calls it who has nixpkgs and nixos-pull elsewhere. */
async function startedBy(machine: Machine, ...args: string[]): Promise<string> {
  const directory = join(machine.directory, "fleet");
  const flake = args.includes("--flake");
  const written = await nixosPull([
    ...["init", directory, "--host", "web1", "--host", "db.example.org", ...args],
    ...["--nixpkgs", flake ? `path:${nixpkgs}` : tarballOf(nixpkgs)],
    ...["--nixos-pull", flake ? `path:${sources}` : tarballOf(sources)],
  ]);
  expect(written.exitCode, written.stderr).toBe(0);
  return directory;
}

/** A host whose system cannot be built, among those of a repository. */
const BROKEN_HOST = `{
  nixpkgs.hostPlatform = "x86_64-linux";
  networking.firewall.allowedTCPPorts = throw "this host is broken";
}`;

describe.each([[[]], [["--flake"]]])("the README that init writes: %j", (args) => {
  test("works, every command of it, for somebody whom Git does not know", async () => {
    const machine = await personsMachine();
    const directory = await startedBy(machine, ...args);
    const readme = await readFile(join(directory, "README.md"), "utf8");
    const blocks = shellBlocks(readme);
    expect(readme.match(/```/g)).toHaveLength(2 * blocks.length);
    const last = blocks.findIndex((block) => block.includes("--keep-going"));
    expect(last).toBe(blocks.length - 1);

    const host = join(directory, "hosts/web1.nix");
    const uncommented = (await readFile(host, "utf8")).replace("# services.", "services.");
    await writeFile(host, uncommented);

    // One shell from the beginning to the end: what a block exports is there in the next ones.
    const output = await paste(machine, directory, blocks.slice(0, last).join("\n"));
    expect(output).toMatch(/networking\.firewall\.allowedTCPPorts = \[ \]/);
    expect(output).toMatch(/Published release 1 of stable, signed by fleet-1/);
    expect(output).toMatch(/web1 +ok/);
    expect(output).toMatch(/db\.example\.org +ok/);

    // On the next day, a change is published, and a host is broken.
    await writeFile(
      join(directory, "common.nix"),
      (await readFile(join(directory, "common.nix"), "utf8")).replace(
        "TCPPorts = [ ]",
        "TCPPorts = [ 443 ]",
      ),
    );
    await writeFile(join(directory, "hosts/db.example.org.nix"), BROKEN_HOST);
    const again = [
      'git add --all && git commit --quiet --message "Open 443"',
      `if ./publish ~/fleet-1.secret; then exit 99; fi`,
      ...blocks.slice(last),
    ];
    const kept = await paste(machine, directory, again.join("\n"));
    expect(kept).toContain("this host is broken");
    expect(kept).toMatch(/Published release 2 of stable/);

    // The server has both releases, the second is in force there, and memory.json knows both.
    const publicKey = await readFile(join(directory, "keys/fleet-1.public"), "utf8");
    const served = await nixosPull([
      ...["release", "show", "--json", "--mirror", join(machine.server, "mirror")],
      ...["--public-key", publicKey],
    ]);
    expect(JSON.parse(served.stdout)).toMatchObject({
      sequence: 2,
      hosts: [{ hostname: "db.example.org" }, { hostname: "web1", groups: ["canary"] }],
    });
    const git = await paste(
      machine,
      directory,
      "git status --porcelain; git ls-files; git log --format=%an",
    );
    expect(git).toContain("memory.json");
    expect(git).toContain("Your Name");
    expect(git).not.toMatch(/\.secret|^mirror|^\?\?/m);
    // The user data is for the host, with the key that signs.
    expect(await readFile(join(machine.home, "web1.user-data"), "utf8")).toContain(publicKey);
  });

  test("leaves the package's hash to nixos-pull", async () => {
    const machine = await personsMachine();
    const directory = await startedBy(machine, ...args);
    await paste(machine, directory, "if grep -r nodeModulesHash .; then exit 1; fi");
  });
});

test("a package of a host has the hash that nixos-pull recorded", async () => {
  const machine = await personsMachine();
  const directory = await startedBy(machine);
  await paste(
    machine,
    directory,
    `nixos-pull keygen k --out keys/k; ./pin nixpkgs ${tarballOf(nixpkgs)}; ./pin nixos-pull ${tarballOf(sources)}`,
  );
  const asked = await paste(
    machine,
    directory,
    "nix-instantiate --eval --strict --json nixos.nix -A web1.config.services.nixos-pull.package.nodeModules.outputHash 2>/dev/null",
  );
  const recorded = await readFile(join(sources, "nixos-module/node-modules-hashes.json"), "utf8");
  expect(Object.values((JSON.parse(recorded) as { hashes: object }).hashes)).toContain(
    JSON.parse(asked),
  );
});

describe("./publish says what is missing before it signs anything:", () => {
  test.each([
    ["a repository", "", "expected a Git repository with a commit"],
    ["a commit", "git init --quiet", "expected a Git repository with a commit"],
    [
      "who commits",
      "git init --quiet; git add --all; git -c user.name=x -c user.email=x@example.org commit --quiet -m x",
      "set user.name and user.email with git config",
    ],
    [
      "a public key",
      "git init --quiet; git config user.name x; git config user.email x@example.org; git add --all; git commit --quiet -m x",
      "expected a public key in keys/",
    ],
  ])("%s", async (_, before, said) => {
    const machine = await personsMachine();
    const directory = await startedBy(machine);
    const key = before.includes("config user") ? "" : "nixos-pull keygen k --out keys/k >&2";
    const tried = paste(machine, directory, `${key}\n${before}\n./publish keys/k.secret`);
    await expect(tried).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining(said) });
    await expect(readFile(join(directory, "memory.json"))).rejects.toThrow("ENOENT");
  });
});

test("pin keeps the address of the archive itself, not the one that leads to it", async () => {
  const machine = await personsMachine();
  const directory = await startedBy(machine);
  const archive = tarballOf(nixpkgs).replace("file://", "");
  const requests: string[] = [];
  const server = createServer((request, response) => {
    requests.push(`${request.method ?? ""} ${request.url ?? ""}`);
    if (request.url === "/nixos-1.2/nixexprs.tar.gz") {
      response.writeHead(302, { location: "/release-1.2.345/nixexprs.tar.gz" }).end();
    } else if (request.url === "/release-1.2.345/nixexprs.tar.gz") {
      if (request.method === "HEAD") response.end();
      else void readFile(archive).then((bytes) => response.end(bytes));
    } else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  const address = server.address();
  const origin = `http://127.0.0.1:${typeof address === "object" ? (address?.port ?? 0) : 0}`;
  const output = await paste(
    machine,
    directory,
    `./pin nixpkgs ${origin}/nixos-1.2/nixexprs.tar.gz`,
  );
  expect(output).toContain(`pinned nixpkgs at ${origin}/release-1.2.345/nixexprs.tar.gz: `);
  expect(JSON.parse(await readFile(join(directory, "pins/nixpkgs.json"), "utf8"))).toMatchObject({
    url: `${origin}/release-1.2.345/nixexprs.tar.gz`,
  });
  await expect(
    paste(machine, directory, `./pin nixpkgs ${origin}/nothing.tar.gz`),
  ).rejects.toMatchObject({ stderr: expect.stringContaining("404") });
});
