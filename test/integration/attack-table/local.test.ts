import { chmod, mkdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { comes, inAttackWorld, type AttackWorld } from "../../support/attack-world.ts";

let world: AttackWorld;

inAttackWorld((it) => (world = it));

/** A PATH whose programs note their environment before they do their work. */
async function spyingPath(): Promise<{ path: string; seen: string }> {
  const bin = join(world.directory, "spies");
  const seen = join(world.directory, "environments");
  await mkdir(bin, { recursive: true });
  await writeFile(seen, "");
  for (const name of ["nix", "nix-store", "nix-env", "flock", "sync"]) {
    const script = `#!/bin/sh
PATH=${process.env["PATH"]}
/usr/bin/env >> ${seen}
real=$(command -v ${name})
echo "ran ${name}" >> ${seen}
exec "$real" "$@"
`;
    await writeFile(join(bin, name), script, { mode: 0o755 });
    await chmod(join(bin, name), 0o755);
  }
  return { path: `${bin}:/usr/bin:/bin`, seen };
}

test("nothing of the agent's environment that was not meant for them reaches its children", async () => {
  const { path, seen } = await spyingPath();
  const hostile = {
    LD_PRELOAD: "/nonexistent/evil.so",
    LD_LIBRARY_PATH: "/nonexistent",
    NIX_CONFIG: "require-sigs = false",
    NIX_PATH: "nixpkgs=/nonexistent",
    NIX_STORE_DIR: "/nonexistent/store",
    NIX_STATE_DIR: "/nonexistent/state",
    NIX_USER_CONF_FILES: "/nonexistent/nix.conf",
    NIX_SSHOPTS: "-o ProxyCommand=true",
    BASH_ENV: "/nonexistent/profile",
    ENV: "/nonexistent/profile",
    NODE_OPTIONS: "--no-warnings",
    CREDENTIALS_DIRECTORY: "/nonexistent/credentials",
    SECRET_OF_SOMEBODY: "hush",
  };
  await world.becomeFreshHost(join(world.directory, "fresh"));
  const { value } = await world.apply(["apply"], { ...hostile, PATH: path });
  expect(value.updated).toBe(true);
  const environments = await readFile(seen, "utf8");
  for (const name of ["nix", "nix-store", "nix-env", "flock", "sync"]) {
    expect(environments).toContain(`ran ${name}\n`);
  }
  for (const name of Object.keys(hostile)) {
    expect(environments).not.toMatch(new RegExp(`^${name}=`, "m"));
  }
});

test("the status socket answers its group, reads nothing and turns crowds away", async () => {
  const path = join(world.directory, "status.socket");
  world.configure({
    statusSocket: { path, group: "nogroup" },
    poll: { interval: "1h", jitter: "0s" },
    mirrors: ["file:///nonexistent"],
  });
  const log = join(world.root, "switch.log");
  const before = await readFile(log, "utf8");
  const agent = await world.serve(async () => {
    await comes(async () => {
      expect((await stat(path)).mode & 0o777).toBe(0o660);
    });
    const { mode, gid } = await stat(path);
    expect(mode & 0o777).toBe(0o660);
    expect(gid).toBe(65534);
    const answer = await ask(path, "apply --again\n".repeat(10_000));
    expect(JSON.parse(answer)).toMatchObject({ hostname: "web1", state: { name: "Idle" } });
    // Clients that never take their answer do not keep others or the agent up.
    const crowd = Array.from({ length: 30 }, () => connect(path).on("error", () => undefined));
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    expect(JSON.parse(await ask(path, ""))).toMatchObject({ hostname: "web1" });
    for (const client of crowd) client.destroy();
  });
  expect(agent.stderr).toContain("stopped");
  expect(await world.exists(path)).toBe(false);
  expect(await readFile(log, "utf8")).toBe(before);
});

test.each([
  ["a directory that others write to", async (it: string) => chmod(it, 0o777), undefined],
  [
    "a file in the socket's place",
    async (it: string) => writeFile(`${it}/socket`, "precious"),
    undefined,
  ],
  [
    "a link in the socket's place",
    async (it: string) => symlink("/etc/hosts", `${it}/socket`),
    undefined,
  ],
  ["a group that does not exist", () => Promise.resolve(), "no-such-group"],
])("%s: no status socket, and the agent goes on", async (_, arrange, group) => {
  const directory = join(world.directory, "sockets");
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory);
  await arrange(directory);
  const hosts = await stat("/etc/hosts");
  world.configure({
    statusSocket: { path: join(directory, "socket"), ...(group && { group }) },
    poll: { interval: "1h", jitter: "0s" },
    mirrors: ["file:///nonexistent"],
  });
  await world.serve((log) =>
    comes(() => {
      expect(log()).toContain("there is no status socket");
      expect(log()).toContain("MIRROR_ABSENT");
    }),
  );
  const after = await stat("/etc/hosts");
  expect([after.mode, after.gid]).toEqual([hosts.mode, hosts.gid]);
});

/** What the socket says to a client that talks at it. */
function ask(path: string, talk: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const client = connect(path, () => client.write(talk));
    client.setEncoding("utf8").on("data", (text: string) => (answer += text));
    client.on("error", reject).on("close", () => {
      resolve(answer);
    });
  });
}

test("state and its files are the agent's alone", async () => {
  expect((await stat(world.state)).mode & 0o777).toBe(0o700);
  for (const name of ["state.json", "trust.json", "history.jsonl", "poll.json"]) {
    expect((await stat(join(world.state, name))).mode & 0o077, name).toBe(0);
  }
});
