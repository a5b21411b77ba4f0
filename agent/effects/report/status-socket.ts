import { chmod, lchown, lstat, readFile, rm, stat } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { dirname } from "node:path";
import { PullError } from "../../core/errors.ts";
import { ifMissing } from "../files/missing-file.ts";

/** Further clients are turned away. */
const MAX_CLIENTS = 8;
/** A client is cut off after this time. */
const CLIENT_TIMEOUT_MS = 2_000;

/**
 * Serves what `answer` gives on a Unix socket, and then closes the connection. The agent reads
 * nothing from clients, so that none of them can make it do anything else. Only the agent's user
 * and `group` may open the socket. Gives a function that ends the service. Throws CONFIG_INVALID
 * and the operating system's errors.
 */
export async function serveStatus(
  path: string,
  group: string | undefined,
  answer: () => Promise<string>,
): Promise<() => Promise<void>> {
  const groupId = group === undefined ? null : await findGroup(group);
  await expectOwnDirectory(dirname(path));
  await removeStaleSocket(path);
  // Paused: what clients send is never read.
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

/** Creates the socket without any rights, so that at no moment too many users may open it. */
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
 * Expects a directory in which only the agent's user can create files. Anybody else could put a
 * link in the socket's place, and the agent would change the mode of the file behind it. Throws
 * CONFIG_INVALID.
 */
async function expectOwnDirectory(directory: string): Promise<void> {
  const found = await stat(directory);
  const user = process.geteuid?.() ?? 0;
  const othersWrite = (found.mode & 0o022) !== 0;
  if (found.uid === user && !othersWrite) return;
  throw new PullError(
    "CONFIG_INVALID",
    `statusSocket.path: expected ${directory} to belong to user ${user} and to be writable by ` +
      `no other user, found mode ${(found.mode & 0o7777).toString(8)} of user ${found.uid}`,
  );
}

/** Removes the socket of an earlier agent, and nothing else. Throws CONFIG_INVALID. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = await ifMissing(lstat(path), null);
  if (found === null) return;
  if (!found.isSocket()) {
    throw new PullError(
      "CONFIG_INVALID",
      `statusSocket.path: expected no file or a socket at ${path}, found another kind of file`,
    );
  }
  await rm(path, { force: true });
}

async function findGroup(name: string): Promise<number> {
  const lines = (await readFile("/etc/group", "utf8")).split("\n");
  const id = lines.map((line) => line.split(":")).find(([it]) => it === name)?.[2];
  if (id === undefined || !/^\d+$/.test(id)) {
    throw new PullError(
      "CONFIG_INVALID",
      `statusSocket.group: expected a group in /etc/group, found no ${name}`,
    );
  }
  return Number(id);
}
