import { chmod, lchown, lstat, readFile, rm, stat } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { dirname } from "node:path";
import { PullError } from "../../core/errors.ts";
import { isNotFound } from "../files/durable-file.ts";

/** Clients beyond these are turned away; each has this long, whatever it does. */
const MAX_CLIENTS = 8;
const CLIENT_TIMEOUT_MS = 2_000;

/**
 * A Unix socket that tells whoever may open it what `answer` gives, and closes. It reads
 * nothing: no client can make the agent do anything else. The owner and `group` may
 * open it. Gives what closes it. Throws CONFIG_INVALID and the operating system's errors.
 */
export async function serveStatus(
  path: string,
  group: string | undefined,
  answer: () => Promise<string>,
): Promise<() => Promise<void>> {
  const groupId = group === undefined ? null : await findGroup(group);
  await expectOwnDirectory(dirname(path));
  await removeStaleSocket(path);
  // What clients send is not even read.
  const server = createServer({ pauseOnConnect: true }, (client) => {
    const deadline = setTimeout(() => client.destroy(), CLIENT_TIMEOUT_MS);
    client.on("close", () => {
      clearTimeout(deadline);
    });
    client.on("error", () => client.destroy());
    answer().then(
      (text) => client.end(text),
      () => client.destroy(),
    );
  });
  server.maxConnections = MAX_CLIENTS;
  await listen(server, path);
  if (groupId !== null) await lchown(path, process.geteuid?.() ?? 0, groupId);
  await chmod(path, groupId === null ? 0o600 : 0o660);
  return async () => {
    await new Promise((resolve) => server.close(resolve));
    await rm(path, { force: true });
  };
}

/** Binds with no rights for anybody, so that there is no moment of too many. */
async function listen(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    const before = process.umask(0o777);
    try {
      server.listen(path, resolve);
    } finally {
      process.umask(before);
    }
  });
}

/**
 * Where others could put a link in the socket's place, its mode would be set on what the
 * link leads to. Throws CONFIG_INVALID.
 */
async function expectOwnDirectory(directory: string): Promise<void> {
  const found = await stat(directory);
  const user = process.geteuid?.() ?? 0;
  const othersWrite = (found.mode & 0o022) !== 0;
  if (found.uid === user && !othersWrite) return;
  throw new PullError(
    "CONFIG_INVALID",
    `statusSocket.path: expected ${directory} to be user ${user}'s and writable to no other, ` +
      `found mode ${(found.mode & 0o7777).toString(8)} of user ${found.uid}`,
  );
}

/** An earlier agent's socket goes; anything else in its place is somebody's and stays. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await lstat(path).catch((error: unknown) => {
    if (isNotFound(error)) return null;
    throw error;
  });
  if (found === null) return;
  if (!found.isSocket()) {
    throw new PullError("CONFIG_INVALID", `statusSocket.path: ${path} is there and is no socket`);
  }
  await rm(path, { force: true });
}

async function findGroup(name: string): Promise<number> {
  const lines = (await readFile("/etc/group", "utf8")).split("\n");
  const id = lines.map((line) => line.split(":")).find(([it]) => it === name)?.[2];
  if (id === undefined || !/^\d+$/.test(id)) {
    throw new PullError("CONFIG_INVALID", `statusSocket.group: there is no group ${name}`);
  }
  return Number(id);
}
