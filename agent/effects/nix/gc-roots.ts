import { readdir, readlink, rename, rm, symlink } from "node:fs/promises";
import { basename, join } from "node:path";
import type { GcRoots } from "../../core/ports.ts";
import { syncDirectory } from "../files/durable-file.ts";
import { hasErrorCode, ifMissing } from "../files/missing-file.ts";
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
      for (const path of storePaths) {
        await symlink(path, join(directory, name, basename(path))).catch((error: unknown) => {
          if (!hasErrorCode(error, "EEXIST")) throw error;
        });
      }
      // After a power cut, these roots name the paths that have to be verified.
      await syncDirectory(join(directory, name));
      await syncDirectory(directory);
    },
    async release(name) {
      await rm(join(directory, name), { recursive: true, force: true });
    },
    async heldBelow(name) {
      const names = await ifMissing(readdir(join(directory, name)), []);
      return Promise.all(names.map((link) => readlink(join(directory, name, link))));
    },
    held: (name) => ifMissing(readlink(join(directory, name)), null),
  };
}
