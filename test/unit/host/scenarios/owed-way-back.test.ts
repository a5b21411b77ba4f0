import { expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import { rollBackByHand } from "../../../../agent/host/roll-back.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system, type SwitchOutcome } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;
const [ONE, TWO, THREE] = ["1", "2", "3"].map(system) as [string, string, string];
const LOADER: SwitchOutcome = { exitCode: 1, facts: { begun: true, bootLoaderFailed: true } };

function often(outcome: SwitchOutcome, times: number): SwitchOutcome[] {
  return Array.from({ length: times }, () => outcome);
}

/** A host whose release 7 failed and which cannot get back from it, since /boot cannot be written. */
async function barredHost(failure: SwitchOutcome): Promise<MemoryHost> {
  const host = new MemoryHost();
  host.publish({ sequence: 6, system: "1" });
  await tick(host.tools, PATIENT);
  host.publish({ sequence: 7, system: "2" });
  host.nextSwitch("test 2", failure);
  host.nextSwitch("switch 1", ...often(LOADER, 99));
  host.nextSwitch("boot 1", ...often({ exitCode: 1 }, 99));
  for (let polls = 0; polls < 3; polls++) await tick(host.tools, PATIENT);
  expect(host.record?.state).toMatchObject({ name: "RollingBack", rollbackAttempts: 3 });
  return host;
}

/** Accepts release 8, which no mirror has an archive of, so that the way back is left for it. */
async function leaveForAnother(host: MemoryHost): Promise<void> {
  host.publish({ sequence: 8, system: "3" });
  host.fetchErrors.push(
    ...Array.from({ length: 20 }, () => new PullError("MIRROR_UNREACHABLE", "gone")),
  );
  await tick(host.tools, PATIENT);
  expect(host.record?.state).toMatchObject({ name: "Failed", release: { sequence: 8 } });
}

test("a way back that another release took the place of is tried again with every poll", async () => {
  const host = await barredHost({ exitCode: 17, moves: true });
  await leaveForAnother(host);
  host.takeCalls();
  const failed = await tick(host.tools, PATIENT);
  expect(failed.error?.code).toBe("ROLLBACK_FAILED");
  expect(host.takeCalls()).toEqual(expect.arrayContaining(["switch 1", "boot 1"]));
  // What is under way for the other release waits its time.
  expect(host.record?.state).toMatchObject({ name: "Failed", attempts: 1 });
  expect(host.history.at(-1)).toMatchObject({ event: "RollbackFailed", sequence: 7 });
  host.switches.clear();
  await tick(host.tools, PATIENT);
  expect(host.running).toBe(ONE);
  expect(host.record?.unfinishedWayBack).toBeUndefined();
  expect(host.record?.denied).toMatchObject([{ toplevel: TWO }]);
});

test("no rule delays it", async () => {
  const host = await barredHost({ exitCode: 17, moves: true });
  await leaveForAnother(host);
  host.switches.clear();
  const at = "2026-01-01T00:00:00.000Z";
  host.hold = { kind: "held", hold: { at, until: null, reason: "a freeze" } };
  await tick(host.tools, PATIENT);
  expect(host.running).toBe(ONE);
});

test("a rollback by hand is that way back", async () => {
  const host = await barredHost({ exitCode: 17, moves: true });
  await leaveForAnother(host);
  host.switches.clear();
  expect(await rollBackByHand(host.tools, null)).toMatchObject({ toplevel: ONE });
  expect(host.running).toBe(ONE);
});

test("nor is a rollback by hand forgotten for another release that cannot be had", async () => {
  const host = new MemoryHost();
  host.publish({ sequence: 7, system: "2" });
  await tick(host.tools, PATIENT);
  host.nextSwitch("switch 1", ...often({ exitCode: 17 }, 4));
  host.nextSwitch("boot 1", ...often({ exitCode: 1 }, 4));
  await expect(rollBackByHand(host.tools, null)).rejects.toThrow();
  for (let polls = 0; polls < 2; polls++) await tick(host.tools, PATIENT);
  await leaveForAnother(host);
  host.switches.clear();
  await tick(host.tools, PATIENT);
  expect(host.running).toBe(ONE);
  expect(host.record?.unfinishedRevert).toBeUndefined();
});

test("a way back that ends its agent each time does not keep the host from another release", async () => {
  const host = new MemoryHost();
  host.publish({ sequence: 6, system: "1" });
  await tick(host.tools, PATIENT);
  host.publish({ sequence: 7, system: "2" });
  host.nextSwitch("test 2", { exitCode: 17, moves: true });
  host.fault("switch 1", "INTERRUPTED");
  await tick(host.tools, PATIENT);
  host.publish({ sequence: 8, system: "3" });
  for (let polls = 0; polls < 10; polls++) {
    expect(host.running).toBe(TWO);
    host.fault("switch 1", "INTERRUPTED");
    await tick(host.tools, PATIENT);
  }
  expect(host.running).toBe(THREE);
  expect(host.record?.committed?.toplevel).toBe(THREE);
});
