import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import {
  STANDINGS,
  TROUBLED,
  describeCounts,
  describeTarget,
  fleetView,
  type FleetHost,
  type FleetInput,
} from "../../../../agent/core/fleet/fleet.ts";
import type { Manifest } from "../../../../agent/core/formats/manifest.ts";
import type { Report } from "../../../../agent/core/formats/report.ts";
import { CLOCK_TOLERANCE_MS } from "../../../../agent/core/release/acceptance.ts";
import {
  FLEET_NOW,
  sampleHostnames,
  sampleManifest,
  sampleReport,
  sampleToplevel,
  variedReport,
} from "../../../support/sample-fleet.ts";

const options = { now: FLEET_NOW, silentAfter: 86_400_000 };

function sampleFleet(count: number) {
  const names = sampleHostnames(count);
  const reports = names.flatMap((name, at) => variedReport(name, at, count) ?? []);
  const manifests = [{ manifest: sampleManifest(names), digest: "" }];
  return { names, input: { reports, manifests, distrusted: [] } };
}

function viewOf(report: ReturnType<typeof sampleReport>) {
  const manifests = [{ manifest: sampleManifest([report.hostname]), digest: "" }];
  const [host] = fleetView({ reports: [report], manifests, distrusted: [] }, options).hosts;
  return host!;
}

describe("fleetView", () => {
  it("has one row for each host, worst first, whether it reported or not", () => {
    const { names, input } = sampleFleet(200);
    const { hosts, counts } = fleetView(input, options);
    expect(hosts.map(({ hostname }) => hostname).sort()).toEqual([...names].sort());
    const ranks = hosts.map(({ standing }) => STANDINGS.indexOf(standing));
    expect(ranks).toEqual([...ranks].sort((a, b) => a - b));
    expect(counts.missing).toBe(names.length - input.reports.length);
    expect(counts.missing).toBeGreaterThan(0);
    expect(Object.values(counts).reduce((a, b) => a + b)).toBe(200);
  });

  it("says what each host is", () => {
    expect(viewOf(sampleReport("web1"))).toMatchObject({ standing: "current", onTarget: true });
    const failing = sampleReport("web1", { code: "DISK_FULL", message: "no room" });
    expect(viewOf(failing)).toMatchObject({ standing: "failing", code: "DISK_FULL" });
    const silent = sampleReport("web1", { at: "2026-11-20T12:00:00.000Z" });
    expect(viewOf(silent).standing).toBe("silent");
    const ahead = sampleReport("web1", { at: "2026-11-24T13:00:00.000Z" });
    expect(viewOf(ahead)).toMatchObject({
      standing: "silent",
      note: "its clock is ahead: it says 2026-11-24T13:00:00.000Z",
    });
    const drift = { what: "profile" as const, expected: sampleToplevel("web1-12"), found: null };
    expect(viewOf(sampleReport("web1", { drift }))).toMatchObject({
      standing: "drifted",
      onTarget: false,
    });
  });

  it("takes a refreshed release for the same system", () => {
    const report = sampleReport("web1");
    const release = { ...report.release!, sequence: 9, digest: "0".repeat(64) };
    expect(viewOf({ ...report, release })).toMatchObject({ standing: "current", onTarget: true });
  });

  it("goes by the newest accepted release where there is no manifest", () => {
    const old = { ...sampleReport("web2").release!, sequence: 11 };
    const reports = [sampleReport("web1"), sampleReport("web2", { release: old })];
    const { targets, hosts } = fleetView({ reports, manifests: [], distrusted: [] }, options);
    expect(targets.map(describeTarget)).toEqual(["1 of 2 hosts run release 12 of stable"]);
    expect(hosts.map(({ hostname, standing }) => `${hostname} ${standing}`)).toEqual([
      "web2 behind",
      "web1 current",
    ]);
  });

  it("counts for a release exactly the hosts that it names, in the order of their commits", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 120 }), (count) => {
        const { input } = sampleFleet(count);
        const { targets, hosts, counts } = fleetView(input, options);
        const [target] = targets;
        expect(target!.hosts).toBe(count);
        expect(target!.onTarget).toBe(hosts.filter((it) => it.onTarget).length);
        expect([...target!.committed].sort()).toEqual(target!.committed);
        const told = describeCounts(counts).match(/\d+/g) ?? [];
        expect(told.map(Number).reduce((a, b) => a + b)).toBe(count);
      }),
      { numRuns: 30 },
    );
  });

  it("finds hosts that are called like what every object has", () => {
    const manifests = [{ manifest: sampleManifest(["web1"]), digest: "" }];
    const reports = [sampleReport("constructor")];
    const { hosts } = fleetView({ reports, manifests, distrusted: [] }, options);
    expect(hosts.find(({ hostname }) => hostname === "constructor")).toMatchObject({
      onTarget: null,
    });
  });
});

