// The whole examination in memory: a healthy host passes everything, and each fault is named.
import { expect, test } from "vitest";
import { CHECKS, type CheckId, type CheckResult } from "../../../../agent/core/doctor/result.ts";
import type { Route } from "../../../../agent/core/doctor/route.ts";
import { PullError } from "../../../../agent/core/errors.ts";
import { examineHost } from "../../../../agent/host/doctor/doctor.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { goodRoute, goodUnit, MemoryHost, system } from "../../../support/memory-host.ts";
import { sampleHost } from "../../../support/sample-release.ts";
import { testKey } from "../../../support/test-key.ts";

const MIRROR = "https://a.example.org/";
const KEY = testKey("fleet-1").publicKey.text;

/** Settings with everything that can be tried. */
const FULL = {
  credentials: { [MIRROR]: { type: "bearer", file: "/etc/secret" } },
  tls: { caFile: "/etc/ca.pem" },
  reports: { url: "https://reports.example.org/inbox", directory: "/srv/reports" },
  mirrors: [MIRROR, "file:///mnt/stick"],
  sticks: { reports: true },
};

/** A host that is well, with a release that it does not have yet. */
function healthyHost(config: object = {}): MemoryHost {
  const host = new MemoryHost(config);
  host.space = { free: 1e12, fileSystem: "1", total: 2e12, inodes: { free: 1e6, total: 1e7 } };
  host.generations.set(1, system("0"));
  host.generations.set(2, system("1"));
  host.generation = 2;
  host.valid.add(system("0"));
  host.lookedAt.set("/etc/secret", {
    ...{ kind: "file", mode: 0o600, uid: 0, size: 20, readable: true },
  });
  host.publish({ sequence: 1, system: "2" });
  return host;
}

async function examine(host: MemoryHost): Promise<CheckResult[]> {
  const calls = host.calls.length;
  const results = await examineHost(host.tools);
  // It changes nothing.
  expect(host.calls.slice(calls)).toEqual([]);
  expect(host.writes + host.history.length + host.files.size + host.savedManifests.size).toBe(0);
  return results;
}

/** The checks that did not pass, by id. */
function troubles(results: readonly CheckResult[]): string[] {
  return results
    .filter(({ outcome }) => outcome !== "passed")
    .map(({ id, outcome, code }) => `${outcome} ${id}${code === null ? "" : ` ${code}`}`);
}

test("a healthy host passes every check that there is", async () => {
  const results = await examine(healthyHost(FULL));
  expect(troubles(results)).toEqual([]);
  const ids = new Set(results.map(({ id }) => id));
  expect(Object.keys(CHECKS).filter((id) => !ids.has(id as CheckId))).toEqual([]);
  expect(results.every(({ advice, code }) => advice === null && code === null)).toBe(true);
});

test("each mirror is tried by itself, and one that fails keeps no other from being tried", async () => {
  const host = healthyHost({ mirrors: [MIRROR, "https://b.example.org/"] });
  const [, second] = host.mirrors;
  if (second) second.down = "MIRROR_UNREACHABLE";
  const error = new PullError("MIRROR_UNREACHABLE", "connect ECONNREFUSED");
  host.routes.set("https://b.example.org/", {
    ...goodRoute("b.example.org", host.time.now()),
    connection: { kind: "failed", error },
    ...{ certificate: { kind: "skipped" }, answer: { kind: "skipped" } },
  });
  const results = await examine(host);
  expect(troubles(results)).toEqual([
    "failed mirror.connection MIRROR_UNREACHABLE",
    "untried mirror.tls",
    "untried mirror.answer",
    "untried mirror.manifest",
  ]);
  const of = (id: CheckId): string[] =>
    results.flatMap((it) => (it.id === id ? [`${it.subject}: ${it.outcome}`] : []));
  expect(of("mirror.manifest")).toEqual([
    "https://a.example.org/: passed",
    "https://b.example.org/: untried",
  ]);
  expect(results.find(({ id }) => id === "mirror.any")?.found).toBe("1 of 2");
});

test.each([
  ["an ordinary user cannot try", false, "untried"],
  ["fails for root", true, "failed"],
])("a mirror that may not be read %s", async (_, isRoot, outcome) => {
  const host = healthyHost();
  host.isRoot = isRoot;
  for (const mirror of host.mirrors) mirror.down = "PERMISSION_DENIED";
  const found = (await examine(host)).find(({ id }) => id === "mirror.any");
  expect(found).toMatchObject({ outcome });
  expect(found?.advice === "run it as root").toBe(!isRoot);
});

