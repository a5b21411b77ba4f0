import { mkdir, mkdtemp, readdir, readFile, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { IMPORTED_ROOTS } from "../../../agent/host/fetch/imported-paths.ts";
import { readChecked } from "../../../agent/effects/files/checked-file.ts";
import { trustMemoriesSchema, type TrustMemories } from "../../../agent/core/release/acceptance.ts";
import { savedRecordSchema, type AgentRecord } from "../../../agent/core/update/record.ts";
import type { ActivationMode } from "../../../agent/core/formats/manifest.ts";
import type { ProcessResult } from "../../../agent/effects/process/subprocess.ts";
import { removeTree } from "../../support/temporary.ts";
import { runAgent, runTool } from "./process.ts";
import type { World } from "./world.ts";

/** What is wrong with release 2, if anything. */
export type Defect = "none" | "switch fails" | "unhealthy";

/**
 * How switches of these hosts go, in steps, as the real one's do: under a lock, the boot
 * default first, then two things to activate with a while in between. One whose agent was
 * killed takes longer, so that the next agent meets it.
 */
const SWITCH_HOOK = `
if [ "$mode" = check ]; then exit 0; fi
exec 9>>"$root/switch.lock"
flock --nonblock 9 || exit 11
case $mode in switch|boot)
  echo "$out" > "$root/boot-default.tmp"
  mv "$root/boot-default.tmp" "$root/boot-default"
esac
if [ "$mode" = boot ]; then exit 0; fi
echo $generation > "$root/part-a"
sleep 0.05 9>&-
if grep -qsx $$ "$root/left-behind" 9>&-; then sleep 1 9>&-; fi
if [ "$generation $(cat "$root/defect")" = "2 switch fails" ]; then exit 1; fi
echo $generation > "$root/part-b"
`;

/** Passes with release 1, and with release 2 unless that is unhealthy. */
const HEALTH_CHECK = 'test "$(cat "$0/part-b" "$0/defect" | tr "\\n" " ")" != "2 unhealthy "';

export interface HostOptions {
  readonly mode: ActivationMode;
  readonly defect: Defect;
}

/** All that a host is, as it lies on its disk. */
export interface Observed {
  readonly profile: string | null;
  readonly running: string | null;
  readonly bootDefault: string | null;
  /** Generations of the two things that an activation changes. */
  readonly parts: readonly string[];
  readonly roots: Readonly<Record<string, string>>;
  /** What the directory of roots of a begun import holds; null without one. */
  readonly importedRoots: readonly string[] | null;
  readonly staging: readonly string[];
  /** Durable writes whose flushes were not in their order. */
  readonly misordered: readonly string[];
  /** Names in the state directory. */
  readonly files: readonly string[];
  /** Null where it is missing or damaged. */
  readonly record: AgentRecord | null;
  readonly trust: TrustMemories | null;
  /** What is wrong with the files of these two. */
  readonly damage: readonly string[];
  /** Every line that is whole, parsed. */
  readonly history: readonly { readonly event: string; readonly state: string }[];
  /** Switches that changed something. */
  readonly switches: readonly string[];
}

/** A host in a directory of its own: store, profile, state, all below one root. */
export interface SimulatedHost {
  readonly root: string;
  readonly state: string;
  /** The configuration file with which it follows a mirror. */
  configFor(mirror: "old" | "new"): string;
  /** Runs `nixos-pull COMMAND` of the shipped or another bundle; with `crash`, under crash-points.mjs. */
  run(
    command: string,
    options?: {
      mirror?: "old" | "new";
      crash?: Readonly<Record<string, string>>;
      bundle?: string;
    },
  ): Promise<ProcessResult>;
  observe(): Promise<Observed>;
  /** Waits for the end of programs that outlived their agent. */
  settle(): Promise<void>;
  remove(): Promise<void>;
}

/** A copy of a template, or a host without any system. */
export async function createSimulatedHost(
  world: World,
  template: "old" | "new" | null,
  { mode, defect }: HostOptions = { mode: "switch", defect: "none" },
): Promise<SimulatedHost> {
  const root = await mkdtemp(join(world.directory, "host-"));
  const state = join(root, "state");
  const profiles = join(root, "nix/var/nix/profiles");
  const gcRoots = join(root, "nix/var/nix/gcroots/nixos-pull");
  if (template === null) await mkdir(join(root, "nix"));
  else await runTool("cp", "-a", "--reflink=auto", `${world.templates[template]}/.`, root);
  await writeFile(join(root, "switch-hook"), SWITCH_HOOK);
  await writeFile(join(root, "switch-usage"), "check: run pre-switch checks and exit\n");
  await writeFile(join(root, "defect"), `${defect}\n`);
  const configFor = (mirror: "old" | "new"): string => join(root, `config-${mirror}.json`);
  for (const mirror of ["old", "new"] as const) {
    const check = { kind: "command", name: "parts", command: ["sh", "-c", HEALTH_CHECK, root] };
    const config = {
      hostname: "web1",
      store: `local?root=${root}`,
      mirrors: [world.mirrors[mirror]],
      publicKeys: [world.publicKey],
      activation: { mode },
      health: { settle: "0s", timeout: "1s", interval: "5s", checks: [check] },
      limits: { reserveBytes: 0 },
      log: { format: "text" },
      paths: {
        state,
        profile: join(profiles, "system"),
        gcRoots,
        currentSystem: join(root, "run/current-system"),
      },
    };
    await writeFile(configFor(mirror), JSON.stringify(config));
  }
  const read = async (name: string): Promise<string | null> =>
    readFile(join(root, name), "utf8").then(
      (text) => text.trim(),
      () => null,
    );
  const lines = async (name: string): Promise<string[]> =>
    ((await read(name)) ?? "").split("\n").filter((line) => line !== "");
  const link = (path: string): Promise<string | null> => readlink(path).catch(() => null);
  const names = (directory: string): Promise<string[]> => readdir(directory).catch(() => []);

  const host: SimulatedHost = {
    root,
    state,
    configFor,
    run: (command, { mirror = "new", crash, bundle } = {}) =>
      runAgent(
        [command, "--json", "--config", configFor(mirror)],
        crash === undefined ? null : { CRASH_ROOT: root, CRASH_STATE: state, ...crash },
        bundle,
      ),
    async observe() {
      const generation = await link(join(profiles, "system"));
      const linksIn = async (directory: string): Promise<Record<string, string>> => {
        const links = (await names(directory)).map(
          async (name) => [name, (await link(join(directory, name))) ?? "no link"] as const,
        );
        return Object.fromEntries(await Promise.all(links));
      };
      const { [IMPORTED_ROOTS]: imported, ...roots } = await linksIn(gcRoots);
      const [record, trust] = await Promise.all([
        readChecked(join(state, "state.json"), savedRecordSchema),
        readChecked(join(state, "trust.json"), trustMemoriesSchema),
      ]);
      return {
        profile: generation === null ? null : await link(join(profiles, generation)),
        running: await link(join(root, "run/current-system")),
        bootDefault: await read("boot-default"),
        parts: [(await read("part-a")) ?? "", (await read("part-b")) ?? ""],
        roots,
        importedRoots:
          imported === undefined
            ? null
            : Object.values(await linksIn(join(gcRoots, IMPORTED_ROOTS))),
        misordered: await lines("durable-order"),
        staging: await names(join(state, "staging")),
        files: await names(state),
        record: record.kind === "read" ? record.value : null,
        trust: trust.kind === "read" ? trust.value : null,
        damage: [record, trust].flatMap((part) => (part.kind === "damaged" ? [part.why] : [])),
        history: (await lines("state/history.jsonl")).flatMap((line) => {
          try {
            return [JSON.parse(line) as { event: string; state: string }];
          } catch {
            return [];
          }
        }),
        switches: (await lines("switch.log")).filter((line) => /^(switch|boot|test) /.test(line)),
      };
    },
    async settle() {
      for (const pid of await lines("left-behind")) {
        while (isAlive(Number(pid))) await sleep(20);
      }
    },
    async remove() {
      await host.settle();
      await removeTree(root);
    },
  };
  return host;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
