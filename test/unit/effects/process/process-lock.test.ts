import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, open, readFile, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { lockFile, locksIn, tryLock } from "../../../../agent/effects/process/process-lock.ts";
import { bundleScript } from "../../../support/bundled-script.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { removeTree, temporaryDirectory } from "../../../support/temporary.ts";

let scripts: string;
let holder: string;

beforeAll(async () => {
  scripts = await mkdtemp(join(tmpdir(), "nixos-pull-test-"));
  // Takes the lock, says so, and waits; "with-child" also has a child of its own running.
  holder = await bundleScript(
    scripts,
    `
      import { spawn } from "node:child_process";
      import { tryLock } from "./agent/effects/process/process-lock.ts";
      const [path = "", withChild] = process.argv.slice(2);
      void tryLock(path).then(async (lock) => {
        const child = withChild && spawn("sleep", ["60"], { stdio: "ignore", detached: true });
        console.log(lock ? "held" : "refused", child ? child.pid : "");
        process.stdin.once("data", async () => {
          await lock?.release();
          console.log("released");
        });
      });
    `,
  );
});
afterAll(() => removeTree(scripts));

interface Holder {
  readonly child: ChildProcess;
  /** The next line that it prints. */
  says(): Promise<string>;
}

/** Another process that takes the lock. */
function startHolder(path: string, ...args: string[]): Holder {
  const child = spawn(process.execPath, [holder, path, ...args], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return { child, says: async () => String((await lines.next()).value).trim() };
}

async function lockPath(): Promise<string> {
  return join(await temporaryDirectory(), "update.lock");
}

test("a lock is taken, names its holder, and can be taken again once it is released", async () => {
  const path = await lockPath();
  for (let round = 0; round < 2; round++) {
    const lock = await tryLock(path);
    expect(await readFile(path, "utf8")).toBe(`${process.pid}\n`);
    await lock?.release();
  }
});

test("a lock is refused to another task of the same process", async () => {
  const path = await lockPath();
  const lock = await tryLock(path);
  expect(await tryLock(path)).toBeNull();
  await lock?.release();
});

test("a lock is refused to a second process as long as the first one holds it", async () => {
  const path = await lockPath();
  const lock = await tryLock(path);
  expect(await startHolder(path).says()).toBe("refused");
  // The refused one left the holder's name alone.
  expect(await readFile(path, "utf8")).toBe(`${process.pid}\n`);
  await lock?.release();
  expect(await startHolder(path).says()).toBe("held");
});

test("a lock is free again when its holder releases it", async () => {
  const path = await lockPath();
  const other = startHolder(path);
  expect(await other.says()).toBe("held");
  expect(await tryLock(path)).toBeNull();
  other.child.stdin?.write("go\n");
  expect(await other.says()).toBe("released");
  const lock = await tryLock(path);
  expect(lock).not.toBeNull();
  await lock?.release();
});

test("a lock is free again when its holder is killed, though a child of it lives on", async () => {
  const path = await lockPath();
  const other = startHolder(path, "with-child");
  const [word, pid] = (await other.says()).split(" ");
  onTestFinished(() => void process.kill(Number(pid), "SIGKILL"));
  expect(word).toBe("held");
  expect(await tryLock(path)).toBeNull();
  other.child.kill("SIGKILL");
  await once(other.child, "exit");
  const lock = await tryLock(path);
  expect(lock).not.toBeNull();
  await lock?.release();
});

test("of many processes one gets the lock", async () => {
  const path = await lockPath();
  const said = await Promise.all(Array.from({ length: 4 }, () => startHolder(path).says()));
  expect(said.toSorted()).toEqual(["held", "refused", "refused", "refused"]);
});

test("a lock file that was left over, with whatever in it, is no lock", async () => {
  const path = await lockPath();
  await writeFile(path, "999999999\nand more\n");
  const lock = await tryLock(path);
  expect(await readFile(path, "utf8")).toBe(`${process.pid}\n`);
  await lock?.release();
});

test("a link in a lock's place is not followed", async () => {
  const path = await lockPath();
  const precious = join(await temporaryDirectory(), "precious");
  await writeFile(precious, "precious");
  await symlink(precious, path);
  expect((await rejectionOf(tryLock(path))).code).toBe("UNSAFE_FILE");
  expect(await readFile(precious, "utf8")).toBe("precious");
});

test("several may share a lock on an open file; nobody may have it alone meanwhile", async () => {
  const path = await lockPath();
  await writeFile(path, "as it was");
  const shared = [
    await lockFile(await open(path, "r"), "shared"),
    await lockFile(await open(path, "r"), "shared"),
  ];
  expect(await lockFile(await open(path, "r+"), "exclusive")).toBeNull();
  for (const lock of shared) await lock?.release();
  const lock = await lockFile(await open(path, "r+"), "exclusive");
  expect(await lockFile(await open(path, "r"), "shared")).toBeNull();
  await lock?.release();
  expect(await readFile(path, "utf8")).toBe("as it was");
});

test("a missing flock program is named", async () => {
  const path = await lockPath();
  vi.stubEnv("PATH", await temporaryDirectory());
  onTestFinished(() => void vi.unstubAllEnvs());
  const failure = await rejectionOf(tryLock(path));
  expect(failure.code).toBe("TOOL_MISSING");
  expect(failure.message).toContain("flock");
});

test("a missing directory is the operating system's error", async () => {
  const path = join(await temporaryDirectory(), "missing", "lock");
  await expect(tryLock(path)).rejects.toMatchObject({ code: "ENOENT" });
});

test("who holds a lock can be seen, and looking takes it from nobody", async () => {
  const directory = await temporaryDirectory();
  const locks = locksIn(directory);
  const path = locks.fileOf("update");
  expect(await locks.holder("update")).toBeNull();
  const other = startHolder(path);
  expect(await other.says()).toBe("held");
  expect(await locks.holder("update")).toBe(other.child.pid);
  expect(await locks.holder("agent")).toBeNull();
  other.child.stdin?.write("\n");
  expect(await other.says()).toBe("released");
  expect(await locks.holder("update")).toBeNull();
});

test("a number that became another process's is no holder, and damage is none", async () => {
  const directory = await temporaryDirectory();
  const locks = locksIn(directory);
  for (const text of [`${process.pid}\n`, "1\n", "-1\n", "0\n", "nobody\n", ""]) {
    await writeFile(locks.fileOf("update"), text);
    expect(await locks.holder("update")).toBeNull();
  }
});
