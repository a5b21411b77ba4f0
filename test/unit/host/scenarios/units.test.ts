import { describe, expect, test } from "vitest";
import type { AgentTools } from "../../../../agent/host/agent-tools.ts";
import type { UnitState } from "../../../../agent/core/update/unit-states.ts";
import { rollBackByHand } from "../../../../agent/host/roll-back.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;

interface Units {
  /** Active before the switch. */
  readonly active?: readonly string[];
  /** Inactive whenever systemd is asked, until somebody starts them. */
  readonly inactive?: readonly string[];
  /** Those of them that do not start. */
  readonly stubborn?: readonly string[];
}

function inactive(unit: string): UnitState {
  return {
    ...{ unit, load: "loaded", active: "inactive", type: "simple", result: "success" },
    ...{ conditionMet: true, onDemand: false, remains: false },
  };
}

/** A host whose systemd knows these units; a release 7 with system 2 is there. */
function hostWith(units: Units, config: object = {}) {
  const host = new MemoryHost(config);
  host.publish({ sequence: 7, system: "2" });
  const { active = [], stubborn = [] } = units;
  let missing = [...(units.inactive ?? [])];
  const asked: string[][] = [];
  const services: AgentTools["services"] = {
    ...host.tools.services,
    activeUnits: async () => [...active],
    unitStates: async (names) => {
      asked.push([...names]);
      return missing.map(inactive);
    },
    startUnits: async (names) => {
      host.call(`start units ${names.join(" ")}`);
      missing = missing.filter((unit) => stubborn.includes(unit));
    },
  };
  return { host, asked, tools: { ...host.tools, services } };
}

const troubles = (...failed: string[]) => ({ failed, restarts: new Map<string, number>() });

describe("a switch with failed jobs", () => {
  const failedJobs = { exitCode: 4, facts: { failedJobs: ["web.service"] } };

  test("is left if its units are not there afterwards", async () => {
    const { host, asked, tools } = hostWith({
      active: ["db.service", "web.service", "session-1.scope"],
      inactive: ["web.service", "db.service"],
    });
    host.nextSwitch("test 2", failedJobs);
    const { error } = await tick(tools, PATIENT);
    expect([error?.code, error?.message]).toEqual([
      "HEALTH_FAILED",
      "units did not start: db.service, web.service",
    ]);
    // Each once, and none that is a session's.
    expect(asked[0]).toEqual(["web.service", "db.service"]);
    expect(host.record?.denied).toHaveLength(1);
  });

  test("is not to blame for what had failed before", async () => {
    const { host, tools } = hostWith({ inactive: ["web.service"] });
    host.units = troubles("web.service");
    host.nextSwitch("test 2", failedJobs);
    expect(await tick(tools, PATIENT)).toMatchObject({ updated: true, error: null });
  });

  test("passes with units that come up all the same, and with those that do not count", async () => {
    const up = hostWith({});
    up.host.nextSwitch("test 2", failedJobs);
    expect((await tick(up.tools, PATIENT)).error).toBeNull();
    const config = { health: { settle: "0s", ignoreUnits: ["w*.service"] } };
    const ignored = hostWith({ inactive: ["web.service"] }, config);
    ignored.host.nextSwitch("test 2", failedJobs);
    expect((await tick(ignored.tools, PATIENT)).error).toBeNull();
  });

  test("that nobody names is judged by what was active before", async () => {
    const { host, tools } = hostWith({ active: ["db.service"], inactive: ["db.service"] });
    host.nextSwitch("test 2", { exitCode: 4 });
    const { error } = await tick(tools, PATIENT);
    expect(error?.message).toBe("units did not start: db.service");
  });

  test.each([
    { failedUnits: ["old.service"] },
    { failedUsers: ["alice"] },
    { failedUnits: ["old.service"], failedSnippets: [{ name: "known", code: 1 }] },
  ])("but not if something else explains its exit code: %o", async (facts) => {
    const { host, asked, tools } = hostWith({ active: ["db.service"], inactive: ["db.service"] });
    host.nextSwitch("test 2", { exitCode: 4, facts });
    expect((await tick(tools, PATIENT)).error).toBeNull();
    expect(asked).toEqual([]);
  });

  test("and without any, inactive units are as the release wants them", async () => {
    const { asked, tools } = hostWith({ active: ["db.service"], inactive: ["db.service"] });
    expect((await tick(tools, PATIENT)).error).toBeNull();
    expect(asked).toEqual([]);
  });
});

describe("units that do not count", () => {
  test("may fail and restart", async () => {
    const host = new MemoryHost({ health: { settle: "0s", ignoreUnits: ["flaky@*.service"] } });
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", {
      exitCode: 0,
      meanwhile: () => {
        host.units = troubles("flaky@1.service");
      },
    });
    expect((await tick(host.tools, PATIENT)).error).toBeNull();
  });
});

