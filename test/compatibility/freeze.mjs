// Freezes this version for the compatibility suite: its bundle, its formats, and what it writes
// (a mirror with two releases, the state directory of a host in each state). Run it before a
// release, and again whenever the suite says that the formats moved:
//
//   npm run freeze
import { Buffer } from "node:buffer";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { brotliCompressSync, constants } from "node:zlib";
import { build } from "esbuild";
import { buildAgent } from "../../scripts/build.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const CRASH_POINTS = new URL("../kill/support/crash-points.mjs", import.meta.url).href;
const ENVIRONMENT = {
  ...process.env,
  NIX_USER_CONF_FILES: join(HERE, "../closures/nix.conf"),
};
const STATES = ["Candidate", "Fetching", "Imported", "Staged", "Activating", "Verifying"];
STATES.push("Committing", "Committed", "RollingBack", "RolledBack", "Failed");

const { version } = JSON.parse(await readFile(join(HERE, "../../package.json"), "utf8"));
const directory = await mkdtemp(join(tmpdir(), "nixos-pull-freeze-"));
try {
  const folder = join(HERE, "released", version);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const bundle = await buildAgent(join(directory, "nixos-pull.cjs"));
  await writeFile(join(folder, "nixos-pull.cjs.br"), compressed(await readFile(bundle)));
  await writeFile(join(folder, "formats.json"), `${JSON.stringify(await formats(), null, 2)}\n`);
  const written = Buffer.from(JSON.stringify(await write(bundle)));
  await writeFile(join(folder, "written.json.br"), compressed(written));
  for (const name of (await readdir(folder)).sort()) {
    console.log(`test/compatibility/released/${version}/${name}`);
  }
} finally {
  spawnSync("chmod", ["-R", "u+w", directory]);
  await rm(directory, { recursive: true, force: true });
}

function compressed(bytes) {
  return brotliCompressSync(bytes, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
      [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    },
  });
}

/** The formats of the sources, as hashes. */
async function formats() {
  const outfile = join(directory, "formats.mjs");
  const entryPoints = [join(HERE, "support/formats.ts")];
  await build({ entryPoints, outfile, bundle: true, platform: "node", format: "esm" });
  return (await import(pathToFileURL(outfile).href)).formats();
}

/** What the bundle writes: files by path, base64, and the key that signed. */
async function write(bundle) {
  const run = (...args) =>
    execFileSync(process.execPath, [bundle, ...args], { env: ENVIRONMENT, encoding: "utf8" });
  const keyFile = join(directory, "key.secret");
  run("keygen", "frozen-1", "--out", join(directory, "key"));
  const publicKey = (await readFile(join(directory, "key.public"), "utf8")).trim();
  const mirror = join(directory, "mirror");
  const publish = (system) =>
    run("publish", "--mirror", mirror, "--key", keyFile, "--host", `web1=${system}`);
  publish(systemOf("1"));
  const template = join(directory, "template");
  const config = await makeHost(template, mirror, publicKey);
  run("apply", "--config", config);
  publish(systemOf("2"));
  const states = { Idle: await filesOf(join(template, "state"), withoutMachine) };
  for (const state of STATES) {
    states[state] = await stateOf(state, { bundle, template, mirror, publicKey });
  }
  return { publicKey, mirror: await filesOf(mirror), states };
}

function systemOf(generation) {
  const file = join(HERE, "../support/scripted-system.nix");
  const args = [file, "--no-out-link", "--argstr", "generation", generation];
  const options = { env: ENVIRONMENT, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] };
  return execFileSync("nix-build", args, options).trim();
}

/** A host's directory; gives its configuration file. */
async function makeHost(root, mirror, publicKey) {
  await mkdir(join(root, "nix"), { recursive: true });
  const file = join(root, "config.json");
  const config = {
    ...{ hostname: "web1", store: `local?root=${root}`, publicKeys: [publicKey] },
    mirrors: [pathToFileURL(mirror).href],
    health: { settle: "0s", timeout: "1s", interval: "5s" },
    limits: { reserveBytes: 0 },
    paths: {
      state: join(root, "state"),
      profile: join(root, "nix/var/nix/profiles/system"),
      gcRoots: join(root, "nix/var/nix/gcroots/nixos-pull"),
      currentSystem: join(root, "run/current-system"),
    },
  };
  await writeFile(file, JSON.stringify(config));
  return file;
}

/** The state directory of a host whose agent was killed as soon as it was in that state. */
async function stateOf(state, { bundle, template, mirror, publicKey }) {
  const root = join(directory, `host-${state}`);
  execFileSync("cp", ["-a", template, root]);
  const config = await makeHost(root, mirror, publicKey);
  if (/^(RollingBack|RolledBack|Failed)$/.test(state)) {
    // Nobody's fault: it is undone, and tried again later.
    await writeFile(join(root, "switch-hook"), 'if [ "$generation" = 2 ]; then exit 11; fi\n');
  }
  const found = spawnSync(
    process.execPath,
    ["--import", CRASH_POINTS, bundle, "apply", "--config", config],
    {
      env: {
        ...{ ...ENVIRONMENT, CRASH_ROOT: root, CRASH_STATE: join(root, "state") },
        CRASH_STATE_REACHED: state,
      },
      encoding: "utf8",
    },
  );
  const record = JSON.parse(await readFile(join(root, "state/state.json"), "utf8"));
  if (record.value.state.name !== state) {
    throw new Error(`expected ${state}, found ${record.value.state.name}: ${found.stderr}`);
  }
  return filesOf(join(root, "state"), withoutMachine);
}

/** Files below a folder by their paths, base64. */
async function filesOf(folder, change = (_name, bytes) => bytes) {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const found = {};
  for (const { name, parentPath } of files) {
    const path = relative(folder, join(parentPath, name));
    // No secrets, and nothing that is imported only once.
    if (/\.secret$|^staging\//.test(path)) continue;
    found[path] = change(path, await readFile(join(parentPath, name))).toString("base64");
  }
  return found;
}

/** A record is another machine's on every other machine; this one belongs to none. */
function withoutMachine(path, bytes) {
  if (path !== "state.json") return bytes;
  const { value } = JSON.parse(bytes);
  delete value.machineId;
  const sha256 = createHash("sha256").update(JSON.stringify(value)).digest("hex");
  return Buffer.from(`${JSON.stringify({ sha256, value }, null, 2)}\n`);
}
