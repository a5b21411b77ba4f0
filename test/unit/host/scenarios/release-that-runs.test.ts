import { describe, expect, test } from "vitest";
import { makeReport } from "../../../../agent/host/report/host-report.ts";
import { rollBackByHand } from "../../../../agent/host/roll-back.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;

/** A host that was releases 7 to `last`, with the systems 2, 3, … */
async function hostWithReleases(last: number, config: object = {}): Promise<MemoryHost> {
  const host = new MemoryHost(config);
  for (let sequence = 7; sequence <= last; sequence++) {
    host.publish({ sequence, system: `${sequence - 5}` });
    await tick(host.tools, PATIENT);
  }
  return host;
}

async function releaseOf(host: MemoryHost): Promise<number | undefined> {
  const { release } = await makeReport(host.tools);
  if (release) expect(release.toplevel).toBe(host.running);
  return release?.sequence;
}

describe("the release that runs is known", () => {
  test("after a boot that was rejected", async () => {
    const host = await hostWithReleases(7, { reboot: { policy: "now", grace: "0s" } });
    host.publish({ sequence: 8, system: "3", mode: "boot" });
    await tick(host.tools, PATIENT);
    expect((await makeReport(host.tools)).release?.sequence).toBe(8);
    host.boot();
    host.units = { failed: ["web.service"], restarts: new Map() };
    await tick(host.tools, PATIENT);
    expect(host.running).toBe(system("2"));
    expect(await releaseOf(host)).toBe(7);
    expect((await makeReport(host.tools)).failure).toMatchObject({ sequence: 8 });
  });

  test("after a rollback by hand, to and fro", async () => {
    const host = await hostWithReleases(9);
    await rollBackByHand(host.tools, 2);
    expect(await releaseOf(host)).toBe(7);
    await rollBackByHand(host.tools, 4);
    expect(await releaseOf(host)).toBe(9);
    // Release 9 was denied when it was left; nothing takes the host away from it now.
    expect((await tick(host.tools, PATIENT)).updated).toBe(false);
    await rollBackByHand(host.tools, 1);
    expect(await releaseOf(host)).toBeUndefined();
  });

  test("and failures before it was left by hand are told no more", async () => {
    const host = await hostWithReleases(7);
    host.time.advance(1000);
    host.publish({ sequence: 8, system: "3" });
    host.nextSwitch("test 3", { exitCode: 2 });
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 9, system: "4" });
    await tick(host.tools, PATIENT);
    host.time.advance(1000);
    await rollBackByHand(host.tools, null);
    expect(await releaseOf(host)).toBe(7);
    expect(await makeReport(host.tools)).not.toHaveProperty("failure");
  });

  test("by the last release that brought the system, of the last eight", async () => {
    const host = await hostWithReleases(7);
    host.publish({ sequence: 8, system: "2" });
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 9, system: "3" });
    await tick(host.tools, PATIENT);
    expect(host.record?.earlier?.map(({ sequence }) => sequence)).toEqual([8]);
    await rollBackByHand(host.tools, null);
    expect(await releaseOf(host)).toBe(8);
    expect((await hostWithReleases(20)).record?.earlier).toHaveLength(8);
  });
});