/** A way on which one step is other than it must be. */
function routeWith(change: Partial<Route>): (host: MemoryHost) => void {
  return (host) => {
    host.routes.set(MIRROR, { ...goodRoute("a.example.org", host.time.now()), ...change });
  };
}

function unitWith(unit: string, change: object): (host: MemoryHost) => void {
  return (host) => {
    host.unitFacts.set(unit, { ...goodUnit(unit), ...change });
  };
}

const FAULTS: readonly [string, (host: MemoryHost) => unknown, string[], object?][] = [
  [
    "a name that nobody knows",
    routeWith({
      name: { kind: "failed", error: new PullError("MIRROR_UNREACHABLE", "ENOTFOUND") },
    }),
    ["failed mirror.name MIRROR_UNREACHABLE"],
  ],
  [
    "refused credentials",
    routeWith({ answer: { kind: "done", value: { status: 401, date: null }, ms: 1 } }),
    ["failed mirror.answer MIRROR_STATUS", "untried clock.mirror"],
  ],
  [
    "a slow server",
    (host) => {
      const date = host.time.now();
      routeWith({ answer: { kind: "done", value: { status: 200, date }, ms: 11_000 } })(host);
    },
    ["failed mirror.answer MIRROR_SLOW"],
  ],
  [
    "another time on the mirror",
    (host) => {
      const date = new Date(host.time.now().getTime() + 3_600_000);
      routeWith({ answer: { kind: "done", value: { status: 200, date }, ms: 1 } })(host);
    },
    ["failed clock.mirror CLOCK_BEHIND"],
  ],
  [
    "a server without ranges",
    (host) => {
      const [mirror] = host.mirrors;
      if (mirror) mirror.ranges = false;
    },
    ["failed mirror.ranges"],
  ],
  [
    "an archive that is not there",
    (host) => {
      const [mirror] = host.mirrors;
      if (mirror) mirror.lacksArchives = true;
    },
    ["failed mirror.archive MIRROR_NOT_FOUND"],
  ],
  [
    "a clock that nobody sets",
    (host) => (host.clockFacts = { synchronised: false, service: false }),
    ["failed clock.synchronised"],
  ],
  [
    "a clock that nobody knows of",
    (host) => (host.clockFacts = null),
    ["untried clock.synchronised"],
  ],
  [
    "a release without this host",
    (host) => host.publish({ sequence: 2, system: "2", hosts: { db1: sampleHost({}) } }),
    [
      "failed release.host HOST_NOT_IN_RELEASE",
      "untried keys.store",
      "untried release.platform",
      "untried release.commands",
      "untried release.decision",
      "untried release.closure",
    ],
  ],
  [
    "a system for another machine",
    (host) => {
      host.machine = "aarch64";
      host.publish({ sequence: 2, system: "2", entry: { platform: "x86_64-linux" } });
    },
    [
      "failed release.platform PLATFORM_MISMATCH",
      "untried keys.store",
      "untried release.commands",
      "untried release.decision",
      "untried release.closure",
    ],
  ],
  [
    "a system with another name",
    (host) => host.names.set(system("1"), "db1"),
    ["failed release.name HOSTNAME_MISMATCH"],
  ],
  [
    "no room for the closure",
    (host) => host.fetchErrors.push(new PullError("DISK_FULL", "expected 10 bytes free")),
    ["failed release.closure DISK_FULL", "untried keys.store"],
  ],
  [
    "paths that no store key signed",
    (host) => host.fetchErrors.push(new PullError("PATH_SIGNATURE", "no signature")),
    ["failed keys.store PATH_SIGNATURE", "untried release.closure"],
  ],
  ["an old Nix", (host) => (host.nixVersion = "nix (Nix) 2.3.16"), ["failed store.nix"]],
  [
    "a daemon that does not trust us",
    (host) => (host.access = { ...host.access, via: "daemon", trusted: false, keys: [] }),
    ["failed store.trust IMPORT_FAILED"],
  ],
  [
    "a profile that Nix forgot",
    (host) => host.valid.delete(system("1")),
    ["failed store.profile STORE_DAMAGED", "failed store.running STORE_DAMAGED"],
  ],
  ["no running system", (host) => (host.running = null), ["failed store.running"]],
  [
    "a way back that Nix forgot",
    (host) => host.valid.delete(system("0")),
    ["failed store.way-back"],
  ],
  [
    "an agent that is masked",
    unitWith("nixos-pull.service", { load: "masked", file: "masked" }),
    ["failed units.agent"],
  ],
  [
    "an agent that failed",
    unitWith("nixos-pull.service", { active: "failed", sub: "failed", result: "exit-code" }),
    ["failed units.agent"],
  ],
  [
    "an agent that does not start with the host",
    unitWith("nixos-pull.service", { file: "disabled" }),
    ["failed units.agent"],
  ],
  [
    "an agent without a watchdog",
    unitWith("nixos-pull.service", { watchdog: null }),
    ["failed units.watchdog"],
  ],
  [
    "a boot deadline that does not run",
    unitWith("nixos-pull-boot.timer", { active: "inactive" }),
    ["failed units.boot-deadline"],
  ],
  [
    "a boot deadline that failed",
    unitWith("nixos-pull-boot.service", { active: "failed" }),
    ["failed units.boot-deadline"],
  ],
  [
    "no unit for the boot loader's verdict",
    unitWith("nixos-pull-boot-complete.service", { load: "not-found", file: "" }),
    ["failed units.boot-complete"],
  ],
  [
    "a deadline that failed",
    unitWith("nixos-pull-deadline.service", { active: "failed" }),
    ["failed units.deadline"],
  ],
  [
    "a switch that failed",
    unitWith("nixos-pull-switch.service", { active: "failed" }),
    ["failed units.switch"],
  ],
  [
    "no systemd",
    (host) => (host.hasUnits = false),
    ["untried units.agent", "untried units.boot-deadline", "untried units.boot-complete"],
  ],
  [
    "a state directory that others write to",
    (host) => host.unsafe.set(host.settings.paths.state, new PullError("STATE_UNSAFE", "mode 777")),
    ["failed files.state STATE_UNSAFE"],
  ],
  [
    "no state directory",
    (host) => host.absent.add(host.settings.paths.state),
    ["failed files.state"],
  ],
  [
    "a damaged record",
    (host) => (host.stateLoss = new PullError("STATE_CORRUPT", "checksum")),
    ["failed files.record STATE_CORRUPT"],
  ],
  [
    "a full disk",
    (host) => (host.space = { free: 1, fileSystem: "1", total: 2 }),
    ["failed disk.space DISK_FULL", "failed boot.space DISK_FULL"],
  ],
  [
    "a disk without inodes",
    (host) => (host.space = { free: 1e12, fileSystem: "1", inodes: { free: 1, total: 9 } }),
    ["failed disk.inodes DISK_FULL"],
  ],
  [
    "a read-only file system",
    (host) =>
      host.mounts.set("/nix/store", {
        ...{ mountPoint: "/", type: "ext4", readOnly: true, mountedReadOnly: true },
      }),
    ["failed disk.writable PERMISSION_DENIED"],
  ],
  ["a /boot that is not mounted", (host) => host.mounts.delete("/boot"), ["failed boot.directory"]],
  ["no /boot", (host) => host.lookedAt.set("/boot", null), ["failed boot.directory"]],
];

