import { rm, stat, truncate } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { isExpected } from "../../../agent/core/update/machine.ts";
import type { EventType } from "../../../agent/core/update/events.ts";
import type { StateName } from "../../../agent/core/update/states.ts";
import type { ProcessResult } from "../../../agent/effects/process/subprocess.ts";
import type { Answer } from "../../support/answer.ts";
import { runTool } from "./process.ts";
import { createHostFor, type Scenario } from "./scenario.ts";
import type { Observed, SimulatedHost } from "./simulated-host.ts";
import type { World } from "./world.ts";

/** In the state directory; the last one is the record's copy, which a reboot takes too. */
export const LOST_FILES = [
  "state.json",
  "trust.json",
  "history.jsonl",
  "../state.run/state.json",
] as const;
export const LOSSES = ["removed", "cut in half", "emptied"] as const;

/** One run: where the agent is killed, and what else goes wrong. */
export interface Crash {
  readonly scenario: Scenario;
  /** The name of a point. */
  readonly at: string;
  /** What the state directory loses then. */
  readonly loss?: {
    readonly file: (typeof LOST_FILES)[number];
    readonly how: (typeof LOSSES)[number];
  };
  /** The agent that goes on is killed too, at this one of its points. */
  readonly againAt?: number;
  /** Nix collects garbage before anything else happens. */
  readonly collectsGarbage?: boolean;
  /** Before the right mirror is there again, one answers that still has release 1. */
  readonly replays?: boolean;
}

/** After so many applies a host is at rest, the last one having found nothing to do. */
const MAX_APPLIES = 3;
/** What the state directory of a host at rest holds. */
const STATE_FILES = [
  "counters.json",
  "deadline.json",
  "history.jsonl",
  "indexes",
  "manifests.json",
  "poll.json",
  "state.json",
  "trust.json",
  "update.lock",
];

/**
 * Kills an agent as described and sees that the host comes out of it: whole at once,
 * and after further `apply`s the new system, or the old one where the new one is bad.
 * Gives the number of kills.
 */
export async function survive(world: World, crash: Crash): Promise<number> {
  const host = await createHostFor(world, crash.scenario);
  const log: string[] = [];
  const keep = (what: string, result: ProcessResult): ProcessResult => {
    const how = result.signal ?? `exit code ${result.exitCode}`;
    log.push(`${what}: ${how}\n${result.stderr.trimEnd()}`);
    return result;
  };
  try {
    return await surviveOn(host, world, crash, keep);
  } catch (error) {
    const observed = await host.observe();
    const state = JSON.stringify(observed, null, 1).replaceAll("/nix/store/", "");
    throw new Error(`${(error as Error).message}\n\n${log.join("\n\n")}\n\nthe host:\n${state}`, {
      cause: error,
    });
  } finally {
    await host.remove();
  }
}

type Keep = (what: string, result: ProcessResult) => ProcessResult;

async function surviveOn(
  host: SimulatedHost,
  world: World,
  { scenario, at, loss, againAt, collectsGarbage, replays }: Crash,
  keep: Keep,
): Promise<number> {
  let kills = 1;
  const killed = keep(
    `${scenario.command}, killed`,
    await host.run(scenario.command, { crash: { CRASH_AT: at } }),
  );
  expect(killed.signal, "the point was not reached").toBe("SIGKILL");
  expectWhole(await host.observe(), world);
  expect(await host.observe()).toMatchObject({ damage: [], misordered: [] });
  if (collectsGarbage) await collectGarbage(host);
  if (loss) await lose(host, loss);
  let alarms = "";

  if (replays) {
    const before = await host.observe();
    const replayed = keep("apply, release 1", await host.run("apply", { mirror: "old" }));
    alarms += replayed.stderr;
    expectNoDowngrade(before, await host.observe(), world, scenario);
  }
  if (againAt !== undefined) {
    const again = keep(
      "apply, killed",
      await host.run("apply", { crash: { CRASH_INDEX: String(againAt) } }),
    );
    alarms += again.stderr;
    // A recovery that has not so many points came to its end.
    if (again.signal === "SIGKILL") kills++;
    expectWhole(await host.observe(), world);
    if (collectsGarbage) await collectGarbage(host);
  }

  for (let applies = 1; ; applies++) {
    const before = await host.observe();
    const applied = keep("apply", await host.run("apply"));
    alarms += applied.stderr;
    expect([0, 8], applied.stderr).toContain(applied.exitCode);
    const answer = JSON.parse(applied.stdout) as Answer;
    await host.settle();
    const observed = await host.observe();
    // What was begun may have been finished before it found nothing to do.
    const isAtRest = isDone(answer) && observed.switches.length === before.switches.length;
    if (!isAtRest && applies < MAX_APPLIES) continue;
    expectWhole(observed, world);
    expect(observed).toMatchObject({ damage: [], misordered: [] });
    expect(isAtRest, `at rest after ${applies} times apply`).toBe(true);
    expectEnd(observed, answer, applied.exitCode, world, scenario, loss?.file === "state.json");
    // Between a state and its line in the history, a kill loses the line.
    expect(historyGaps(observed)).toBeLessThanOrEqual(kills + (loss ? 1 : 0));
    break;
  }
  if (loss && isNoticeable(loss)) {
    expect(alarms, "the loss raises an alarm").toMatch(/STATE_(LOST|CORRUPT)/);
  }
  return kills;
}

