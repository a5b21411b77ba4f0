import { mkdir, readdir, readlink, rename, rm, symlink } from "node:fs/promises";
import { basename, join } from "node:path";
import type { GcRoots } from "../../core/ports.ts";
import { isNotFound, syncDirectory } from "../files/durable-file.ts";

/**
 * Links in a directory below `/nix/var/nix/gcroots`. The collector follows a link to a
 * store path as soon as that path is valid (Nix manual, "Garbage Collector Roots"), so
 * a root made before an import leaves no moment in which the closure could be lost.
 */
export function gcRootsIn(directory: string): GcRoots {
  return {
    async hold(name, storePath) {
      await mkdir(directory, { recursive: true });
      const temporary = join(directory, `.${name}.tmp`);
      await rm(temporary, { force: true });
      await symlink(storePath, temporary);
      await rename(temporary, join(directory, name));
      await syncDirectory(directory);
    },
    async holdAlso(name, storePaths) {
      await mkdir(join(directory, name), { recursive: true });
      for (const path of storePaths) {
        await symlink(path, join(directory, name, basename(path))).catch((error: unknown) => {
          if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
        });
      }
      // They also say what a power cut may have damaged.
      await syncDirectory(join(directory, name));
      await syncDirectory(directory);
    },
    async release(name) {
      await rm(join(directory, name), { recursive: true, force: true });
    },
    async heldBelow(name) {
      const names = await readdir(join(directory, name)).catch((error: unknown) => {
        if (isNotFound(error)) return [];
        throw error;
      });
      return Promise.all(names.map((link) => readlink(join(directory, name, link))));
    },
    async held(name) {
      try {
        return await readlink(join(directory, name));
      } catch (error) {
        if (isNotFound(error)) return null;
        throw error;
      }
    },
  };
}
