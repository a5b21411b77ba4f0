import fs, { type FileHandle } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { basename, dirname, join } from "node:path";
import { onTestFinished } from "vitest";

/** What was done on the disk; paths are real ones. */
export type DiskOperation =
  | { readonly kind: "sync"; readonly path: string; readonly isDirectory: boolean }
  | { readonly kind: "rename"; readonly from: string; readonly to: string }
  | { readonly kind: "create" | "write" | "link" | "remove"; readonly path: string };

/**
 * Records what Node's own functions create, write, flush, rename, link and remove until the test
 * ends. They do their work as always. Gives the growing list.
 */
export async function recordDiskOperations(): Promise<DiskOperation[]> {
  const operations: DiskOperation[] = [];
  const handle = await fs.open("/dev/null");
  const handles = Object.getPrototypeOf(handle) as FileHandle;
  await handle.close();
  const { rename, link, symlink, rm, unlink, open, lstat, readlink, realpath } = fs;
  const { sync, write, writeFile, appendFile } = handles;
  onTestFinished(() => {
    Object.assign(fs, { rename, link, symlink, rm, unlink, open });
    Object.assign(handles, { sync, write, writeFile, appendFile });
    syncBuiltinESMExports();
  });
  const real = async (path: string): Promise<string> =>
    join(await realpath(dirname(path)), basename(path));
  const pathOf = (file: FileHandle): Promise<string> => readlink(`/proc/self/fd/${file.fd}`);
  const isThere = (path: string): Promise<boolean> =>
    lstat(path).then(
      () => true,
      () => false,
    );
  const removing = (remove: (path: string, options?: object) => Promise<void>) => {
    return async (path: string, options?: object): Promise<void> => {
      const operation = (await isThere(path)) ? await real(path) : null;
      await remove(path, options);
      if (operation !== null) operations.push({ kind: "remove", path: operation });
    };
  };
  const writing = <A extends unknown[]>(work: (...args: A) => Promise<unknown>) =>
    async function (this: FileHandle, ...args: A): Promise<unknown> {
      operations.push({ kind: "write", path: await pathOf(this) });
      return work.apply(this, args);
    };
  Object.assign(handles, {
    async sync(this: FileHandle) {
      const isDirectory = (await this.stat()).isDirectory();
      await sync.call(this);
      operations.push({ kind: "sync", path: await pathOf(this), isDirectory });
    },
    ...{ write: writing(write), writeFile: writing(writeFile), appendFile: writing(appendFile) },
  });
  Object.assign(fs, {
    async rename(from: string, to: string) {
      const operation = { kind: "rename", from: await real(from), to: await real(to) } as const;
      await rename(from, to);
      operations.push(operation);
    },
    async link(from: string, to: string) {
      await link(from, to);
      operations.push({ kind: "link", path: await real(to) });
    },
    async symlink(target: string, path: string) {
      await symlink(target, path);
      operations.push({ kind: "link", path: await real(path) });
    },
    ...{ rm: removing(rm), unlink: removing(unlink) },
    async open(path: string, ...rest: [flags?: string | number, mode?: number]) {
      const was = await isThere(path);
      const file = await open(path, ...rest);
      if (!was) operations.push({ kind: "create", path: await pathOf(file) });
      return file;
    },
  });
  syncBuiltinESMExports();
  return operations;
}

/**
 * What a power cut could undo or tear: contents that were not flushed before they got their name,
 * or not at all, and names that were created, replaced or removed without a flush of their
 * directory (fsync(2)).
 */
export function notOnDisk(operations: readonly DiskOperation[]): string[] {
  const torn: string[] = [];
  const contents = new Set<string>();
  /** The last change of a name in each directory. */
  const names = new Map<string, string>();
  for (const operation of operations) {
    switch (operation.kind) {
      case "write":
        contents.add(operation.path);
        break;
      case "sync":
        if (operation.isDirectory) names.delete(operation.path);
        else contents.delete(operation.path);
        break;
      case "rename":
        if (contents.delete(operation.from)) torn.push(operation.to);
        names.set(dirname(operation.to), operation.to);
        break;
      case "remove":
        contents.delete(operation.path);
        names.set(dirname(operation.path), operation.path);
        break;
      case "create":
      case "link":
        names.set(dirname(operation.path), operation.path);
        break;
      default:
        operation satisfies never;
    }
  }
  const told = (what: string, paths: Iterable<string>): string[] =>
    [...paths].map((path) => `${what} of ${basename(path)}`);
  return [...told("contents", [...torn, ...contents]), ...told("name", names.values())];
}
