import { describe, expect, test } from "vitest";
import { lastSwitches } from "../../../../agent/host/report/last-switch.ts";
import { makeReport } from "../../../../agent/host/report/host-report.ts";
import { readStatus } from "../../../../agent/host/report/host-status.ts";
import { statusJson, statusSchema } from "../../../../agent/host/report/status-json.ts";
import { render } from "../../../../agent/cli/display/screen.ts";
import { describeStatus } from "../../../../agent/cli/display/status.ts";
import { Times } from "../../../../agent/core/text/times.ts";
import { rollBackByHand } from "../../../../agent/host/roll-back.ts";
import { tick } from "../../../../agent/host/tick.ts";
import type { UnitState } from "../../../../agent/core/update/unit-states.ts";
import { MemoryHost, shortened, system } from "../../../support/memory-host.ts";
import { rejectionOf } from "../../../support/failure.ts";

const PATIENT = { insistence: "patient" } as const;
const AT = "2026-02-01T00:00:00Z";

/** What `status` shows a person, and checks what it prints for machines. */
async function shown(host: MemoryHost): Promise<string> {
  const status = await readStatus(host.tools);
  expect(statusSchema.parse(statusJson(status))).toEqual(
    JSON.parse(JSON.stringify(statusJson(status))),
  );
  const times = new Times({ now: host.time.now(), utc: true });
  const screen = { columns: Infinity, colour: false };
  return shortened(render(describeStatus(status, times, screen), screen));
}

/** The events whose lines `status` has, with the first of the lines. */
async function switches(host: MemoryHost): Promise<string[]> {
  const { switches: found } = await lastSwitches(host.tools.history);
  return found.map(({ event, lastLines }) => `${event}: ${lastLines[0]}`);
}

describe("what a switch printed is shown", () => {
  test("of a success with warnings, and of every run of the last attempt", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", {
      exitCode: 4,
      facts: { failedUnits: ["sick.service"] },
      lines: ["\u001b[31mwarning: the following units failed: sick.service"],
    });
    await tick(host.tools, PATIENT);
    expect(await switches(host)).toEqual([
      "ActivationSucceeded: \u001b[31mwarning: the following units failed: sick.service",
      "BootDefaultSet: boot 2 ran",
    ]);
    const text = await shown(host);
    expect(text).toContain(`switch       ${AT}, release 7: activated: units failed: sick.service`);
    expect(text).toContain("| \ufffd[31mwarning: the following units failed: sick.service");
    expect(text).toContain("| boot 2 ran");
  });

  test("of a dry activation", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2", mode: "dry-activate" });
    host.nextSwitch("dry-activate 2", { exitCode: 0, lines: ["would restart web.service"] });
    await tick(host.tools, PATIENT);
    expect(await switches(host)).toEqual(["ActivationSucceeded: would restart web.service"]);
    expect(await shown(host)).toContain("| would restart web.service");
  });

  test("of the last attempt that had a switch, while another is fetched or fails before", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", { exitCode: 2, lines: ["boom"] });
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 8, system: "3" });
    host.fault("fetch 3", "MIRROR_STALLED", "slow");
    await tick(host.tools, PATIENT);
    const expected = ["ActivationRejected: boom", "RollbackSucceeded: switch 1 ran"];
    expect(await switches(host)).toEqual(expected);
    expect(await shown(host)).toMatch(
      /switch +.*release 7: failed: ACTIVATION_FAILED, as above\n +\| boom/,
    );
  });

  test("no more than says most", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    const lines = Array.from({ length: 40 }, (_, at) => `line ${at}`);
    host.nextSwitch("test 2", {
      exitCode: 4,
      facts: { failedUnits: ["web.service"] },
      lines: ["Failed to start web.service", ...lines],
    });
    await tick(host.tools, PATIENT);
    const text = await shown(host);
    expect(text.split("\n").filter((line) => line.includes("| line "))).toHaveLength(11);
    expect(text).toContain("| Failed to start web.service");
  });

  test("and nothing where nothing was switched", async () => {
    const host = new MemoryHost();
    expect(await lastSwitches(host.tools.history)).toEqual({ switches: [], wayBack: null });
    const text = await shown(host);
    expect(text).toMatch(/release +none applied yet/);
    expect(text).not.toMatch(/^(switch|way back|reboot) /m);
  });
});

