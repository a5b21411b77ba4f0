import { expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import { rollBackByHand } from "../../../../agent/host/roll-back.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { MemoryHost, system, type SwitchOutcome } from "../../../support/memory-host.ts";
import { sampleHost } from "../../../support/sample-release.ts";

const PATIENT = { insistence: "patient" } as const;
const often = (outcome: SwitchOutcome): SwitchOutcome[] => Array.from({ length: 9 }, () => outcome);

/** A host on which a person went back from release 7 to system 1, and failed. */
async function revertingHost(outcome: SwitchOutcome): Promise<MemoryHost> {
  const host = new MemoryHost();
  host.publish({ sequence: 7, system: "2" });
  await tick(host.tools, PATIENT);
  host.nextSwitch("switch 1", ...often(outcome));
  await rejectionOf(rollBackByHand(host.tools, null));
  return host;
}

test("a rollback by hand whose live switch crashes each time ends in a boot", async () => {
  const host = await revertingHost({ exitCode: 101, facts: { panicked: true } });
  await tick(host.tools, PATIENT);
  expect(host.record?.state).toMatchObject({ name: "Reverting", failures: 2 });
  await tick(host.tools, PATIENT);
  expect(host.record?.state).toEqual({ name: "Idle" });
  expect([host.profile, host.bootDefault]).toEqual([system("1"), system("1")]);
  expect(host.history.find(({ event }) => event === "RevertSucceeded")?.message).toBe(
    `${system("1")} takes effect with a reboot; the live switch failed: it crashed`,
  );
});

/** A rollback by hand that fails, live and by a boot, until another release is tried. */
async function barredHost(): Promise<MemoryHost> {
  const host = await revertingHost({ exitCode: 17 });
  host.nextSwitch("boot 1", ...often({ exitCode: 1 }));
  await tick(host.tools, PATIENT);
  host.publish({ sequence: 8, system: "3" });
  host.fetchErrors.push(new PullError("MIRROR_UNREACHABLE", "gone"));
  await tick(host.tools, PATIENT);
  expect(host.record).toMatchObject({
    state: { name: "Failed", release: { sequence: 8 } },
    unfinishedRevert: { name: "Reverting", target: { toplevel: system("1") } },
  });
  return host;
}

test("a rollback by hand that is barred goes on if the release after it is withdrawn", async () => {
  const host = await barredHost();
  host.publish({ sequence: 9, system: "3", hosts: { other: sampleHost() } });
  await tick(host.tools, PATIENT);
  expect(host.record?.state).toMatchObject({ name: "Reverting", failures: 0 });
  expect(host.roots.get("chosen")).toBe(system("1"));
  host.switches.clear();
  await tick(host.tools, PATIENT);
  expect(host.running).toBe(system("1"));
  expect(host.record?.state).toEqual({ name: "Idle" });
  expect(host.record).not.toHaveProperty("unfinishedRevert");
  expect(host.roots.has("chosen")).toBe(false);
});

test("a rollback by hand that is barred is owed no more once another release is healthy", async () => {
  const host = await barredHost();
  await tick(host.tools, { insistence: "retry" });
  expect(host.record?.committed).toMatchObject({ sequence: 8 });
  expect(host.record).not.toHaveProperty("unfinishedRevert");
  expect(host.roots.has("chosen")).toBe(false);
});

test("another release that fails goes back to what the person chose", async () => {
  const host = await barredHost();
  host.switches.clear();
  host.nextSwitch("test 3", { exitCode: 17, moves: true });
  await tick(host.tools, { insistence: "retry" });
  expect([host.running, host.profile, host.bootDefault]).toEqual([
    system("1"),
    system("1"),
    system("1"),
  ]);
  expect(host.record?.denied.map(({ toplevel }) => toplevel)).toEqual([system("2"), system("3")]);
});
