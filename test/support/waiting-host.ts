import { expect } from "vitest";
import { tick } from "../../agent/host/tick.ts";
import { MemoryHost, system } from "./memory-host.ts";

/**
 * A host that follows release 6, and on which release 7, another kernel, waits for its boot.
 * `cannotTry` says why the boot loader cannot try a system; null if it can.
 */
export async function waitingHost(
  cannotTry: string | null,
  mode: "switch" | "boot" = "boot",
  config: object = {},
): Promise<MemoryHost> {
  const host = new MemoryHost(config);
  host.cannotTry = cannotTry;
  host.kernels.set(system("2"), "linux 2");
  host.publish({ sequence: 6, system: "1" });
  await tick(host.tools, { insistence: "patient" });
  host.publish({ sequence: 7, system: "2", mode });
  await tick(host.tools, { insistence: "patient" });
  expect(host.record?.pendingReboot).toMatchObject({
    release: { sequence: 7, toplevel: system("2") },
    wayBack: false,
  });
  host.takeCalls();
  return host;
}
