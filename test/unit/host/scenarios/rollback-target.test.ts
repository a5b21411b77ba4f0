import { describe, expect, test } from "vitest";
import { rollBackByHand } from "../../../../agent/host/roll-back.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";
import { sampleHost } from "../../../support/sample-release.ts";

const PATIENT = { insistence: "patient" } as const;
const ZERO = system("0");
const ONE = system("1");
const TWO = system("2");
const OTHERS = system("9");

/** A host with systems 0 and 1 that was given 1 by release 6. System 2 has another kernel. */
async function provenHost(cannotTry: string | null, config: object = {}): Promise<MemoryHost> {
  const host = new MemoryHost(config);
  host.cannotTry = cannotTry;
  host.kernels.set(TWO, "linux 2");
  host.valid.add(ZERO);
  host.generations.clear();
  host.generations.set(1, ZERO);
  host.generations.set(2, ONE);
  host.generation = 2;
  host.publish({ sequence: 6, system: "1" });
  await tick(host.tools, PATIENT);
  return host;
}

/** That host while it waits for the boot of release 7. */
async function waitingHost(
  cannotTry: string | null,
  mode: "boot" | "switch" = "boot",
): Promise<MemoryHost> {
  const host = await provenHost(cannotTry);
  host.publish({ sequence: 7, system: "2", mode });
  await tick(host.tools, PATIENT);
  host.takeCalls();
  return host;
}

/** A person's `nixos-rebuild switch` to system 9. */
function switchByHand(host: MemoryHost): void {
  const next = Math.max(0, ...host.generations.keys()) + 1;
  host.valid.add(OTHERS);
  host.generations.set(next, OTHERS);
  host.generation = next;
  host.bootDefault = OTHERS;
  host.running = OTHERS;
}

/** The host is in no release any more. */
async function withdraw(host: MemoryHost): Promise<void> {
  host.publish({ sequence: 8, system: "3", hosts: { other: sampleHost() } });
  await tick(host.tools, PATIENT);
}

describe("a rollback passes over a system that nothing has proven", () => {
  test.each([
    ["that is tried", null, "boot 1"],
    ["that cannot be tried", "no loader", "boot 2"],
  ])("%s, below what a person switched to meanwhile", async (_, cannotTry, run) => {
    const host = await provenHost(cannotTry);
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    host.nextSwitch(run, {
      exitCode: 0,
      meanwhile: () => {
        switchByHand(host);
      },
    });
    await tick(host.tools, PATIENT);
    expect((await rollBackByHand(host.tools, null)).toplevel).toBe(ONE);
  });

  test("whose trial was called off after a person's switch", async () => {
    const host = await waitingHost(null);
    switchByHand(host);
    await withdraw(host);
    expect((await rollBackByHand(host.tools, null)).toplevel).toBe(ONE);
  });

  test("whose way back made a new generation, since the old one was deleted", async () => {
    const host = await provenHost("no loader");
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    const meanwhile = (): unknown => host.generations.delete(2);
    host.nextSwitch("boot 2", { exitCode: null, meanwhile });
    await tick(host.tools, PATIENT);
    expect([...host.generations.values()]).toEqual([ZERO, ONE]);
  });

  test("whose boot was called off, after the old generation was deleted", async () => {
    const host = await waitingHost("no loader");
    host.generations.delete(2);
    await withdraw(host);
    expect(host.profile).toBe(ONE);
    expect((await rollBackByHand(host.tools, null)).toplevel).toBe(ZERO);
    expect(host.record?.committed).toBeNull();
  });

  test("and says so if there is no other, and how to go there all the same", async () => {
    const host = await provenHost(null);
    host.generations.delete(1);
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    host.boot();
    await tick(host.tools, PATIENT);
    await rollBackByHand(host.tools, null);
    host.generations.delete(2);
    switchByHand(host);
    host.roots.set("previous", TWO);
    const error = await rejectionOf(rollBackByHand(host.tools, null));
    expect(error.code).toBe("NOTHING_TO_ROLL_BACK");
    expect(error.message).toBe(
      "the system profile has no generation before the current one but of systems that failed " +
        `here, that a person left, or that no boot has proven: ${TWO}; ` +
        '"nixos-pull rollback --generation N" goes to one all the same',
    );
    expect((await rollBackByHand(host.tools, 3)).toplevel).toBe(TWO);
  });
});