describe("a unit that fails in the new system", () => {
  /** Release 7 with a unit that fails, defined in both systems like this. */
  async function failing(before: string | null, after: string | null) {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", {
      exitCode: 0,
      meanwhile: () => {
        host.units = troubles("web.service");
      },
    });
    const unitDefinition = async (toplevel: string, unit: string) => {
      expect(unit).toBe("web.service");
      return toplevel === system("1") ? before : after;
    };
    const systems = { ...host.tools.systems, unitDefinition };
    const { error } = await tick({ ...host.tools, systems }, PATIENT);
    return { host, code: error?.code, message: error?.message };
  }

  test("and is defined as before may fail for another reason", async () => {
    const { host, code, message } = await failing("same", "same");
    expect([code, message]).toEqual([
      "HEALTH_UNBLAMED",
      "units failed: web.service; the release did not change them, so it is tried again",
    ]);
    expect(host.record).toMatchObject({ state: { name: "Failed", attempts: 1 }, denied: [] });
  });

  test.each([
    ["old", "new"],
    [null, "new"],
    ["old", null],
    [null, null],
  ])("and was defined as %s and is as %s speaks against the system", async (before, after) => {
    const { host, code } = await failing(before, after);
    expect(code).toBe("HEALTH_FAILED");
    expect(host.record?.denied).toMatchObject([{ toplevel: system("2") }]);
  });
});

describe("a way back", () => {
  /** What a host does on the way back from a system whose activation fails. */
  async function wentBack(units: Units) {
    const { host, tools } = hostWith(units);
    host.nextSwitch("test 2", { exitCode: null, timedOut: true });
    await tick(tools, PATIENT);
    return host;
  }

  test("starts the units again that were active before", async () => {
    const host = await wentBack({
      active: ["web@b.service", "web@a.service", "session-1.scope"],
      inactive: ["web@b.service", "web@a.service"],
    });
    expect(host.takeCalls()).toContain("start units web@a.service web@b.service");
    expect(host.logged).toContain(
      "info: starting units that were active before: web@a.service, web@b.service",
    );
    expect(host.history.find(({ event }) => event === "RollbackSucceeded")).not.toHaveProperty(
      "message",
    );
  });

  test("says which of them do not come back", async () => {
    const host = await wentBack({
      ...{ active: ["a.service", "b.service"], inactive: ["a.service", "b.service"] },
      stubborn: ["b.service"],
    });
    expect(host.logged).toContain("warn: way back: not active as before: b.service");
    expect(host.history.find(({ event }) => event === "RollbackSucceeded")).toMatchObject({
      message: "not active as before: b.service",
    });
  });

  test("starts nothing if everything is active, or nothing was", async () => {
    for (const units of [{ active: ["a.service"] }, { inactive: ["a.service"] }]) {
      const host = await wentBack(units);
      expect(host.takeCalls().filter((call) => call.startsWith("start units"))).toEqual([]);
    }
  });
});

describe("switch inhibitors that differ", () => {
  function hostWithInhibitors() {
    const host = new MemoryHost({ reboot: { policy: "never" } });
    host.publish({ sequence: 7, system: "2" });
    const inhibitors = async (toplevel: string) =>
      new Map([["dbus", toplevel === system("1") ? "dbus" : "broker"]]);
    const systems = { ...host.tools.systems, inhibitors };
    return { host, tools: { ...host.tools, systems } };
  }

  test("lead back by a boot", async () => {
    const { host, tools } = hostWithInhibitors();
    host.nextSwitch("test 2", {
      exitCode: 0,
      meanwhile: () => {
        host.units = troubles("web.service");
      },
    });
    await tick(tools, PATIENT);
    const calls = host.takeCalls();
    expect(calls).toContain("reboot");
    expect(calls.filter((call) => /^(switch|test|boot) 1$/.test(call))).not.toContain("switch 1");
    expect(host.logged).toContain(
      "warn: way back: a switch inhibitor differs, so that a boot leads back to 1",
    );
  });

  test("have a person's rollback wait for a boot", async () => {
    const { host, tools } = hostWithInhibitors();
    await tick(tools, PATIENT);
    host.takeCalls();
    await rollBackByHand(tools, null);
    expect(host.takeCalls()).toContain("boot 1");
    expect(host.logged.at(-1)).toBe("warn: 1 takes effect with a reboot");
    expect(host.history.at(-1)).toMatchObject({
      ...{ event: "RevertSucceeded", message: `${system("1")} takes effect with a reboot` },
    });
  });
});

describe("a boot loader's directory without room", () => {
  test("keeps a release from being begun", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.missingBootSpace = { directory: "/boot", needed: 60, free: 50 };
    const { error } = await tick(host.tools, PATIENT);
    expect([error?.code, error?.message]).toEqual([
      "DISK_FULL",
      "/boot: expected 60 bytes free for a kernel and initrd, found 50",
    ]);
    expect(host.record).toMatchObject({ state: { name: "Failed", attempts: 1 }, denied: [] });
    expect(host.takeCalls()).not.toContain("test 2");
  });
});
