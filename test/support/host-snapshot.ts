import { readFile, readdir, readlink } from "node:fs/promises";
import { join } from "node:path";
import type { SandboxHost } from "./sandbox.ts";

/** Everything that makes a host what it is; two equal snapshots are an untouched host. */
export interface HostSnapshot {
  readonly profile: string | null;
  /** The profile's link, `system-N-link`. */
  readonly generation: string | null;
  readonly running: string | null;
  readonly switchLog: readonly string[];
  /** GC roots by name, without those of a release that was merely begun. */
  readonly roots: Readonly<Record<string, string>>;
}

const link = (path: string): Promise<string | null> => readlink(path).catch(() => null);

export async function snapshotOf(host: SandboxHost): Promise<HostSnapshot> {
  const { pending: _, "pending-paths": __, ...roots } = await rootsOf(host);
  return {
    profile: await host.profileToplevel(),
    generation: await link(host.profile),
    running: await link(join(host.root, "run/current-system")),
    switchLog: await host.switchLog(),
    roots,
  };
}

/** The agent's garbage collector roots by name. */
export async function rootsOf(host: SandboxHost): Promise<Record<string, string>> {
  const directory = join(host.root, "nix/var/nix/gcroots/nixos-pull");
  const names = await readdir(directory).catch(() => []);
  const targets = await Promise.all(
    names.map(async (name) => [name, (await link(join(directory, name))) ?? ""] as const),
  );
  return Object.fromEntries(targets);
}

/** What the host remembers between runs, byte for byte, without the report of the last poll. */
export async function memoryOf(host: SandboxHost): Promise<Record<string, string>> {
  const names = ["state.json", "trust.json", "history.jsonl"];
  const texts = await Promise.all(
    names.map(async (name) => {
      const text = await readFile(join(host.state, name), "utf8").catch(() => "");
      return [name, text] as const;
    }),
  );
  return Object.fromEntries(texts);
}
