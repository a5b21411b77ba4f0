// Preloaded into the shipped bundle (`node --import`): says on standard error whatever would write.
import { constants } from "node:fs";
import promises from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";

const WRITES =
  constants.O_WRONLY |
  constants.O_RDWR |
  constants.O_CREAT |
  constants.O_TRUNC |
  constants.O_APPEND;

const tell = (what) => process.stderr.write(`WRITES ${what}\n`);

const { open } = promises;
promises.open = (path, flags = "r", ...rest) => {
  const isWrite = typeof flags === "number" ? (flags & WRITES) !== 0 : flags !== "r";
  if (isWrite) tell(`open ${path}`);
  return open(path, flags, ...rest);
};

for (const name of [
  ...["appendFile", "chmod", "copyFile", "cp", "link", "mkdir", "mkdtemp", "rename", "rm", "rmdir"],
  ...["symlink", "truncate", "unlink", "utimes", "writeFile"],
]) {
  const real = promises[name];
  promises[name] = (...args) => {
    tell(`${name} ${args[0]}`);
    return real(...args);
  };
}

syncBuiltinESMExports();
