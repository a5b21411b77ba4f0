import { describe, expect, test } from "vitest";
import { failedUpdate } from "../../../../agent/host/report/failed-update.ts";
import { readStatus } from "../../../../agent/host/report/host-status.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;
const CHECK = { kind: "command", command: ["/bin/true"], timeout: "1s" } as const;

/** A host that has switched to system 2, changed as it does so. */
async function examined(
  change: (host: MemoryHost) => void,
  config: object = {},
  checks: string[] = [],
) {
  const host = new MemoryHost(config);
  host.publish({
    ...{ sequence: 7, system: "2" },
    defaults: {
      activation: {
        mode: "switch",
        checks: checks.map((name) => ({ ...CHECK, command: ["/c"], name })),
      },
    },
  });
  host.nextSwitch("test 2", {
    exitCode: 0,
    meanwhile: () => {
      change(host);
    },
  });
  const { error } = await tick(host.tools, PATIENT);
  return { host, code: error?.code, message: error?.message };
}

const troubles = (failed: string[], restarts: [string, number][] = []) => ({
  failed,
  restarts: new Map(restarts),
});

describe("a new system", () => {
  test("with a unit that fails now is left, after the whole time", async () => {
    const { host, code, message } = await examined((it) => {
      it.units = troubles(["web.service", "db.service"]);
    });
    expect([code, message]).toEqual(["HEALTH_FAILED", "units failed: db.service, web.service"]);
    // The settle time of 1 s, and looks every second for 10 s.
    expect(host.time.steadyMs()).toBe(11_000);
    expect(host.logged.filter((line) => line.includes("not healthy yet"))).toHaveLength(10);
    expect(host.logged).toContain(
      "warn: HEALTH_FAILED: not healthy yet: units failed: db.service, web.service",
    );
  });

  test("that comes up a little later is healthy", async () => {
    const { host, code } = await examined((it) => {
      it.units = troubles(["web.service"]);
      void it.time.sleep(4_500).then(() => {
        it.units = troubles([]);
      });
    });
    expect(code).toBeUndefined();
    expect(host.time.steadyMs()).toBe(5_000);
  });

  test("is not to blame for what failed before", async () => {
    const host = new MemoryHost();
    host.units = troubles(["old.service"], [["flaky.service", 4]]);
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", {
      exitCode: 0,
      meanwhile: () => {
        void host.time.sleep(500).then(() => {
          host.units = troubles(["old.service"], [["flaky.service", 9]]);
        });
      },
    });
    expect((await tick(host.tools, PATIENT)).error).toBeNull();
  });

  test("whose units restart all the time is left", async () => {
    const { code, message } = await examined((it) => {
      let count = 0;
      const restart = async (): Promise<void> => {
        while (count < 40) {
          await it.time.sleep(500);
          count += 1;
          it.units = troubles([], [["web.service", count]]);
        }
      };
      void restart();
    });
    expect([code, message]).toEqual(["HEALTH_FAILED", "units keep restarting: web.service"]);
  });

  test("whose units cannot be seen is examined without a settle time", async () => {
    const { host, code } = await examined((it) => {
      it.units = null;
    });
    expect([code, host.time.steadyMs()]).toEqual([undefined, 0]);
  });

  test("that somebody leaves by hand meanwhile is not undone", async () => {
    const { code, message } = await examined((it) => {
      void it.time.sleep(0).then(() => {
        it.running = system("9");
      });
    });
    expect([code, message]).toEqual([
      "CHANGED_BY_HAND",
      `somebody switched to ${system("9")} while release 7 was judged; this host is left as it is`,
    ]);
  });

  test("passes the host's checks and then the release's", async () => {
    const config = { health: { settle: "0s", checks: [{ ...CHECK, name: "mine" }] } };
    const { host, code } = await examined(() => undefined, config, ["theirs"]);
    expect(code).toBeUndefined();
    expect(host.takeCallsFrom("[Verifying]").slice(0, 4)).toEqual([
      "[Verifying]",
      "check mine",
      "check theirs",
      "[Committing]",
    ]);
  });

  test("with a check that fails is left, and later checks are not run", async () => {
    const config = {
      health: { settle: "0s", timeout: "2s", interval: "1s", checks: [{ ...CHECK, name: "mine" }] },
    };
    const { host, code, message } = await examined(
      (it) => {
        it.failing.set("mine", "exit code 1");
        it.printed.set("mine", ["looking", "status: \u001b[31mdegraded"]);
      },
      config,
      ["theirs"],
    );
    expect([code, message]).toEqual(["HEALTH_FAILED", "mine: exit code 1"]);
    const calls = host.takeCalls();
    expect(calls.filter((call) => call === "check mine")).toHaveLength(3);
    expect(calls).not.toContain("check theirs");
    // What it printed is kept, and shown.
    const lastLines = ["looking", "status: \ufffd[31mdegraded"];
    const entry = { event: "ActivationRejected", code: "HEALTH_FAILED", lastLines };
    expect(host.history).toContainEqual(expect.objectContaining(entry));
    const status = await readStatus(host.tools);
    expect(status.lastSwitches).toContainEqual(expect.objectContaining(entry));
    expect(failedUpdate(host.history, null)).toMatchObject({ lastLines });
  });

  test("from which no mirror can be read is left, and not to blame", async () => {
    const { host, code, message } = await examined((it) => {
      const [mirror] = it.mirrors;
      if (mirror) mirror.down = "MIRROR_TLS";
    });
    expect([code, message]).toEqual([
      "HEALTH_MIRROR",
      "no release can be read now: MIRROR_TLS: https://a.example.org/: MIRROR_TLS",
    ]);
    expect(host.record).toMatchObject({ state: { name: "Failed", attempts: 1 }, denied: [] });
  });

  test("is healthy if one mirror answers, however long another one hangs", async () => {
    const config = { mirrors: ["https://a.example.org/", "https://b.example.org/"] };
    const { host, code } = await examined((it) => {
      const [mirror] = it.mirrors;
      if (mirror) mirror.latencyMs = Infinity;
    }, config);
    expect(code).toBeUndefined();
    expect(host.time.steadyMs()).toBeLessThan(5_000);
  });

  test("waits for a mirror that hangs no longer than for its health", async () => {
    const { host, code } = await examined((it) => {
      const [mirror] = it.mirrors;
      if (mirror) mirror.latencyMs = Infinity;
    });
    expect(code).toBe("HEALTH_MIRROR");
    expect(host.time.steadyMs()).toBeLessThan(2 * 60_000);
  });

  test("is not judged by a mirror that shows an old release meanwhile", async () => {
    const { host, code } = await examined((it) => {
      it.publish({ sequence: 6, system: "1" });
    });
    expect(code).toBeUndefined();
    expect(host.record?.committed).toMatchObject({ sequence: 7, toplevel: system("2") });
  });

  test("is tried a few times, and never denied, for a mirror that leaves while it is judged", async () => {
    const host = new MemoryHost();
    const [mirror] = host.mirrors;
    if (!mirror) throw new Error("expected a mirror");
    host.publish({ sequence: 7, system: "2" });
    // Its archives are served, and it answers whenever the old system runs.
    for (let poll = 0; poll < 500; poll++) {
      mirror.down = null;
      host.nextSwitch("test 2", {
        exitCode: 0,
        meanwhile: () => {
          mirror.down = "MIRROR_STATUS";
        },
      });
      host.nextSwitch("test 1", {
        exitCode: 0,
        meanwhile: () => {
          mirror.down = null;
        },
      });
      await tick(host.tools, PATIENT);
      host.time.advance(15 * 60_000);
    }
    expect(host.record).toMatchObject({ denied: [], state: { reason: { code: "HEALTH_MIRROR" } } });
    const switches = host.takeCalls().filter((call) => call.startsWith("test 2"));
    expect(switches.length).toBeLessThanOrEqual(20);
    // The next release, a refresh too, is followed once the mirror behaves.
    host.switches.clear();
    mirror.down = null;
    host.publish({ sequence: 8, system: "2" });
    host.time.advance(24 * 60 * 60_000);
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
  });

  test("needs no mirror if the settings say so", async () => {
    const { code } = await examined(
      (it) => {
        const [mirror] = it.mirrors;
        if (mirror) mirror.down = "MIRROR_TLS";
      },
      { health: { mirror: false } },
    );
    expect(code).toBeUndefined();
  });

  test("after its boot must be what was booted", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    await tick(host.tools, PATIENT);
    host.boot(system("1"));
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({
      denied: [],
      state: { name: "Failed", reason: { code: "BOOT_NOT_TRIED" } },
    });
    expect([host.running, host.profile, host.bootDefault]).toEqual(Array(3).fill(system("1")));
  });
});