test.each(FAULTS)("%s is named, and nothing else", async (_, break_, expected) => {
  const host = healthyHost();
  break_(host);
  const results = await examine(host);
  expect(troubles(results).sort()).toEqual([...expected].sort());
  for (const { outcome, advice, found } of results) {
    expect(found).not.toBe("");
    if (outcome === "failed") expect(advice).toBeTruthy();
  }
});

const FULL_FAULTS: readonly [string, (host: MemoryHost) => unknown, string[]][] = [
  [
    "a secret that all may read",
    (host) =>
      host.lookedAt.set("/etc/secret", {
        ...{ kind: "file", mode: 0o644, uid: 0, size: 20, readable: true },
      }),
    ["failed files.credential"],
  ],
  [
    "a secret that is not there",
    (host) => host.lookedAt.set("/etc/secret", null),
    ["failed files.credential CREDENTIAL_UNREADABLE"],
  ],
  [
    "no directory for reports",
    (host) => host.lookedAt.set("/srv/reports", null),
    ["failed reports.directory"],
  ],
  [
    "a server that refuses reports",
    (host) =>
      host.routes.set("https://reports.example.org/inbox", {
        ...goodRoute("reports.example.org", host.time.now()),
        answer: { kind: "done", value: { status: 403, date: null }, ms: 1 },
      }),
    ["failed reports.url MIRROR_STATUS"],
  ],
  [
    "a stick that is out",
    (host) => {
      const [, stick] = host.mirrors;
      if (stick) stick.down = "MIRROR_ABSENT";
      host.lookedAt.set("/mnt/stick", null);
    },
    ["untried mirror.directory", "untried mirror.manifest"],
  ],
];

