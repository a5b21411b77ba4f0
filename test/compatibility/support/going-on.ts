import { join } from "node:path";
import { expect } from "vitest";
import type { ProcessResult } from "../../../agent/effects/process/subprocess.ts";
import type { Answer } from "../../support/answer.ts";
import type { SimulatedHost } from "../../kill/support/simulated-host.ts";
import { valueIn, type Pair, type Version } from "./world.ts";

/** After so many applies a host is at rest, the last one having found nothing to do. */
const MAX_APPLIES = 3;

/** What no version may say of another's files. */
const ALARM = /STATE_(CORRUPT|LOST|UNKNOWN)|INTERNAL|damaged/;

/** Applies with a version until nothing is to be done; gives what the last one answered. */
export async function applyUntilDone(
  host: SimulatedHost,
  { bundle }: Version,
): Promise<{ readonly exitCode: number | null; readonly answer: Answer }> {
  let result: ProcessResult | null = null;
  for (let applies = 0; applies < MAX_APPLIES; applies++) {
    result = await host.run("apply", { bundle });
    expect(result.stderr).not.toMatch(ALARM);
    expect([0, 8], result.stderr).toContain(result.exitCode);
    await host.settle();
    const answer = JSON.parse(result.stdout) as Answer;
    const isDone = answer.decision === "active" || answer.decision === "denied";
    if (!answer.updated && answer.state.name === "Idle" && isDone) {
      return { exitCode: result.exitCode, answer };
    }
  }
  throw new Error(`not at rest after ${MAX_APPLIES} times apply: ${result?.stdout}`);
}

/** Expects that a host is release 2, or release 1 and denies the other; both versions say so. */
export async function expectEnd(
  host: SimulatedHost,
  { from, to, systems }: Pair,
  end: "new" | "denied",
): Promise<void> {
  const toplevel = end === "new" ? systems.new : systems.old;
  for (const version of [to, from]) {
    const { exitCode } = await applyUntilDone(host, version);
    expect(exitCode).toBe(end === "new" ? 0 : 8);
    const { profile, running, bootDefault, staging } = await host.observe();
    expect({ profile, running, bootDefault, staging }).toEqual({
      ...{ profile: toplevel, running: toplevel, bootDefault: toplevel, staging: [] },
    });
    const record = await valueIn(join(host.state, "state.json"));
    expect(record).toMatchObject({
      state: { name: "Idle" },
      trust: [{ channel: "stable", sequence: 2 }],
      denied: end === "new" ? [] : [{ toplevel: systems.new }],
      ...(end === "new" && { committed: { toplevel, sequence: 2 } }),
    });
    // What the later version wrote is there still, whoever wrote last.
    if (from.name === "later") await expectLaterKeys(host);
  }
}

/** Expects the later version's keys in the files that it wrote, wherever the other one left them. */
export async function expectLaterKeys(host: SimulatedHost): Promise<void> {
  const record = await valueIn(join(host.state, "state.json"));
  expect(record).toHaveProperty("later");
  expect(record).toHaveProperty("trust.0.later");
  expect(await valueIn(join(host.state, "trust.json"))).toHaveProperty("0.later");
  expect(await valueIn(join(host.state, "counters.json"))).toHaveProperty("later");
}
