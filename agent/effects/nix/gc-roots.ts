import { readlinkSync, symlinkSync } from "node:fs";
import { readdir, readlink, rename, rm, symlink } from "node:fs/promises";
import { basename, join } from "node:path";
import type { GcRoots } from "../../core/ports.ts";
import { syncDirectory } from "../files/durable-file.ts";
import { hasErrorCode, ifMissing } from "../files/missing-file.ts";
import { inTurns } from "../process/turns.ts";
import { makeDirectory } from "../files/make-directory.ts";

/**
 * Links in a directory below `/nix/var/nix/gcroots`. The collector follows a link to a
 * store path as soon as that path is valid (Nix manual, "Garbage Collector Roots"). So a root
 * that is made before an import keeps the closure from its first moment on.
 */
export function gcRootsIn(directory: string): GcRoots {
  return {
    async hold(name, storePath) {
      await makeDirectory(directory);
      const temporary = join(directory, `.${name}.tmp`);
      await rm(temporary, { force: true });
      await symlink(storePath, temporary);
      await rename(temporary, join(directory, name));
      await syncDirectory(directory);
    },
    async holdAlso(name, storePaths) {
      await makeDirectory(join(directory, name));
      await inTurns(storePaths, (path) => {
        try {
          symlinkSync(path, join(directory, name, basename(path)));
        } catch (error) {
          if (!hasErrorCode(error, "EEXIST")) throw error;
        }
      });
      // After a power cut, these roots name the paths that have to be verified.
      await syncDirectory(join(directory, name));
      await syncDirectory(directory);
    },
    async release(name) {
      await rm(join(directory, name), { recursive: true, force: true });
    },
    async heldBelow(name) {
      const paths: string[] = [];
      await inTurns(await ifMissing(readdir(join(directory, name)), []), (link) => {
        paths.push(readlinkSync(join(directory, name, link)));
      });
      return paths;
    },
    held: (name) => ifMissing(readlink(join(directory, name)), null),
  };
}
