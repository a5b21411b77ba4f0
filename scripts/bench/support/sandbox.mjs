// The shipped bundle as its users run it: an operator with a key and a mirror, hosts in sandboxes.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runChecked, runMeasured } from "./process-usage.mjs";

const NIX_CONF = fileURLToPath(new URL("../../../test/closures/nix.conf", import.meta.url));

/** How the package's wrapper starts the program (`nixos-module/package.nix`). */
const WRAPPER_OPTIONS = ["--max-semi-space-size=2", "--optimize-for-size"];
const WRAPPER_ENVIRONMENT = { MALLOC_ARENA_MAX: "1" };

/** The arguments for Node that run the shipped program with some arguments. */
export function programArguments(bundle, args) {
  return [...WRAPPER_OPTIONS, bundle, ...args];
}

/** Environment of all measured programs; Nix's caches are `home`'s, so a new home is a first time. */
export function environment(home) {
  return {
    PATH: process.env["PATH"],
    HOME: home,
    XDG_CACHE_HOME: join(home, ".cache"),
    NIX_USER_CONF_FILES: NIX_CONF,
    ...WRAPPER_ENVIRONMENT,
  };
}

/** An operator with a key of its own; `publish` gives what was published and what it took. */
export async function createOperator({ directory: parent, bundle }) {
  const directory = join(parent, "operator");
  mkdirSync(directory);
  const key = join(directory, "bench");
  const env = environment(directory);
  await runChecked(process.execPath, [bundle, "keygen", "bench-1", "--out", key], { env });
  return {
    publicKey: readFileSync(`${key}.public`, "utf8").trim(),
    secretKey: readFileSync(`${key}.secret`, "utf8").trim(),
    async publish(mirror, systems, ...args) {
      const hosts = Object.entries(systems).flatMap(([name, path]) => [
        "--host",
        `${name}=${path}`,
      ]);
      const command = ["publish", "--mirror", mirror, "--key", `${key}.secret`, "--json"];
      // A benchmark has several mirrors, which know nothing of each other.
      command.push("--memory", `${mirror}.memory`);
      const all = programArguments(bundle, [...command, ...hosts, ...args]);
      const run = await runChecked(process.execPath, all, { env });
      const { hosts: published, ...release } = JSON.parse(run.stdout);
      const byName = Object.fromEntries(published.map((host) => [host.hostname, host]));
      return { ...run, release: { ...release, hosts: byName } };
    },
  };
}

/** A host with its store, profile and state below `root`, a new directory. */
export function createHost(root, bundle, { mirror, publicKey, hostname = "web1", ...settings }) {
  mkdirSync(join(root, "nix"), { recursive: true });
  const configFile = join(root, "config.json");
  const profiles = join(root, "nix/var/nix/profiles");
  const paths = {
    state: join(root, "state"),
    profile: join(profiles, "system"),
    gcRoots: join(root, "nix/var/nix/gcroots/nixos-pull"),
    currentSystem: join(root, "run/current-system"),
  };
  const config = {
    hostname,
    mirrors: [mirror],
    publicKeys: [publicKey],
    store: `local?root=${root}`,
    limits: { reserveBytes: 0 },
    log: { format: "json" },
    paths,
    ...settings,
  };
  writeFileSync(configFile, JSON.stringify(config));
  const env = environment(root);
  const tryToApply = (options = {}) => {
    const args = programArguments(bundle, ["apply", "--config", configFile, "--json"]);
    return runMeasured(process.execPath, args, { env, ...options });
  };
  return {
    root,
    configFile,
    profiles,
    paths,
    env,
    tryToApply,
    /** `nixos-pull apply`, and how long its parts took; throws where it changes nothing. */
    async apply(options = {}) {
      const run = await tryToApply(options);
      const outcome = run.stdout === "" ? null : JSON.parse(run.stdout);
      if (!outcome?.updated) throw new Error(`nothing was applied:\n${run.stdout}${run.stderr}`);
      return { ...run, ...phases(run), toplevel: outcome.release.toplevel };
    },
  };
}

/**
 * The parts of an update, seconds, by the times in the agent's log. The import runs beside
 * the download, so that the two are one part.
 */
function phases({ stderr, seconds }) {
  const entries = stderr
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line));
  // An update that goes on where it was stopped does not announce the release again.
  const accepted = entries.find(({ msg }) => /^release \d+: /.test(msg)) ?? entries[0];
  const summary = entries.find(({ msg }) => /^imported /.test(msg));
  if (!summary) throw new Error(`the agent's log does not say what was imported:\n${stderr}`);
  const closureSeconds = (Date.parse(summary.time) - Date.parse(accepted.time)) / 1000;
  return {
    closureSeconds,
    otherSeconds: seconds - closureSeconds,
    paths: summary.paths,
    newPaths: summary.newPaths,
  };
}
