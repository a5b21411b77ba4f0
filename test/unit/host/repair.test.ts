import { describe, expect, test } from "vitest";
import { PullError } from "../../../agent/core/errors.ts";
import { check } from "../../../agent/host/check.ts";
import { repairStore } from "../../../agent/host/repair.ts";
import { readStatus } from "../../../agent/host/report/host-status.ts";
import { tick } from "../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;

/** A host that runs system 2, after system 1. */
async function updated(): Promise<MemoryHost> {
  const host = new MemoryHost();
  host.publish({ sequence: 7, system: "2" });
  await tick(host.tools, PATIENT);
  host.takeCalls();
  return host;
}

const repair = (host: MemoryHost, dryRun = false) => repairStore(host.tools, { dryRun });

describe("what is damaged of a host's systems", () => {
  test("is brought back from the release that it runs, and told in the history", async () => {
    const host = await updated();
    host.damaged.add(system("2"));
    expect(await repair(host)).toEqual({
      verified: 2,
      damaged: [
        {
          ...{ path: system("2"), kind: "damaged", inUse: true, repaired: true },
          neededBy: ["running", "boot default", "release"],
          files: ["etc/file"],
        },
      ],
      error: null,
    });
    // All is read without the lock; under it, what was found is looked at once more.
    expect(host.takeCalls().filter((call) => !call.startsWith("ask"))).toEqual([
      ...["verify 2 1", "verify 2, locked", "repair from 2", "verify 2, locked"],
    ]);
    expect(host.history.at(-1)).toMatchObject({
      event: "StoreRepaired",
      state: "Idle",
      message: "brought back 1 of 1 damaged store path",
    });
  });

  test("is looked for without a change, and without the lock, in a dry run", async () => {
    const host = await updated();
    host.damaged.add(system("2"));
    host.locked.add("update");
    const { damaged, error } = await repair(host, true);
    expect(damaged).toMatchObject([{ path: system("2"), repaired: false }]);
    expect(error).toMatchObject({ code: "STORE_DAMAGED", exitCode: 7 });
    expect(host.damaged.has(system("2"))).toBe(true);
    const busy = await repair(host);
    expect(busy.damaged).toMatchObject([{ path: system("2"), repaired: false }]);
    expect(busy.error).toMatchObject({ code: "AGENT_BUSY", exitCode: 9 });
    expect(busy.error?.message).toContain("1 store path is damaged or missing, and nothing was");
    expect(host.events).not.toContain("StoreDamaged");
  });

  test("does not keep an update or a deadline waiting while it is looked for", async () => {
    const host = await updated();
    host.damaged.add(system("2"));
    const { repair: port } = host.tools;
    let free: boolean | null = null;
    const watched: typeof port = {
      ...port,
      async damaged(paths, options) {
        const release = await host.tools.locks.take("update");
        free ??= release !== null;
        await release?.();
        return port.damaged(paths, options);
      },
    };
    const { error } = await repairStore({ ...host.tools, repair: watched }, { dryRun: false });
    expect(error).toBeNull();
    expect(free).toBe(true);
  });

  test("is no more if an update mended it before the lock was free", async () => {
    const host = await updated();
    host.damaged.add(system("2"));
    const { repair: port } = host.tools;
    const mended: typeof port = {
      ...port,
      async damaged(paths, options) {
        const found = await port.damaged(paths, options);
        host.damaged.clear();
        return found;
      },
    };
    const outcome = await repairStore({ ...host.tools, repair: mended }, { dryRun: false });
    expect(outcome).toEqual({ verified: 2, damaged: [], error: null });
    expect(host.takeCalls().filter((call) => call.startsWith("repair"))).toEqual([]);
  });

  test("does not keep others away if one of it cannot be had as it must be", async () => {
    const host = await updated();
    host.damaged.add(system("1"));
    host.damaged.add(system("2"));
    host.publish({ sequence: 8, system: "1" });
    host.badNars.set(system("2"), new PullError("ARCHIVE_CORRUPT", "sha256 differs"));
    const { damaged, error } = await repair(host);
    expect(damaged.map(({ path, repaired }) => [path, repaired])).toEqual([
      [system("2"), false],
      [system("1"), true],
    ]);
    expect(error?.message).toBe(
      `1 store path is still damaged or missing: ${system("2")}: ARCHIVE_CORRUPT: sha256 differs; ` +
        "publish this host's system again, or a newer one, and run `nixos-pull repair` again",
    );
  });

  test("stays an alarm until a repair finds all of it whole", async () => {
    const host = await updated();
    const alarms = async () => (await readStatus(host.tools)).alarms;
    host.damaged.add(system("2"));
    host.fetchErrors.push(new PullError("MIRROR_ABSENT", "no stick"));
    for (const mirror of host.mirrors) mirror.down = "MIRROR_ABSENT";
    await repair(host, true);
    expect(await alarms()).toEqual([]);
    await repair(host);
    expect(await alarms()).toMatchObject([
      { code: "STORE_DAMAGED", message: expect.stringContaining("MIRROR_ABSENT: no stick") },
    ]);
    expect((await check(host.tools, { ...PATIENT, signal: undefined })).alarms).toHaveLength(1);
    await host.time.sleep(1_000);
    // Somebody mended it otherwise.
    host.damaged.clear();
    await repair(host);
    expect(await alarms()).toEqual([]);
    expect(host.history.at(-1)).toMatchObject({
      ...{ event: "StoreRepaired", message: "all 2 store paths are whole again" },
    });
  });

  test("is asked for at the mirrors if no release that the host knows has it", async () => {
    const host = await updated();
    host.damaged.add(system("1"));
    host.publish({ sequence: 8, system: "1" });
    expect(await repair(host)).toMatchObject({
      damaged: [{ path: system("1"), inUse: true, repaired: true }],
      error: null,
    });
    expect(host.takeCalls().filter((call) => call.startsWith("repair"))).toEqual([
      ...["repair from 2", "repair from 1"],
    ]);
  });

  test("is left, with what each release said, if none can bring it back", async () => {
    const host = await updated();
    host.damaged.add(system("2"));
    host.fetchErrors.push(new PullError("MIRROR_ABSENT", "no stick"));
    for (const mirror of host.mirrors) mirror.down = "MIRROR_STALLED";
    const { damaged, error } = await repair(host);
    expect(damaged).toMatchObject([{ repaired: false }]);
    expect(error?.message).toMatch(
      /^1 store path is still damaged or missing: MIRROR_ABSENT: no stick; MIRROR_STALLED: .*; run `nixos-pull repair` again once the mirror/,
    );
  });

  test("may be all of it: a system that Nix does not know is missing", async () => {
    const host = await updated();
    host.valid.delete(system("2"));
    expect(await repair(host)).toMatchObject({
      damaged: [{ path: system("2"), kind: "missing", repaired: true }],
      error: null,
    });
  });

  test("is not what is still being fetched", async () => {
    const host = await updated();
    host.publish({ sequence: 8, system: "3" });
    host.fetchErrors.push(new PullError("MIRROR_STALLED", "silent"));
    await tick(host.tools, PATIENT);
    expect(await repair(host)).toEqual({ verified: 2, damaged: [], error: null });
  });
});

test("a system that came and has no switch-to-configuration is verified before it is refused", async () => {
  const host = new MemoryHost();
  host.publish({ sequence: 7, system: "2" });
  host.unswitchable.add(system("2"));
  expect((await tick(host.tools, PATIENT)).error?.code).toBe("NOT_A_SYSTEM");
  expect(host.takeCalls().filter((call) => call.startsWith("fetch 2"))).toEqual([
    ...["fetch 2", "fetch 2, all of it verified"],
  ]);
});
