import { stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import type { Disk } from "../../core/ports.ts";
import { isNotFound } from "./durable-file.ts";

/** Free space by statfs(2), as an ordinary user may use it. */
export const systemDisk: Disk = {
  async freeSpace(path) {
    const existing = await nearestExisting(path);
    const [{ bavail, blocks, bsize }, { dev }] = await Promise.all([
      statfs(existing),
      stat(existing),
    ]);
    return { free: bavail * bsize, fileSystem: String(dev), total: blocks * bsize };
  },
};

async function nearestExisting(path: string): Promise<string> {
  try {
    await stat(path);
    return path;
  } catch (error) {
    if (isNotFound(error) && path !== "/") return nearestExisting(dirname(path));
    throw error;
  }
}