/** Without its copy the record is whole; a history that is shorter may be that of a host that did less. */
function isNoticeable({ file, how }: NonNullable<Crash["loss"]>): boolean {
  return file !== "../state.run/state.json" && (file !== "history.jsonl" || how !== "cut in half");
}

function isDone({ updated, decision, state }: Answer): boolean {
  return !updated && state.name === "Idle" && (decision === "active" || decision === "denied");
}

/** Whatever happens: every place names one of the two systems, and no file is torn. */
function expectWhole(observed: Observed, { systems, closure }: World): void {
  const known: (string | null)[] = [systems.old, systems.new];
  const { profile, running, bootDefault, roots } = observed;
  for (const [what, toplevel] of Object.entries({ profile, running, bootDefault, ...roots })) {
    expect(known, what).toContain(toplevel);
  }
  expect(closure, "roots of the import").toEqual(
    expect.arrayContaining([...(observed.importedRoots ?? [])]),
  );
}

/** What the host is in the end, and that nothing of the way there is left. */
function expectEnd(
  observed: Observed,
  answer: Answer,
  exitCode: number | null,
  { systems }: World,
  { command, mode, defect }: Scenario,
  isStateLost: boolean,
): void {
  const { profile, running, bootDefault, parts, record } = observed;
  const isBad = defect !== "none";
  // A rollback that was not begun was never asked for.
  const isRolledBack = command === "rollback" && profile === systems.old;
  const isDenied = isBad || isRolledBack;
  const end = isDenied ? systems.old : systems.new;
  const setsProfile = mode !== "test";
  const activates = mode !== "boot";
  expect({ profile, running, bootDefault, parts }).toEqual({
    profile: setsProfile ? end : systems.old,
    bootDefault: setsProfile ? end : systems.old,
    running: activates ? end : systems.old,
    parts: activates && !isDenied ? ["2", "2"] : ["1", "1"],
  });
  expect(answer.error).toBeNull();
  expect({ exitCode, decision: answer.decision }).toEqual(
    isDenied ? { exitCode: 8, decision: "denied" } : { exitCode: 0, decision: "active" },
  );
  expect(record?.state).toEqual({ name: "Idle" });
  expect(record?.denied.map(({ toplevel }) => toplevel)).toEqual(isDenied ? [systems.new] : []);
  if (!isDenied) expect(record?.committed?.toplevel).toBe(systems.new);
  else if (isBad && !isStateLost) expect(record?.committed?.toplevel).toBe(systems.old);
  expect(record?.pendingReboot?.release.toplevel).toBe(mode === "boot" ? systems.new : undefined);
  expect(record?.trust.map(({ sequence }) => sequence)).toEqual([2]);
  expect(observed.trust).toEqual(record?.trust);

  const { current, previous, ...others } = observed.roots;
  if (command === "apply")
    expect(current, "root current").toBe(isDenied ? systems.old : systems.new);
  expect([undefined, systems.old], "root previous").toContain(previous);
  expect(others, "other roots").toEqual({});
  expect(observed.importedRoots, "roots of the import").toBeNull();
  expect(observed.staging).toEqual([]);
  // What rolls back a system that does not come up after its boot, until it was booted.
  const files = mode === "boot" ? [...STATE_FILES, "boot-deadline"] : STATE_FILES;
  expect(files).toEqual(expect.arrayContaining([...observed.files]));
  if (mode === "boot") expect(observed.files).toContain("boot-deadline");
}

/** Release 1 came from a mirror: it may be what a host is left with, never what it goes to. */
function expectNoDowngrade(
  before: Observed,
  after: Observed,
  { systems }: World,
  { defect }: Scenario,
): void {
  if (before.record?.committed?.sequence === 2) {
    expect(after.record?.committed?.sequence, "release 1 is committed again").not.toBe(1);
  }
  if (defect === "none" && before.profile === systems.new && before.running === systems.new) {
    expect(after.profile).toBe(systems.new);
  }
}

/** How often an event does not follow from the one before it. */
function historyGaps({ history }: Observed): number {
  let state = "Idle";
  let gaps = 0;
  for (const entry of history) {
    if (
      !/^(ManifestAccepted|StateMended)$/.test(entry.event) &&
      !isExpected(state as StateName, entry.event as EventType)
    ) {
      gaps++;
    }
    state = entry.state;
  }
  return gaps;
}

async function collectGarbage(host: SimulatedHost): Promise<void> {
  await runTool("nix-store", "--gc", "--store", `local?root=${host.root}`);
}

async function lose(host: SimulatedHost, { file, how }: NonNullable<Crash["loss"]>): Promise<void> {
  const path = join(host.state, file);
  const size = await stat(path).then(
    (found) => found.size,
    () => 0,
  );
  if (how === "removed") await rm(path, { force: true });
  else if (size > 0) await truncate(path, how === "emptied" ? 0 : Math.floor(size / 2));
}
