import { stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import type { Disk } from "../../core/ports.ts";
import { exists } from "./missing-file.ts";

/** Free space by statfs(2), without what is reserved for root. */
export const systemDisk: Disk = {
  async freeSpace(path) {
    const existing = await nearestExisting(path);
    const [{ bavail, blocks, bsize, files, ffree }, { dev }] = await Promise.all([
      statfs(existing),
      stat(existing),
    ]);
    return {
      ...{ free: bavail * bsize, fileSystem: String(dev), total: blocks * bsize },
      // File systems that make inodes as they need them say 0.
      ...(files > 0 && { inodes: { free: ffree, total: files } }),
    };
  },
};

async function nearestExisting(path: string): Promise<string> {
  return path === "/" || (await exists(path)) ? path : nearestExisting(dirname(path));
}
