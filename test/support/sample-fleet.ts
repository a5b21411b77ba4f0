import { createHash } from "node:crypto";
import { fleetView, type Fleet } from "../../agent/core/fleet/fleet.ts";
import type { Manifest } from "../../agent/core/formats/manifest.ts";
import { sealReport, type Report } from "../../agent/core/formats/report.ts";
import { testKey } from "./test-key.ts";

/** When the sample fleet is looked at. */
export const FLEET_NOW = new Date("2026-11-24T12:00:00.000Z");

const HOUR_MS = 3_600_000;
const GIB = 1024 ** 3;

/** A digest that looks like one. */
export function sampleDigest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** A store path that looks like one. */
export function sampleToplevel(name: string): string {
  return `/nix/store/${sampleDigest(name).replace(/[etu]/g, "0").slice(0, 32)}-nixos-system-${name}`;
}

const hoursAgo = (hours: number): string =>
  new Date(FLEET_NOW.getTime() - hours * HOUR_MS).toISOString();

/** A host that is what release 12 wants it to be. */
export function sampleReport(hostname: string, changes: Partial<Report> = {}): Report {
  const toplevel = sampleToplevel(`${hostname}-12`);
  return {
    formatVersion: 1,
    hostname,
    machineId: sampleDigest(hostname),
    at: hoursAgo(0.1),
    channel: "stable",
    release: {
      sequence: 12,
      digest: sampleDigest("release 12"),
      toplevel,
      rebootNeeded: false,
      committedAt: hoursAgo(5),
    },
    accepted: { epoch: 0, sequence: 12, digest: sampleDigest("release 12") },
    state: "Idle",
    code: null,
    message: null,
    profile: toplevel,
    running: toplevel,
    booted: toplevel,
    agentVersion: "0.1.0",
    lastPoll: { at: hoursAgo(0.1), decision: "active", sequence: 12 },
    disk: { free: 40 * GIB, total: 100 * GIB },
    ...changes,
  };
}

/** The key of a sample host. */
export function hostKeyOf(hostname: string): ReturnType<typeof testKey> {
  return testKey(`host-${hostname}`);
}

/** The report as its host would sign it. */
export function sealedReport(report: Report): string {
  const key = hostKeyOf(report.hostname);
  return sealReport({ publicKey: key.publicKey.text, ...report }, key);
}

const oldRelease = (hostname: string): NonNullable<Report["release"]> => ({
  sequence: 11,
  digest: sampleDigest("release 11"),
  toplevel: sampleToplevel(`${hostname}-11`),
  rebootNeeded: false,
  committedAt: hoursAgo(300),
});

const LOG = [
  "stopping the following units: nginx.service, postgresql.service",
  "activating the configuration...",
  "setting up /etc...",
  "reloading user units for operator...",
  "starting the following units: nginx.service, postgresql.service",
  "warning: the following units failed: postgresql.service",
  "× postgresql.service - PostgreSQL Server",
  "     Loaded: loaded (/etc/systemd/system/postgresql.service; enabled)",
  "     Active: failed (Result: exit-code) since Tue 2026-11-24 10:41:07 UTC; 1s ago",
  "   Main PID: 41337 (code=exited, status=1/FAILURE)",
  "postgres[41337]: FATAL: data directory was initialized by PostgreSQL version 15",
];