test.each(FULL_FAULTS)("%s is named, and nothing else", async (_, break_, expected) => {
  const host = healthyHost(FULL);
  break_(host);
  expect(troubles(await examine(host)).sort()).toEqual([...expected].sort());
});

test("reports on sticks need a stick among the mirrors", async () => {
  const host = healthyHost({ sticks: { reports: true } });
  expect(troubles(await examine(host))).toEqual(["failed reports.sticks"]);
});

test("a release that another key signed fails its signatures, and no entry is looked at", async () => {
  const host = healthyHost({ publicKeys: [testKey("other-1").publicKey.text] });
  const results = await examine(host);
  expect(results.find(({ id }) => id === "keys.release")).toMatchObject({
    ...{ outcome: "failed", code: "SIGNATURE_THRESHOLD" },
  });
  expect(results.find(({ id }) => id === "release.host")).toMatchObject({ outcome: "untried" });
});

test("a release from the future, or one that expired, is about the clock", async () => {
  for (const [now, code] of [
    ["2020-01-01T00:00:00Z", "CLOCK_IMPLAUSIBLE"],
    ["2036-01-01T00:00:00Z", "MANIFEST_EXPIRED"],
  ] as const) {
    const host = healthyHost();
    const clock = { now: () => new Date(now) };
    const results = await examineHost({ ...host.tools, clock });
    expect(results.find(({ id }) => id === "clock.release")).toMatchObject({
      ...{ outcome: "failed", code },
    });
  }
});

test("what only root may see was not tried by others", async () => {
  const host = healthyHost(FULL);
  host.isRoot = false;
  const denied = new PullError("PERMISSION_DENIED", "EACCES: state.json");
  host.lookedAt.set("/etc/secret", {
    ...{ kind: "file", mode: 0o600, uid: 0, size: 20, readable: false },
  });
  const state = { ...host.tools.state, recall: () => Promise.reject(denied) };
  // What a daemon makes of this user says nothing about the agent's.
  host.fetchErrors.push(new PullError("IMPORT_FAILED", "the Nix daemon does not trust user me"));
  const results = await examineHost({ ...host.tools, state });
  expect(troubles(results)).toEqual([
    "untried release.decision",
    "untried release.closure",
    "untried store.trust",
    "untried files.state",
    "untried files.runtime",
    "untried files.record",
    "untried files.credential",
  ]);
  const untried = results.filter(({ outcome }) => outcome === "untried");
  expect(untried.every(({ advice }) => advice === "run it as root")).toBe(true);
});

test("what hangs is given up after a minute, and everything else is tried", async () => {
  const host = healthyHost({ mirrors: [MIRROR, "file:///mnt/dead"] });
  const [, dead] = host.mirrors;
  if (dead) dead.latencyMs = Infinity;
  const results = await examine(host);
  expect(troubles(results)).toEqual(["failed mirror.manifest MIRROR_STALLED"]);
  expect(host.time.now().getTime() - Date.parse("2026-02-01T00:00:00Z")).toBe(60_000);
});

test("a person can stop it", async () => {
  const host = healthyHost();
  const stop = new AbortController();
  stop.abort();
  const error = await rejectionOf(examineHost(host.tools, stop.signal));
  expect(error.code).toBe("INTERRUPTED");
});

test("a key that is revoked is named, and the others count", async () => {
  const host = healthyHost({
    publicKeys: [KEY, testKey("old-1").publicKey.text],
    revokedKeys: [testKey("old-1").publicKey.text],
  });
  const results = await examine(host);
  expect(troubles(results)).toEqual([]);
  expect(results.find(({ id }) => id === "keys.trusted")?.found).toBe(
    "fleet-1; 1 must sign; revoked: old-1",
  );
});
