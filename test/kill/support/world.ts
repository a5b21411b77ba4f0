import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { generateKey } from "../../../agent/core/formats/signing-key.ts";
import { buildScriptedSystem } from "../../support/scripted-system.ts";
import { runBundle, runTool } from "./process.ts";
import { createSimulatedHost } from "./simulated-host.ts";

/** What all runs share; plain data, since it goes from one process to another. */
export interface World {
  readonly directory: string;
  readonly seed: number;
  readonly publicKey: string;
  /** Store paths of release 1, which hosts have, and of release 2, which they are to take. */
  readonly systems: { readonly old: string; readonly new: string };
  /** Store paths of release 2's closure. */
  readonly closure: readonly string[];
  /** Mirrors that offer release 2, and release 1 still. */
  readonly mirrors: { readonly new: string; readonly old: string };
  /** Roots of hosts that run release 1, and release 2 after it. */
  readonly templates: { readonly old: string; readonly new: string };
}

/** Publishes two releases and installs them, once for all runs. */
export async function createWorld(directory: string, seed: number): Promise<World> {
  const pair = generateKey("kill-1");
  const keyFile = join(directory, "key.secret");
  await writeFile(keyFile, pair.secret, { mode: 0o600 });
  const [first, second] = await Promise.all([
    buildScriptedSystem("1", { payloadBytes: 50_000 }),
    buildScriptedSystem("2", { payloadBytes: 200_000 }),
  ]);
  const mirrors = { old: join(directory, "mirror-old"), new: join(directory, "mirror-new") };
  const publish = (mirror: string, toplevel: string): Promise<string> =>
    runBundle("publish", "--mirror", mirror, "--key", keyFile, "--host", `web1=${toplevel}`);
  await publish(mirrors.new, first);
  await runTool("cp", "-a", mirrors.new, mirrors.old);
  await publish(mirrors.new, second);

  const world: World = {
    directory,
    seed,
    publicKey: pair.public,
    systems: { old: first, new: second },
    closure: (await runTool("nix-store", "--query", "--requisites", second)).trim().split("\n"),
    mirrors: { old: pathToFileURL(mirrors.old).href, new: pathToFileURL(mirrors.new).href },
    templates: { old: join(directory, "template-old"), new: join(directory, "template-new") },
  };
  const host = await createSimulatedHost(world, null);
  await runBundle("apply", "--config", host.configFor("old"));
  await runTool("cp", "-a", host.root, world.templates.old);
  await runBundle("apply", "--config", host.configFor("new"));
  await rename(host.root, world.templates.new);
  return world;
}
