// Preloaded into the shipped bundle (`node --import`): names every moment at which the
// agent changes the disk or has to do with another program, and ends the agent with
// SIGKILL at one of them. Knows nothing of the agent but Node's own functions that it calls.
//
//   CRASH_ROOT    the host's root: only what lies below it is of interest
//   CRASH_STATE   its state directory
//   CRASH_RECORD  file to which the name of every point is appended
//   CRASH_AT      name of the point at which to end; or
//   CRASH_INDEX   its number among all points, from 1; or
//   CRASH_STATE_REACHED  name of a state: ends as soon as that is on disk
//
// A point's name is what happens, when, the state on disk and, where the same thing
// happens again, which time it is: `rename state.json (Activating), before [Staged] #2`.
import { Buffer } from "node:buffer";
import childProcess from "node:child_process";
import fs from "node:fs";
import promises from "node:fs/promises";
import { basename, join, relative } from "node:path";
import { DurableOrder } from "./durable-order.mjs";

const { CRASH_ROOT: root, CRASH_STATE: stateDirectory, CRASH_RECORD: recordFile } = process.env;
const wantedName = process.env.CRASH_AT;
const wantedIndex = Number(process.env.CRASH_INDEX ?? 0);

let state = stateIn(join(stateDirectory, "state.json"));
const order = new DurableOrder(join(root, "durable-order"));
const times = new Map();
let index = 0;

/** Passes a point: goes on, or ends here. `beforeEnd` does what belongs to the end. */
function point(what, when, beforeEnd) {
  const plain = `${what}, ${when} [${state}]`;
  const time = (times.get(plain) ?? 0) + 1;
  times.set(plain, time);
  index++;
  const name = time === 1 ? plain : `${plain} #${time}`;
  if (recordFile !== undefined) ours(() => fs.appendFileSync(recordFile, `${name}\n`));
  if (name !== wantedName && index !== wantedIndex) return;
  ours(() => {
    beforeEnd?.();
    fs.writeFileSync(join(root, "crashed-at"), name);
  });
  end();
}

/** Whether this file works on the disk itself: Node's functions call each other. */
let isOurs = false;

function ours(work) {
  isOurs = true;
  try {
    work();
  } finally {
    isOurs = false;
  }
}

function end() {
  process.kill(process.pid, "SIGKILL");
  // The signal is on its way; nothing more may happen here until it is there.
  for (;;);
}

/** The name of the state in a state file; what a fresh host has where there is none. */
function stateIn(path) {
  try {
    return JSON.parse(fs.readFileSync(path, "utf8")).value.state.name;
  } catch {
    return "no state";
  }
}

