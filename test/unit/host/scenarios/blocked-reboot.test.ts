import { describe, expect, test } from "vitest";
import { nextOccasion } from "../../../../agent/host/daemon/next-occasion.ts";
import { PullError } from "../../../../agent/core/errors.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;
const LOCK = { fleetLock: { url: "https://locks.example.org/", group: "web" } };

/** A host with a reboot to come, by these settings. */
function hostWith(reboot: object = {}, config: object = {}): MemoryHost {
  const host = new MemoryHost({ reboot: { policy: "now", grace: "1m", ...reboot }, ...config });
  host.kernels.set(system("2"), "linux 2");
  host.publish({ sequence: 7, system: "2", mode: "boot" });
  return host;
}

describe("a reboot that a program inhibits", () => {
  test("waits, names the program, and is no loop", async () => {
    const host = hostWith();
    host.inhibitors = ["backup (dumps the database)"];
    for (let polls = 0; polls < 5; polls++) {
      const { error } = await tick(host.tools, PATIENT);
      expect(error).toMatchObject({
        code: "REBOOT_BLOCKED",
        message: "the reboot for release 7 waits for backup (dumps the database)",
      });
    }
    expect(host.takeCalls()).not.toContain("reboot");
    expect(host.record?.pendingReboot?.requested).toBe(0);
    host.inhibitors = [];
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toEqual(["reboot"]);
    expect(host.forced).toBe(false);
  });

  test("just before it is asked for does not count towards a loop either", async () => {
    const host = hostWith(LOCK);
    const tools = { ...host.tools, services: { ...host.tools.services } };
    tools.services.reboot = async () => {
      host.inhibitors = ["backup"];
      throw new PullError("IO_FAILED", "Operation denied due to active block inhibitor");
    };
    for (let polls = 0; polls < 5; polls++) {
      host.inhibitors = [];
      expect((await tick(tools, PATIENT)).error).toMatchObject({
        code: "REBOOT_BLOCKED",
        message: "the reboot for release 7 waits for backup",
      });
      expect(host.record?.pendingReboot?.requested).toBe(0);
      expect(host.rebootSlot).toBe("free");
    }
    host.inhibitors = [];
    host.takeCalls();
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toEqual(["take reboot slot", "reboot"]);
  });

  test("is refused for another reason: that is told, and does not count", async () => {
    const host = hostWith();
    for (let polls = 0; polls < 5; polls++) {
      host.fault("reboot", "TOOL_TIMEOUT", "logind does not answer");
      expect((await tick(host.tools, PATIENT)).error?.code).toBe("TOOL_TIMEOUT");
    }
    expect(host.record?.pendingReboot?.requested).toBe(0);
  });

  test("is looked at again after five minutes", async () => {
    const host = hostWith();
    host.inhibitors = ["backup"];
    const outcome = await tick(host.tools, PATIENT);
    const now = host.time.now();
    expect(nextOccasion(outcome, host.settings, now)).toBe(now.getTime() + 5 * 60_000);
  });

  test("takes no slot, and gives back the one that it holds if the block begins meanwhile", async () => {
    const host = hostWith(LOCK);
    host.inhibitors = ["backup"];
    await tick(host.tools, PATIENT);
    expect(host.rebootSlot).toBe("free");
    expect(host.takeCalls()).not.toContain("take reboot slot");
    host.inhibitors = [];
    const tools = { ...host.tools, services: { ...host.tools.services } };
    tools.services.warnUsers = async () => {
      host.inhibitors = ["backup"];
    };
    expect((await tick(tools, PATIENT)).error?.code).toBe("REBOOT_BLOCKED");
    expect(host.takeCalls()).toEqual(["take reboot slot", "give reboot slot back"]);
  });

  test("that leads back from a failed system waits for nobody", async () => {
    const host = hostWith();
    await tick(host.tools, PATIENT);
    host.boot();
    host.units = { failed: ["web.service"], restarts: new Map() };
    host.inhibitors = ["backup"];
    host.takeCalls();
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toContain("reboot");
    expect(host.forced).toBe(true);
  });
});

describe("users who are logged in", () => {
  test("are warned and do not keep the host from rebooting", async () => {
    const host = hostWith();
    host.users = ["alice"];
    await tick(host.tools, PATIENT);
    expect(host.warnings).toEqual(["nixos-pull: rebooting for release 7 in 1m"]);
    expect(host.takeCalls()).toContain("reboot");
  });

  test("are waited for if the settings say so", async () => {
    const host = hostWith({ users: "wait" });
    host.users = ["alice"];
    const { error } = await tick(host.tools, PATIENT);
    expect(error?.message).toBe("the reboot for release 7 waits for user alice");
    expect(host.warnings).toEqual([]);
  });
});

describe("the hooks around a reboot", () => {
  const HOOKS = { hooks: { preReboot: ["/bin/drain"], postBoot: ["/bin/undrain"] } };

  test("run before it, and once the booted system was judged", async () => {
    const host = hostWith({}, HOOKS);
    await tick(host.tools, PATIENT);
    expect(host.takeCalls().slice(-2)).toEqual(["hook /bin/drain", "reboot"]);
    expect(host.hooks.at(-1)?.variables).toMatchObject({
      ...{ NIXOS_PULL_HOOK: "preReboot", NIXOS_PULL_RELEASE: "7" },
      ...{ NIXOS_PULL_RESULT: "rebooting", NIXOS_PULL_TOPLEVEL: system("2") },
    });
    host.boot();
    await tick(host.tools, PATIENT);
    expect(host.takeCalls().at(-1)).toBe("hook /bin/undrain");
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toEqual([]);
  });

  test("keep the host from rebooting while preReboot fails, and give the slot back", async () => {
    const host = hostWith(LOCK, HOOKS);
    host.failing.set("/bin/drain", "still busy");
    expect((await tick(host.tools, PATIENT)).error?.code).toBe("HOOK_FAILED");
    expect(host.takeCalls().slice(-2)).toEqual(["hook /bin/drain", "give reboot slot back"]);
    expect(host.record?.pendingReboot?.requested).toBe(0);
    host.failing.clear();
    await tick(host.tools, PATIENT);
    expect(host.takeCalls().slice(-2)).toEqual(["hook /bin/drain", "reboot"]);
  });

  test("undrain the host if the reboot is called off", async () => {
    const host = hostWith({}, HOOKS);
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 8, system: "3" });
    await tick(host.tools, PATIENT);
    expect(host.takeCalls().at(-1)).toBe("hook /bin/undrain");
  });
});