const DAY_MS = 86_400_000;

function view(input: Partial<FleetInput>) {
  const whole = { reports: [], manifests: [], distrusted: [], ...input };
  return fleetView(whole, { now: FLEET_NOW, silentAfter: DAY_MS });
}

const inForce = (manifest: Manifest) => ({ manifest, digest: "" });

/** web1, which release 12 of stable names, by its report. */
function web1(changes: Partial<Report> = {}): FleetHost {
  const manifests = [inForce(sampleManifest(["web1"]))];
  const [host] = view({ reports: [sampleReport("web1", changes)], manifests }).hosts;
  return host!;
}

const reportedAgo = (ms: number): Partial<Report> => ({
  at: new Date(FLEET_NOW.getTime() - ms).toISOString(),
});
const OLD = { ...sampleReport("web1").release!, sequence: 11, toplevel: sampleToplevel("web1-11") };
const DRIFT = { what: "profile" as const, expected: sampleToplevel("web1-12"), found: null };
const REBOOT = { sequence: 12, message: "after a reboot", policy: "window" as const, requested: 0 };
const WAIT = { until: null, reason: "HELD" as const };

describe("a host", () => {
  test("that runs what it should is shown with all that it reported", () => {
    const report = sampleReport("web1");
    expect(web1()).toEqual({
      ...{ hostname: "web1", channel: "stable", standing: "current", note: null, code: null },
      ...{ release: 12, onTarget: true, state: "Idle", lastSeen: report.at },
      ...{ rebootNeeded: false, drifted: false, disk: report.disk, waits: [], failure: null },
      ...{ committedAt: report.release?.committedAt, agentVersion: "0.1.0" },
    });
  });

  test("that never reported is shown with nothing but its name", () => {
    const manifests = [inForce(sampleManifest(["web1"]))];
    const nothing = {
      ...{ hostname: "web1", channel: "stable", standing: "missing", code: null, release: null },
      ...{ onTarget: false, state: null, rebootNeeded: false, drifted: false, disk: null },
      ...{ committedAt: null, waits: [], failure: null, agentVersion: null },
    };
    expect(view({ manifests }).hosts).toEqual([
      { ...nothing, lastSeen: null, note: "it never reported" },
    ]);
    const lastSeen = new Map([["web1", "2026-11-20T12:00:00.000Z"]]);
    expect(view({ manifests, lastSeen }).hosts).toEqual([
      {
        ...nothing,
        lastSeen: "2026-11-20T12:00:00.000Z",
        note: "no report here; last seen at 2026-11-20T12:00:00.000Z",
      },
    ]);
  });

  test("whose report is not believed is distrusted, whatever an older one said", () => {
    const distrusted = [
      { hostname: "web1", reason: "KEY_CHANGED" as const, message: "another key" },
    ];
    const reports = [sampleReport("web1", { code: "DISK_FULL" })];
    expect(view({ reports, distrusted }).hosts).toMatchObject([
      { standing: "distrusted", note: "another key", code: "KEY_CHANGED" },
    ]);
    expect(view({ distrusted }).hosts).toMatchObject([{ hostname: "web1", channel: null }]);
  });

  test("is silent from the first moment after the limit", () => {
    expect(web1(reportedAgo(DAY_MS)).standing).toBe("current");
    const { at } = sampleReport("web1", reportedAgo(DAY_MS + 1));
    expect(web1({ at })).toMatchObject({ standing: "silent", note: `no report since ${at}` });
  });

  test("may have a clock that is a little ahead", () => {
    expect(web1(reportedAgo(-CLOCK_TOLERANCE_MS)).standing).toBe("current");
    expect(web1(reportedAgo(-CLOCK_TOLERANCE_MS - 1)).standing).toBe("silent");
  });

  test("has the worst standing that applies, with its code", () => {
    const all: Partial<Report> = {
      ...{ drift: DRIFT, waits: [{ ...WAIT, message: "held" }], release: OLD },
      ...{ pendingReboot: REBOOT },
    };
    expect(
      web1({ ...all, code: "DISK_FULL", message: "no room", ...reportedAgo(9e9) }),
    ).toMatchObject({ standing: "failing", note: "no room", code: "DISK_FULL" });
    expect(web1({ ...all, ...reportedAgo(9e9) }).standing).toBe("silent");
    expect(web1(all)).toMatchObject({ standing: "drifted", drifted: true, code: null });
    const { drift: _, ...waiting } = all;
    expect(web1(waiting).standing).toBe("waiting");
    expect(web1({ ...waiting, waits: [] }).standing).toBe("behind");
    expect(web1({ pendingReboot: REBOOT }).standing).toBe("reboot");
  });

  test("that waits says for what", () => {
    const waits = [
      { ...WAIT, message: "held by hand" },
      { ...WAIT, message: "the window opens later" },
    ];
    expect(web1({ waits })).toMatchObject({
      ...{ standing: "waiting", note: "held by hand; the window opens later", waits },
    });
  });

  test("that is behind says how far it is", () => {
    const accepted = sampleReport("web1").accepted;
    expect(web1({ release: OLD, state: "Fetching", accepted })).toMatchObject({
      ...{ standing: "behind", note: "Fetching, accepted up to 12", onTarget: false, release: 11 },
    });
    expect(web1({ release: OLD, accepted: null }).note).toBe("no release accepted yet");
  });

  test("that needs a reboot says why", () => {
    expect(web1({ pendingReboot: REBOOT })).toMatchObject({
      ...{ standing: "reboot", note: "after a reboot", rebootNeeded: true },
    });
    const release = { ...sampleReport("web1").release!, rebootNeeded: true };
    expect(web1({ release })).toMatchObject({
      ...{ standing: "reboot", note: "a reboot is needed", rebootNeeded: true },
    });
  });

  test("that failed before keeps what went wrong", () => {
    const failure = {
      ...{ at: FLEET_NOW.toISOString(), sequence: 12, toplevel: OLD.toplevel },
      ...{ code: "ACTIVATION_FAILED" as const, message: "exit code 4", lastLines: ["bad"] },
    };
    expect(web1({ failure }).failure).toEqual(failure);
  });

  test("that its channel's release does not name is current, or has no release yet", () => {
    const manifests = [inForce(sampleManifest(["web1"]))];
    const stranger = (changes: Partial<Report>): FleetHost =>
      view({ reports: [sampleReport("web9", changes)], manifests }).hosts.find(
        ({ hostname }) => hostname === "web9",
      )!;
    expect(stranger({})).toMatchObject({
      ...{ standing: "current", onTarget: null, note: "release 12 of stable does not name it" },
    });
    expect(stranger({ release: null })).toMatchObject({
      ...{ standing: "behind", release: null, note: "no release applied yet", committedAt: null },
    });
  });

  test("belongs to the channel that it reports, not to the one that names it", () => {
    const manifests = [inForce(sampleManifest(["web1"]))];
    const moved = view({ reports: [sampleReport("web1", { channel: "beta" })], manifests });
    // Nobody but this host knows beta: it is the newest there.
    expect(moved.hosts).toMatchObject([{ channel: "beta", onTarget: true, note: null }]);
    expect(moved.targets).toMatchObject([
      { channel: "beta", hosts: 1, onTarget: 1, signed: false },
      { channel: "stable", hosts: 0, onTarget: 0, signed: true },
    ]);
  });

  test("that was changed by hand is not on target, with a manifest or without", () => {
    expect(web1({ drift: DRIFT }).onTarget).toBe(false);
    const reports = [sampleReport("web1", { drift: DRIFT })];
    expect(view({ reports }).hosts).toMatchObject([{ onTarget: false }]);
    expect(view({ reports: [sampleReport("web1")] }).hosts).toMatchObject([{ onTarget: true }]);
    const nothing = [sampleReport("web1", { accepted: null })];
    expect(view({ reports: nothing }).hosts).toMatchObject([{ onTarget: null }]);
  });
});

