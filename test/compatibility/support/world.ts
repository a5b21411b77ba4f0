import { cp, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { generateKey } from "../../../agent/core/formats/signing-key.ts";
import { runAgent, runTool } from "../../kill/support/process.ts";
import { createSimulatedHost } from "../../kill/support/simulated-host.ts";
import type { World } from "../../kill/support/world.ts";
import { buildScriptedSystem } from "../../support/scripted-system.ts";

/** A bundle of nixos-pull. */
export interface Version {
  readonly name: string;
  readonly bundle: string;
}

/**
 * Hosts whose agent was `from` until now and is `to` from now on. Release 1 was published with
 * the operator's tools of `from`, release 2 with the later ones: tools are updated first.
 */
export interface Pair extends World {
  readonly from: Version;
  readonly to: Version;
  readonly tools: Version;
  readonly keyFile: string;
}

/** Runs a version where it has to succeed; gives what it printed. */
export async function runVersion(version: Version, ...args: string[]): Promise<string> {
  const result = await runAgent(args, null, version.bundle);
  if (result.exitCode === 0) return result.stdout;
  throw new Error(`${version.name}: ${args.join(" ")}: ${result.stderr}${result.stdout}`);
}

/** Publishes a system with a version's tools. */
export function publish(
  { keyFile }: Pick<Pair, "keyFile">,
  tools: Version,
  mirror: string,
  toplevel: string,
  ...args: string[]
): Promise<string> {
  const target = ["--mirror", mirror, "--key", keyFile, "--host", `web1=${toplevel}`];
  // The suite's mirrors are many, and all are signed with one key.
  return runVersion(tools, "publish", ...target, "--memory", `${mirror}.memory`, ...args);
}

/** A copy of a mirror with what its signer remembers. */
export async function copyMirror(from: string, to: string): Promise<void> {
  await runTool("cp", "-a", from, to);
  await cp(`${from}.memory`, `${to}.memory`);
}

/** Publishes two releases and installs them. */
export async function createPair(
  parent: string,
  [from, to, tools]: readonly [Version, Version, Version],
): Promise<Pair> {
  const directory = join(parent, `${from.name}-to-${to.name}`);
  await runTool("mkdir", directory);
  const pair = generateKey("compatibility-1");
  const keyFile = join(directory, "key.secret");
  await writeFile(keyFile, pair.secret, { mode: 0o600 });
  const [first, second] = await Promise.all([buildScriptedSystem("1"), buildScriptedSystem("2")]);
  const mirrors = { old: join(directory, "mirror-old"), new: join(directory, "mirror-new") };
  await publish({ keyFile }, from, mirrors.old, first);
  await copyMirror(mirrors.old, mirrors.new);
  await publish({ keyFile }, tools, mirrors.new, second);
  const world: Pair = {
    ...{ directory, seed: 0, from, to, tools, keyFile, publicKey: pair.public },
    systems: { old: first, new: second },
    closure: (await runTool("nix-store", "--query", "--requisites", second)).trim().split("\n"),
    mirrors: { old: pathToFileURL(mirrors.old).href, new: pathToFileURL(mirrors.new).href },
    templates: { old: join(directory, "template-old"), new: join(directory, "template-new") },
  };
  const host = await createSimulatedHost(world, null);
  await runVersion(from, "apply", "--config", host.configFor("old"));
  await runTool("cp", "-a", host.root, world.templates.old);
  await runVersion(from, "apply", "--config", host.configFor("new"));
  await rename(host.root, world.templates.new);
  return world;
}

/** The checked file's value as it lies on the disk. */
export async function valueIn(path: string): Promise<Record<string, unknown>> {
  return (JSON.parse(await readFile(path, "utf8")) as { value: Record<string, unknown> }).value;
}
