// A mirror for machines in QEMU, and systems to publish on it.
import { spawn } from "node:child_process";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "./machine.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** A mirror below `directory`, served; releases are signed and published by the program `bundle`. */
export async function createMirror(directory, bundle) {
  const mirror = join(directory, "mirror");
  await mkdir(mirror);
  const key = join(directory, "key");
  await run(process.execPath, bundle, "keygen", "power-1", "--out", key);
  const publicKey = (await readFile(`${key}.public`, "utf8")).trim();
  const server = spawn(process.execPath, [here("../../../scripts/demo-server.mjs"), mirror], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const address = await new Promise((resolve) => server.stdout.once("data", resolve));
  const { port } = new URL(String(address).trim());

  return {
    /** What the agent's configuration says of this mirror, as QEMU's user network shows it. */
    settings: {
      hostname: "web1",
      mirrors: [`http://10.0.2.2:${port}`],
      publicKeys: [publicKey],
    },

    /** Publishes a system for the machine; `options` are more of `publish`. */
    async publish(toplevel, ...options) {
      const required = ["--mirror", mirror, "--key", `${key}.secret`, "--host", `web1=${toplevel}`];
      await run(process.execPath, bundle, "publish", ...required, ...options);
    },

    close() {
      server.kill();
    },
  };
}

/** Builds a system of test/hosts/toplevel.nix with these arguments; gives its path. */
export function buildSystem({ agentConfig, ...options }) {
  const json = JSON.stringify({ ...options, agentConfig: JSON.stringify(agentConfig) });
  const expression = `{ json }: import ${here("../toplevel.nix")} (builtins.fromJSON json)`;
  const named = ["--argstr", "json", json, "--attr", "system", "--no-out-link"];
  return run("nix-build", "--expr", expression, ...named);
}