describe("a way back that did not restore everything", () => {
  /** A host on which web.service does not start again after a release was left. */
  async function incomplete(): Promise<MemoryHost> {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", { exitCode: 2 });
    const missing: UnitState = {
      ...{ unit: "web.service", load: "loaded", active: "inactive", type: "simple" },
      ...{ result: "success", conditionMet: true, onDemand: false, remains: false },
    };
    const services = {
      ...host.tools.services,
      activeUnits: async () => ["web.service"],
      unitStates: async () => [missing],
    };
    await tick({ ...host.tools, services }, PATIENT);
    return host;
  }

  test("is named in status and report", async () => {
    const host = await incomplete();
    const message = "not active as before: web.service";
    expect(await shown(host)).toContain(`way back     ${AT}, from release 7: ${message}`);
    expect((await makeReport(host.tools)).failure).toMatchObject({ sequence: 7, wayBack: message });
  });

  test("is past once the host is another release", async () => {
    const host = await incomplete();
    host.publish({ sequence: 8, system: "3" });
    host.time.advance(1000);
    await tick(host.tools, PATIENT);
    expect((await readStatus(host.tools)).wayBack).toBeNull();
    expect(await makeReport(host.tools)).not.toHaveProperty("failure");
  });

  test("and one that fails says why", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", { exitCode: 2 });
    host.nextSwitch("switch 1", { exitCode: 17 });
    host.nextSwitch("boot 1", { exitCode: 17 });
    await tick(host.tools, PATIENT);
    const message = "1 boot: it ended with exit code 17";
    const text = await shown(host);
    expect(text).toMatch(
      /last poll +.*: ROLLBACK_FAILED: \w+-web1-1 boot: it ended with exit code 17/,
    );
    expect(text).toContain(`way back     ${AT}, from release 7: FAILED: as above`);
    const { failure } = await makeReport(host.tools);
    expect(shortened(failure?.wayBack ?? "")).toBe(message);
  });

  test("as one by hand does", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    host.nextSwitch("switch 1", { exitCode: 17 });
    expect((await rejectionOf(rollBackByHand(host.tools, null))).code).toBe("ROLLBACK_FAILED");
    expect(await shown(host)).toMatch(
      /way back +\S+Z: FAILED: \w+-web1-1: it ended with exit code 17/,
    );
  });
});

describe("what waits for somebody", () => {
  test("says so, and why, in status and report", async () => {
    const host = new MemoryHost({ activation: { attempts: 1 } });
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", {
      exitCode: 0,
      meanwhile: () => {
        for (const mirror of host.mirrors) mirror.down = "MIRROR_TLS";
      },
    });
    await tick(host.tools, PATIENT);
    const text = await shown(host);
    expect(text).toContain("release 7 failed: HEALTH_MIRROR: no release can be read now");
    expect(text).toContain("it waits for `nixos-pull apply` or another release");
    expect(await makeReport(host.tools)).toMatchObject({
      code: "HEALTH_MIRROR",
      message: expect.stringMatching(
        /^release 7 waits for a person or another release after 1 try: no release can be read/,
      ),
      failure: { gaveUp: true },
    });
  });

  test("is a reboot that a person has to make, for a changed inhibitor", async () => {
    const host = new MemoryHost({ reboot: { policy: "never" } });
    host.publish({ sequence: 7, system: "2" });
    host.checking.add(system("2"));
    const facts = { checksRefused: true, inhibited: true };
    host.nextSwitch("check 2", { exitCode: 1, facts });
    await tick(host.tools, PATIENT);
    const why = "not begun: a switch inhibitor changed, so that it takes a boot";
    expect(await shown(host)).toMatch(
      /^○ REBOOT NEEDED: release 7 waits for it\n {2}Not begun: a switch inhibitor changed, so that it takes a boot.\n {2}Policy never: a person has to make it.\n/,
    );
    expect((await makeReport(host.tools)).pendingReboot).toMatchObject({
      message: `release 7 is complete only after a reboot: ${why}`,
      policy: "never",
    });
  });

  test("is a way back by a boot, which waits for no policy", async () => {
    const host = new MemoryHost({ reboot: { policy: "never" } });
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", { exitCode: 2 });
    host.nextSwitch("switch 1", { exitCode: 100 });
    await tick(host.tools, PATIENT);
    expect(await shown(host)).toMatch(
      /reboot +REBOOT NEEDED: only a boot leads back from release 7/,
    );
  });
});

test("a host that a person took back to a system of no release says so", async () => {
  const host = new MemoryHost();
  host.publish({ sequence: 7, system: "2" });
  await tick(host.tools, PATIENT);
  await rollBackByHand(host.tools, 1);
  expect(await shown(host)).toMatch(/release +none: no release brought the system that runs/);
});
