import { describe, expect, test } from "vitest";
import type { AgentTools } from "../../../../agent/host/agent-tools.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";
import { sampleHost } from "../../../support/sample-release.ts";

const PATIENT = { insistence: "patient" } as const;
const RETRY = { insistence: "retry" } as const;

/** The agent of the host with a configuration that gives it this name. */
function agentNamed(host: MemoryHost, hostname: string): AgentTools {
  const settings = { ...host.settings, hostname, isNamedBySystem: false };
  return { ...host.tools, settings, hostname: () => hostname };
}

/** What `nixos-pull apply --config` with another name is: no service. */
function personsAgentNamed(host: MemoryHost, hostname: string): AgentTools {
  return { ...agentNamed(host, hostname), isService: false };
}

/**
 * A host that is web1 and has system 1; system 2 calls itself web2, and the release in force names
 * both: web1 as what it is, and web2 as what it is to be.
 */
async function hostToRename(): Promise<MemoryHost> {
  const host = new MemoryHost();
  host.publish({ sequence: 6, system: "1" });
  await tick(agentNamed(host, "web1"), PATIENT);
  host.names.set(system("1"), "web1");
  host.names.set(system("2"), "web2");
  const web1 = sampleHost({ toplevel: system("1") });
  const web2 = sampleHost({ toplevel: system("2") });
  host.publish({ sequence: 7, system: "2", hosts: { web1, web2 } });
  return host;
}

describe("a host that gets another name in releases", () => {
  test("is itself under its old name until a person applies the system of the new one", async () => {
    const host = await hostToRename();
    expect(await tick(agentNamed(host, "web1"), PATIENT)).toMatchObject({ error: null });
    expect(host.running).toBe(system("1"));

    expect(await tick(personsAgentNamed(host, "web2"), RETRY)).toMatchObject({
      ...{ updated: true, error: null },
    });
    expect([host.running, host.profile, host.bootDefault]).toEqual(
      Array.from({ length: 3 }, () => system("2")),
    );
    // The service reads the new system's configuration now, also after a boot.
    expect(await tick(agentNamed(host, "web2"), PATIENT)).toMatchObject({
      decision: { kind: "active" },
    });
    host.boot();
    expect(await tick(agentNamed(host, "web2"), PATIENT)).toMatchObject({
      decision: { kind: "active" },
    });
    // The next release may leave the old name out.
    host.names.set(system("3"), "web2");
    const web2 = sampleHost({ toplevel: system("3") });
    host.publish({ sequence: 8, system: "3", hosts: { web2 } });
    expect(await tick(agentNamed(host, "web2"), PATIENT)).toMatchObject({ updated: true });
  });

  test("is itself under its old name again if the system of the new one fails", async () => {
    const host = await hostToRename();
    host.nextSwitch("test 2", { exitCode: 17 });
    await tick(personsAgentNamed(host, "web2"), RETRY);
    expect(host.running).toBe(system("1"));
    expect(await tick(agentNamed(host, "web1"), PATIENT)).toMatchObject({ error: null });
    expect(host.record).toMatchObject({ committed: { toplevel: system("1") } });
    // It follows what comes next for the old name.
    const web1 = sampleHost({ toplevel: system("3") });
    host.publish({ sequence: 8, system: "3", hosts: { web1 } });
    expect(await tick(agentNamed(host, "web1"), PATIENT)).toMatchObject({ updated: true });
  });

  test.each(["test 2", "set profile", "boot 2"])(
    "follows releases by either name after a power cut at %s",
    async (call) => {
      const host = await hostToRename();
      host.fault(call, "INTERRUPTED", "power cut");
      await tick(personsAgentNamed(host, "web2"), RETRY);
      host.boot();
      // The boot starts the system that is the boot default, whose configuration has its own name.
      const name = host.running === system("2") ? "web2" : "web1";
      await tick(agentNamed(host, name), PATIENT);
      const after = host.running === system("2") ? "web2" : "web1";
      const hosts = { [after]: sampleHost({ toplevel: system("3") }) };
      host.publish({ sequence: 8, system: "3", hosts });
      host.names.set(system("3"), after);
      expect(await tick(agentNamed(host, after), RETRY)).toMatchObject({ updated: true });
      expect(host.running).toBe(system("3"));
    },
  );

  test("does not take the new name by a release for the old one", async () => {
    const host = await hostToRename();
    const both = sampleHost({ toplevel: system("2") });
    host.publish({ sequence: 8, system: "2", hosts: { web1: both, web2: both } });
    const { error } = await tick(agentNamed(host, "web1"), PATIENT);
    expect(error?.code).toBe("HOSTNAME_MISMATCH");
    expect(host.running).toBe(system("1"));
  });
});