/** What may befall a host, in the proportions of a fleet in the middle of a rollout. */
export function variedReport(hostname: string, at: number, of: number): Report | null {
  const committedAt = hoursAgo(5.5 * (1 - (at + 1) / of) ** 2 + 0.2);
  const good = sampleReport(hostname);
  const release = { ...good.release!, committedAt };
  const old = { release: oldRelease(hostname), profile: oldRelease(hostname).toplevel };
  const disk = { free: ((at * 37) % 90) * GIB + GIB / 2, total: 100 * GIB };
  switch (at % 17) {
    case 2:
      return sampleReport(hostname, {
        ...old,
        code: "RELEASE_DENIED",
        message:
          "release 12 is not tried again here: ACTIVATION_FAILED: switch-to-configuration ended with exit code 4",
        failure: {
          at: hoursAgo(1.3),
          sequence: 12,
          toplevel: good.release!.toplevel,
          code: "ACTIVATION_FAILED",
          message: "switch-to-configuration ended with exit code 4",
          lastLines: LOG,
        },
      });
    case 5:
      return sampleReport(hostname, {
        ...old,
        disk,
        waits: [
          {
            reason: "WINDOW_CLOSED",
            message: "the maintenance window opens at 2026-11-25T03:00:00Z",
            until: "2026-11-25T03:00:00.000Z",
          },
        ],
        accepted: { ...good.accepted! },
      });
    case 7:
      return sampleReport(hostname, {
        ...old,
        code: at % 2 === 0 ? "MIRROR_UNREACHABLE" : "DISK_FULL",
        message:
          at % 2 === 0
            ? "https://releases.example.org/channels/stable/manifest.json: connect ECONNREFUSED 203.0.113.9:443"
            : "expected 2.1 GiB free in /nix/store, found 0.4 GiB",
        disk: { free: 0.4 * GIB, total: 100 * GIB },
      });
    case 9:
      return sampleReport(hostname, {
        release: { ...release, rebootNeeded: true },
        disk,
        pendingReboot: {
          sequence: 12,
          message: "release 12 is complete only after a reboot",
          policy: "window",
          requested: 0,
        },
      });
    case 11:
      return sampleReport(hostname, { ...old, state: "Fetching", disk });
    case 13:
      return at % 2 === 0
        ? sampleReport(hostname, { at: hoursAgo(76), release, disk })
        : sampleReport(hostname, {
            release,
            drift: {
              what: "profile",
              expected: release.toplevel,
              found: sampleToplevel("by-hand"),
            },
          });
    case 15:
      return at % 2 === 0 ? null : sampleReport(hostname, { release, disk });
    default:
      return sampleReport(hostname, { release, disk });
  }
}

const NAMES = ["gateway", "web", "db", "edge", "kiosk", "build", "camera", "till"];

/** Names of a fleet of that size. */
export function sampleHostnames(count: number): string[] {
  return Array.from({ length: count }, (_, at) => {
    const kind = NAMES[at % NAMES.length];
    return `${kind}-${String(Math.floor(at / NAMES.length) + 1).padStart(3, "0")}.site${(at % 23) + 1}.example.org`;
  });
}

/** Release 12 of stable for these hosts. */
export function sampleManifest(hostnames: readonly string[]): Manifest {
  const entry = (hostname: string): Manifest["hosts"][string] => ({
    toplevel: sampleToplevel(`${hostname}-12`),
    closureSize: 1,
    archive: {
      sha256: sampleDigest(hostname),
      size: 1,
      index: { sha256: sampleDigest(hostname), size: 1 },
    },
  });
  return {
    formatVersion: 1,
    channel: "stable",
    sequence: 12,
    createdAt: hoursAgo(6),
    expiresAt: "2027-02-22T06:00:00.000Z",
    history: { since: { sequence: 12 }, releases: [] },
    defaults: { activation: { mode: "switch" } },
    hosts: Object.fromEntries(hostnames.map((name) => [name, entry(name)])),
  };
}

/** How the sample fleets are looked at. */
export const FLEET_OPTIONS = { now: FLEET_NOW, silentAfter: 86_400_000 };

/** The sample fleet of so many hosts, as it is shown. */
export function sampleView(count: number): Fleet {
  const names = sampleHostnames(count);
  const reports = names.flatMap((name, at) => variedReport(name, at, count) ?? []);
  return fleetView(
    { reports, manifests: [{ manifest: sampleManifest(names), digest: "" }], distrusted: [] },
    FLEET_OPTIONS,
  );
}

/** A host that writes `text` wherever its report has room for text. */
export function hostileView(text: string): Fleet {
  const report = sampleReport("web1", {
    state: text.slice(0, 50),
    code: "DISK_FULL",
    message: text,
    agentVersion: text.slice(0, 50),
    waits: [{ reason: "HELD", message: text, until: null }],
    failure: {
      ...{ at: FLEET_NOW.toISOString(), sequence: 12, toplevel: null, code: "ACTIVATION_FAILED" },
      ...{ message: `${text}!`, lastLines: [text] },
    },
  });
  const distrusted = [{ hostname: "web2", reason: "REPORT_INVALID" as const, message: text }];
  return fleetView({ reports: [report], manifests: [], distrusted }, FLEET_OPTIONS);
}