/** A path's name without what differs between hosts and runs; null for what is not the host's. */
function nameOf(path) {
  const inRoot = relative(root, String(path));
  if (inRoot.startsWith("..")) return null;
  const name = inRoot
    .replace(/^state\//, "")
    .replace(/^nix\/var\/nix\//, "")
    .replace(/\.tmp-[0-9a-f]+$/, ".tmp")
    .replace(/(^|\/)[0-9a-f]{64}(?=[/.]|$)/g, "$1ARCHIVE")
    .replace(/nar\/[0-9a-z]+(?=\.nar)/, "nar/NAR")
    .replace(/[0-9a-z]{32}\.narinfo/, "NARINFO");
  // Who holds it has it; what is written into it is for people. How far a fetch is is for people too.
  return name === "update.lock" || /(^|\/)fetch\.json(\.next)?$/.test(name) ? null : name;
}

/** `state.json` says little; which state it holds says all. */
function describe(name, path) {
  return /^state\.json/.test(name) ? `${name} (${stateIn(path)})` : name;
}

function exists(path) {
  return fs.lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

const real = { ...promises };

promises.rename = async (from, to) => {
  const name = nameOf(to);
  if (name === null) return real.rename(from, to);
  const what = `rename ${describe(name, from)}`;
  if (name === "state.json") order.counts(what);
  point(what, "before");
  await real.rename(from, to);
  // A power cut may cost what is staged: its hash is looked at before it is used.
  if (!name.includes("staging/")) order.renames(from, to, name);
  if (name !== "state.json") return;
  point(what, "after");
  state = stateIn(to);
  if (state === process.env.CRASH_STATE_REACHED) end();
};

for (const call of ["rm", "unlink", "rmdir"]) {
  promises[call] = async (path, ...options) => {
    const name = nameOf(path);
    if (name !== null && exists(path)) {
      point(`remove ${name}`, "before");
      // A link goes at once; what it points to is another host's too.
      if (options[0]?.recursive && fs.lstatSync(path).isDirectory()) {
        point(`remove ${name}`, "in the middle", () => removeSome(path));
      }
    }
    return real[call](path, ...options);
  };
}

/** The first half of what a directory holds goes. */
function removeSome(directory) {
  const names = fs.readdirSync(directory);
  for (const name of names.slice(0, Math.ceil(names.length / 2))) {
    fs.rmSync(join(directory, name), { recursive: true });
  }
}

promises.symlink = async (target, path, ...type) => {
  const name = nameOf(path);
  if (name !== null) point(`link ${name}`, "before");
  return real.symlink(target, path, ...type);
};

promises.mkdir = async (path, ...options) => {
  const name = nameOf(path);
  if (name !== null && !exists(path)) point(`make directory ${name}`, "before");
  return real.mkdir(path, ...options);
};

promises.open = async (path, ...options) => {
  const name = nameOf(path);
  if (name !== null && isForWriting(options[0]) && !exists(path)) point(`create ${name}`, "before");
  const file = await real.open(path, ...options);
  if (name !== null) {
    const sync = file.sync.bind(file);
    file.sync = async () => {
      await sync();
      order.flushed(path);
    };
  }
  if (name === null || !isForWriting(options[0])) return file;
  for (const call of ["writeFile", "appendFile"]) {
    const write = file[call].bind(file);
    file[call] = async (contents, ...encoding) => {
      order.wrote(path);
      point(`write ${name}`, "before");
      point(`write ${name}`, "torn", () => {
        const bytes = Buffer.from(contents);
        fs.writeSync(file.fd, bytes.subarray(0, bytes.length / 2));
      });
      return write(contents, ...encoding);
    };
  }
  return file;
};

promises.writeFile = async (path, ...rest) => {
  const name = typeof path === "object" ? null : nameOf(path);
  if (name !== null) point(`write ${name}`, "before");
  return real.writeFile(path, ...rest);
};

/** Small files are written, linked and removed by these. */
const realSync = { ...fs };
/** Files that were opened by `openSync`, by descriptor. */
const opened = new Map();

fs.symlinkSync = (target, path, ...type) => {
  const name = isOurs ? null : nameOf(path);
  if (name !== null) point(`link ${name}`, "before");
  return realSync.symlinkSync(target, path, ...type);
};

fs.unlinkSync = (path) => {
  const name = isOurs ? null : nameOf(path);
  if (name !== null && exists(path)) point(`remove ${name}`, "before");
  return realSync.unlinkSync(path);
};

fs.openSync = (path, flags, ...mode) => {
  const name = isOurs || !isForWriting(flags) ? null : nameOf(path);
  if (name !== null && !exists(path)) point(`create ${name}`, "before");
  const file = realSync.openSync(path, flags, ...mode);
  if (name !== null) opened.set(file, { name, path });
  return file;
};

fs.closeSync = (file) => {
  opened.delete(file);
  return realSync.closeSync(file);
};

fs.writeFileSync = (file, contents, ...options) => {
  const { name, path } = opened.get(file) ?? {};
  if (name !== undefined && !isOurs) {
    order.wrote(path);
    point(`write ${name}`, "before");
    point(`write ${name}`, "torn", () => {
      const bytes = Buffer.from(contents);
      realSync.writeSync(file, bytes.subarray(0, bytes.length / 2));
    });
  }
  return realSync.writeFileSync(file, contents, ...options);
};

function isForWriting(flags = "r") {
  const { O_WRONLY, O_RDWR } = fs.constants;
  return typeof flags === "number" ? (flags & (O_WRONLY | O_RDWR)) !== 0 : flags !== "r";
}

/** A program with what it is told to do, without paths. */
function describeProgram(command, args) {
  const system = /nixos-system-[a-z0-9]+-([0-9]+)\/bin\//.exec(command)?.[1];
  if (system !== undefined) {
    return `${basename(command)} ${args[0] ?? "usage"} of system ${system}`;
  }
  const words = args.filter((word) =>
    /^(copy|--(check-validity|set|switch-generation))$/.test(word),
  );
  return [basename(command), ...words].join(" ");
}

/** Programs that change something half way; the others are as good as not started. */
const CHANGING = /^(nix copy|nix-env|switch-to-configuration (?!usage|check))/;
/** Of these, the ones that say something when they have begun. */
const TALKING = /^(nix copy|switch-to-configuration)/;

const { spawn } = childProcess;
childProcess.spawn = (command, args = [], options = {}) => {
  const what = `spawn ${describeProgram(command, args)}`;
  order.counts(what);
  point(what, "before");
  const child = spawn(command, args, options);
  const inMiddle = () => {
    point(what, "in the middle", () => leaveBehind(child));
    if (CHANGING.test(what.slice("spawn ".length))) {
      point(what, "in the middle, both killed", () => {
        process.kill(-child.pid, "SIGKILL");
      });
    }
  };
  if (TALKING.test(what.slice("spawn ".length))) {
    let begun = false;
    const begin = () => {
      if (!begun) inMiddle();
      begun = true;
    };
    child.stdout?.on("data", begin);
    child.stderr?.on("data", begin);
  } else {
    child.once("spawn", inMiddle);
  }
  // The program has ended; the agent does not know it yet.
  const emit = child.emit.bind(child);
  child.emit = (event, ...values) => {
    if (event === "exit") point(what, "after");
    return emit(event, ...values);
  };
  return child;
};

process.once("exit", () => {
  order.counts("the end of the agent");
});

/** Tells the test which program goes on without its agent. */
function leaveBehind(child) {
  fs.appendFileSync(join(root, "left-behind"), `${child.pid}\n`);
}