describe("a channel's target", () => {
  test("is the manifest, with when hosts became it, oldest first", () => {
    const names = ["web1", "web2", "web3", "web4"];
    const committed = (host: string, committedAt: string): Report => {
      const report = sampleReport(host);
      return { ...report, release: { ...report.release!, committedAt } };
    };
    const late = "2026-11-24T11:00:00.000Z";
    const early = "2026-11-24T12:00:00.000+02:00";
    const reports = [committed("web1", late), committed("web2", early)];
    reports.push(sampleReport("web3", { release: OLD }));
    const manifest = sampleManifest(names);
    expect(view({ reports, manifests: [inForce(manifest)] }).targets).toEqual([
      {
        ...{ channel: "stable", position: { epoch: 0, sequence: 12 }, signed: true },
        ...{ createdAt: manifest.createdAt, expiresAt: manifest.expiresAt, expired: false },
        ...{ hosts: 4, onTarget: 2, committed: [early, late] },
      },
    ]);
  });

  test("is the newest position that any host accepted, without a manifest", () => {
    const accepts = (host: string, epoch: number, sequence: number): Report =>
      sampleReport(host, { accepted: { epoch, sequence, digest: "0".repeat(64) } });
    const reports = [accepts("a", 0, 12), accepts("b", 1, 3), accepts("c", 1, 2)];
    expect(view({ reports }).targets).toEqual([
      {
        ...{ channel: "stable", position: { epoch: 1, sequence: 3 }, signed: false },
        ...{ createdAt: null, expiresAt: null, expired: false, hosts: 3, onTarget: 0 },
        committed: [],
      },
    ]);
  });

  test("is told with how many hosts run it, and whether it has expired", () => {
    const at = (expiresAt: string): string[] => {
      const manifests = [inForce({ ...sampleManifest(["web1"]), expiresAt })];
      return view({ reports: [sampleReport("web1")], manifests }).targets.map(describeTarget);
    };
    const now = FLEET_NOW.getTime();
    expect(at(new Date(now + 1).toISOString())).toEqual(["1 of 1 host runs release 12 of stable"]);
    expect(at(new Date(now).toISOString())).toEqual([
      "1 of 1 host runs release 12 of stable, which has expired",
    ]);
  });

  test("comes once for each channel, by name", () => {
    const beta = { ...sampleManifest(["web2"]), channel: "beta" };
    const reports = [sampleReport("a", { channel: "alpha" }), sampleReport("web1")];
    const { targets } = view({
      ...{ reports, manifests: [inForce(sampleManifest(["web1"])), inForce(beta)] },
    });
    expect(targets.map(({ channel }) => channel)).toEqual(["alpha", "beta", "stable"]);
  });
});