describe("a rollback leaves what the agent put beside the profile", () => {
  test.each(["boot", "switch"] as const)(
    "which waits for its trial in the mode %s, whatever generation is asked for",
    async (mode) => {
      const host = await waitingHost(null, mode);
      await rollBackByHand(host.tools, 1);
      expect(host.record?.denied.map(({ toplevel }) => toplevel)).toEqual([TWO]);
      await tick(host.tools, PATIENT);
      expect([host.profile, host.oneShot]).toEqual([ZERO, null]);
      expect(host.record?.pendingReboot).toBeNull();
    },
  );

  test("which waits for its trial, also for the current generation by its number", async () => {
    const host = await waitingHost(null, "switch");
    await rollBackByHand(host.tools, 2);
    expect([host.profile, host.running, host.oneShot]).toEqual([ONE, ONE, null]);
    expect(host.record?.denied.map(({ toplevel }) => toplevel)).toEqual([TWO]);
    expect(host.record?.committed).toMatchObject({ sequence: 6 });
  });

  test("which waits for its trial: a power cut meanwhile does not start it", async () => {
    const host = await waitingHost(null, "switch");
    host.fault("switch 1", "INTERRUPTED");
    await rejectionOf(rollBackByHand(host.tools, null));
    host.boot();
    expect(host.booted).toBe(ONE);
  });

  test("which failed and runs until the boot that leads back; that is still owed", async () => {
    const host = await waitingHost(null);
    host.boot();
    host.failedInBoot = [{ name: "s", code: 1 }];
    await tick(host.tools, PATIENT);
    expect(await rollBackByHand(host.tools, null)).toMatchObject({
      ...{ toplevel: ONE, generation: 2, needsReboot: true },
    });
    expect(host.record?.denied.map(({ toplevel }) => toplevel)).toEqual([TWO]);
    expect(host.record?.pendingReboot).toMatchObject({ wayBack: true });
  });

  test.each(["keep", "revert"])("which runs in the mode test, drift %s", async (drift) => {
    const host = await provenHost(null, { drift });
    host.publish({ sequence: 7, system: "2", mode: "test" });
    await tick(host.tools, PATIENT);
    await rollBackByHand(host.tools, null);
    expect(host.record?.denied.map(({ toplevel }) => toplevel)).toEqual([TWO]);
    await tick(host.tools, PATIENT);
    expect([host.profile, host.running]).toEqual([ONE, ONE]);
    expect(host.record?.committed).toMatchObject({ sequence: 6 });
  });
});

test("a rollback to another kernel says that it takes a reboot, and leaves that to the person", async () => {
  const host = await waitingHost(null);
  host.boot();
  await tick(host.tools, PATIENT);
  expect((await rollBackByHand(host.tools, null)).needsReboot).toBe(true);
  expect(host.history.at(-1)?.message).toBe(`${ONE} takes full effect with a reboot`);
  host.takeCalls();
  await tick(host.tools, PATIENT);
  expect(host.takeCalls()).not.toContain("reboot");
});

test("a rollback to a generation by its number goes on although the way back is barred", async () => {
  const host = await provenHost(null);
  host.publish({ sequence: 7, system: "2" });
  host.nextSwitch("test 2", { exitCode: 17, moves: true });
  const fails = Array.from({ length: 20 }, () => ({ exitCode: 1 }));
  host.nextSwitch("switch 1", ...fails);
  host.nextSwitch("boot 1", ...fails);
  for (let ticks = 0; ticks < 4; ticks++) await tick(host.tools, PATIENT);
  expect(host.record?.state).toMatchObject({ name: "RollingBack" });
  expect((await rejectionOf(rollBackByHand(host.tools, null))).code).toBe("ROLLBACK_FAILED");
  await rollBackByHand(host.tools, 1);
  expect([host.profile, host.running]).toEqual([ZERO, ZERO]);
  expect(host.record?.denied.map(({ toplevel }) => toplevel)).toEqual([TWO]);
});
