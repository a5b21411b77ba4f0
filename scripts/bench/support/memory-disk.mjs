// A file system in memory, for runs in which the disk must not count.
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

/** A new tmpfs, mounted at `directory`; `renew()` puts an empty one there. */
export function createMemoryDisk({ directory: parent, onEnd }) {
  if (process.getuid?.() !== 0) throw new Error("mounting a file system in memory takes root");
  const directory = join(parent, "memory");
  mkdirSync(directory);
  const discard = () => {
    // Lazily: what was just stopped may not have ended.
    spawnSync("umount", ["--lazy", directory]);
  };
  const renew = () => {
    discard();
    const { status, stderr } = spawnSync("mount", ["-t", "tmpfs", "tmpfs", directory], {
      encoding: "utf8",
    });
    if (status !== 0) throw new Error(`mount: ${stderr}`);
  };
  onEnd(discard);
  renew();
  return { directory, renew };
}
