import { describe, expect, test } from "vitest";
import { unverifiedPayload } from "../../../../agent/core/formats/envelope.ts";
import type { SupportedRelease } from "../../../../agent/core/formats/manifest.ts";
import { sha256Hex } from "../../../../agent/core/formats/sha256.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system, type PublishedRelease } from "../../../support/memory-host.ts";
import { sampleHost } from "../../../support/sample-release.ts";

const PATIENT = { insistence: "patient" } as const;

/** Publishes a release in the old form and names it on the way out. */
function older(
  host: MemoryHost,
  release: PublishedRelease & { readonly sequence: number },
  changes: Partial<SupportedRelease> = {},
): SupportedRelease {
  const envelope = host.publish(release);
  const digest = sha256Hex(unverifiedPayload(Buffer.from(envelope)).payload);
  for (const mirror of host.mirrors) mirror.putRelease(digest, envelope);
  return { sequence: release.sequence, digest, until: "2030-01-01T00:00:00.000Z", ...changes };
}

/** What a later version has added, at several depths. */
const LATER = {
  added: { more: [1] },
  hosts: { web1: { ...sampleHost({ toplevel: system("2") }), added: true } },
};

describe("a release of a later version", () => {
  test("is followed if what it adds is not required", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2", ...LATER });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true, error: null });
    expect(host.running).toBe(system("2"));
  });

  test("that requires what the agent lacks is not, and the message names that", async () => {
    const host = new MemoryHost();
    const requires = ["known", "sealed-boot", "tree"];
    host.features = ["known"];
    // Whatever else it says: only its frame is read.
    const hosts: any = [{ any: "form" }];
    host.publish({ sequence: 7, system: "2", requires, hosts });
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome).toMatchObject({ updated: false, release: null });
    expect(outcome.error).toMatchObject({
      code: "AGENT_TOO_OLD",
      message: expect.stringMatching(
        /release 7 of stable requires sealed-boot, tree, which this agent .* lacks; .* by hand/,
      ),
    });
    expect(host.record?.trust).toMatchObject([{ sequence: 7 }]);
    // The one before is older than the one that was accepted.
    host.publish({ sequence: 6, system: "2" });
    expect((await tick(host.tools, PATIENT)).error).toMatchObject({ code: "SEQUENCE_REPLAYED" });
  });

  test("leads the host over an older one that brings a newer agent", async () => {
    const host = new MemoryHost();
    // Its own expiry and rollout are of its time.
    const past = "2020-01-01T00:00:00.000Z";
    const rollout = { start: past, salt: "s", paused: { reason: "wait", since: past } };
    const way = older(host, { sequence: 5, system: "2", expiresAt: past, rollout });
    host.publish({ sequence: 9, system: "3", requires: ["tree"], supported: [way], ...LATER });
    const first = await tick(host.tools, PATIENT);
    expect(first).toMatchObject({ updated: true, error: null, release: { sequence: 5 } });
    expect(host.running).toBe(system("2"));
    expect(host.record?.trust).toMatchObject([{ sequence: 9 }]);
    const accepted = host.history.find(({ event }) => event === "ManifestAccepted");
    // The system is release 5's, and is not named beside release 9.
    expect(accepted).toMatchObject({ sequence: 9 });
    expect(accepted).not.toHaveProperty("toplevel");

    // The agent that came with it does not know the feature yet.
    const stuck = await tick(host.tools, PATIENT);
    expect(stuck).toMatchObject({ updated: false, decision: { kind: "active" } });
    expect(stuck.error).toMatchObject({
      code: "AGENT_TOO_OLD",
      message: expect.stringContaining("release 5 is the newest that it can follow"),
    });
    host.features = ["tree"];
    const hosts = { web1: sampleHost({ toplevel: system("3") }) };
    host.publish({ sequence: 9, requires: ["tree"], supported: [way], hosts, system: "3" });
    expect((await tick(host.tools, PATIENT)).error).toMatchObject({ code: "SEQUENCE_CONFLICT" });
    host.publish({ sequence: 10, requires: ["tree"], supported: [way], hosts, system: "3" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      ...{ updated: true, error: null, release: { sequence: 10 } },
    });
  });

  test("names several older ones: the newest that the agent can follow is taken", async () => {
    const host = new MemoryHost();
    host.features = ["a"];
    const plain = older(host, { sequence: 4, system: "1" });
    const some = older(host, { sequence: 5, system: "2", requires: ["a"] }, { requires: ["a"] });
    const more = older(host, { sequence: 6, requires: ["b"], system: "3" }, { requires: ["b"] });
    const supported = [more, some, plain];
    host.publish({ sequence: 9, system: "3", requires: ["a", "b"], supported });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ release: { sequence: 5 } });
  });

  test("holds and pauses a host on its way out as on any other", async () => {
    const host = new MemoryHost();
    const way = older(host, { sequence: 5, system: "2" });
    const base = { system: "3", requires: ["tree"], supported: [way] };
    const since = "2026-01-01T00:00:00.000Z";
    const rollout = { start: since, salt: "s", paused: { reason: "disks", since } };
    host.publish({ sequence: 9, ...base, rollout });
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      decision: { kind: "waiting", waits: [{ reason: "ROLLOUT_PAUSED" }] },
    });
    host.publish({ sequence: 10, ...base, entry: { turn: { held: "no" } } });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "waiting" } });
    host.publish({ sequence: 11, ...base, hosts: { db1: sampleHost() } });
    expect((await tick(host.tools, PATIENT)).error).toMatchObject({ code: "HOST_NOT_IN_RELEASE" });
    expect(host.running).toBe(system("1"));
    host.publish({ sequence: 12, ...base });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
  });

  test("lets no mirror choose an older release", async () => {
    const host = new MemoryHost();
    const way = older(host, { sequence: 5, system: "2" });
    const other = host.publish({ sequence: 4, system: "3" });
    host.publish({ sequence: 9, system: "3", requires: ["tree"], supported: [way] });
    for (const mirror of host.mirrors) mirror.putRelease(way.digest, other);
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome).toMatchObject({ updated: false, error: { code: "MIRROR_STATUS" } });
    expect(outcome.error?.message).toContain("requires tree");
    expect(host.running).toBe(system("1"));
  });

  test.each(["", "<html>", "{}"])(
    "goes on with the next mirror if one has %j there",
    async (text) => {
      const host = new MemoryHost({ mirrors: ["https://one.example", "https://two.example"] });
      const way = older(host, { sequence: 5, system: "2" });
      host.publish({ sequence: 9, system: "3", requires: ["tree"], supported: [way] });
      host.mirrors[0]?.putRelease(way.digest, text);
      expect(await tick(host.tools, PATIENT)).toMatchObject({
        updated: true,
        release: { sequence: 5 },
      });
    },
  );

  test.each([
    ["is of another number", { sequence: 6 }, "MANIFEST_INVALID"],
    ["is supported no longer", { until: "2020-01-01T00:00:00.000Z" }, "AGENT_TOO_OLD"],
    ["is not there", { digest: "e".repeat(64) }, "MIRROR_NOT_FOUND"],
  ])("is refused if the older one %s", async (_, changes, code) => {
    const host = new MemoryHost();
    const way = older(host, { sequence: 5, system: "2" }, changes);
    host.publish({ sequence: 9, system: "3", requires: ["tree"], supported: [way] });
    expect((await tick(host.tools, PATIENT)).error).toMatchObject({ code });
    expect(host.running).toBe(system("1"));
  });

  test("does not take a host back to a release before its own", async () => {
    const host = new MemoryHost();
    const way = older(host, { sequence: 5, system: "1" });
    host.publish({ sequence: 7, system: "2" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
    host.publish({ sequence: 9, system: "3", requires: ["tree"], supported: [way] });
    const { error, updated } = await tick(host.tools, PATIENT);
    expect(updated).toBe(false);
    expect(error?.message).toContain("this host was release 7, and does not go back to release 5");
  });
});

describe("a system for another kind of machine", () => {
  test.each([
    ["x86_64", "aarch64-linux"],
    ["aarch64", "x86_64-linux"],
  ])("is refused on %s before anything is fetched", async (machine, platform) => {
    const host = new MemoryHost();
    host.machine = machine;
    host.publish({ sequence: 7, system: "2", entry: { platform } });
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome.error).toMatchObject({
      code: "PLATFORM_MISMATCH",
      message: expect.stringContaining(`a system for ${platform} for web1, and this machine is`),
    });
    expect(host.takeCalls().filter((call) => call.startsWith("fetch"))).toEqual([]);
  });

  test.each([
    ["x86_64", "x86_64-linux"],
    ["x86_64", "i686-linux"],
    ["a-new-one", "x86_64-linux"],
    ["x86_64", "a_new_one-linux"],
  ])("is what nobody knows, or what %s runs: %s", async (machine, platform) => {
    const host = new MemoryHost();
    host.machine = machine;
    host.publish({ sequence: 7, system: "2", entry: { platform } });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
  });
});