describe("the fleet", () => {
  test("is counted by standing and by code, the most frequent code first", () => {
    const failing = (host: string, code: Report["code"]): Report => sampleReport(host, { code });
    const reports = [
      failing("c", "DISK_FULL"),
      failing("a", "MIRROR_STALE"),
      failing("b", "MIRROR_STALE"),
      failing("d", "HOOK_FAILED"),
      sampleReport("e"),
    ];
    const distrusted = [{ hostname: "f", reason: "KEY_UNKNOWN" as const, message: "" }];
    const { at, counts, codes, hosts } = view({ reports, distrusted });
    expect(at).toBe(FLEET_NOW.toISOString());
    expect(counts).toEqual({
      ...Object.fromEntries(STANDINGS.map((standing) => [standing, 0])),
      ...{ distrusted: 1, failing: 4, current: 1 },
    });
    expect(describeCounts(counts)).toBe("1 distrusted, 4 failing, 1 current");
    expect(codes).toEqual([
      { code: "MIRROR_STALE", hosts: 2 },
      { code: "DISK_FULL", hosts: 1 },
      { code: "HOOK_FAILED", hosts: 1 },
      { code: "KEY_UNKNOWN", hosts: 1 },
    ]);
    expect(hosts.map(({ hostname }) => hostname).join("")).toBe("fabcde");
  });

  test("wants a person for these standings", () => {
    expect([...TROUBLED]).toEqual(["distrusted", "failing", "silent", "missing", "drifted"]);
  });
});
