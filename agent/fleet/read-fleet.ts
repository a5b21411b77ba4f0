import type { Distrust } from "../core/fleet/fleet.ts";
import type { Report } from "../core/formats/report.ts";
import { believeReport, type HostKeys } from "../core/fleet/report-trust.ts";
import { parsePublicKey, type PublicKey } from "../core/formats/signing-key.ts";
import { CLOCK_TOLERANCE_MS } from "../core/release/acceptance.ts";
import type { FleetMemory } from "./memory.ts";
import type { FoundReport } from "./report-source.ts";

/** Which reports of a fleet are believed. */
export interface BelievedReports {
  /** The newest believed report of each host. */
  readonly reports: readonly Report[];
  /** Hosts without a believed report, and why. */
  readonly distrusted: readonly Distrust[];
  /** Every report that was not believed, also of hosts with a good one elsewhere. */
  readonly refused: readonly Distrust[];
  /** Hosts whose keys were pinned now. */
  readonly pinned: readonly { readonly hostname: string; readonly key: PublicKey }[];
  readonly memory: FleetMemory;
}

/** Decides about all reports that were found. Pure. */
export function believeReports(
  found: readonly FoundReport[],
  trust: { readonly keys: HostKeys; readonly memory: FleetMemory; readonly trustNew: boolean },
  now: Date,
): BelievedReports {
  const newest = new Map<string, Report>();
  const refused: Distrust[] = [];
  const pins = new Map<string, PublicKey>();
  for (const item of found) {
    const { hostname } = item;
    if ("unreadable" in item) {
      refused.push({ hostname, reason: "REPORT_UNREADABLE", message: item.unreadable });
      continue;
    }
    const remembered = rememberedHost(trust.memory, hostname);
    const pinned = pins.get(hostname) ?? (remembered?.key && parsePublicKey(remembered.key));
    // Keys that an operator wrote down come before a key that was pinned.
    const keys = trust.keys.get(hostname) ?? (pinned ? [pinned] : []);
    const belief = believeReport(
      hostname,
      item.bytes,
      { keys, at: remembered?.at ?? null },
      trust.trustNew,
    );
    if (belief.kind === "distrusted") {
      refused.push({ hostname, reason: belief.reason, message: belief.message });
      continue;
    }
    if (keys.length === 0) pins.set(hostname, belief.key);
    const before = newest.get(hostname);
    if (!before || isNewer(belief.report, before, now)) newest.set(hostname, belief.report);
  }
  return {
    reports: [...newest.values()],
    distrusted: refused.filter(({ hostname }) => !newest.has(hostname)),
    refused,
    pinned: [...pins].map(([hostname, key]) => ({ hostname, key })),
    memory: remember(trust.memory, newest, pins, now),
  };
}

/** Whether a report is the later one. One from the future, by a wrong clock, is older than any other. */
function isNewer(report: Report, other: Report, now: Date): boolean {
  const madeAt = ({ at }: Report): number => {
    const time = Date.parse(at);
    return time > now.getTime() + CLOCK_TOLERANCE_MS ? -Infinity : time;
  };
  return madeAt(report) > madeAt(other);
}

function remember(
  before: FleetMemory,
  newest: ReadonlyMap<string, Report>,
  pins: ReadonlyMap<string, PublicKey>,
  now: Date,
): FleetMemory {
  const hosts: FleetMemory["hosts"] = { ...before.hosts };
  for (const [host, { at }] of newest) {
    const known = rememberedHost(before, host);
    const key = pins.get(host)?.text ?? known?.key;
    // A clock that was ahead once must not turn all later reports into replays.
    const seen = Date.parse(at) > now.getTime() ? now.toISOString() : at;
    hosts[host] = { ...known, at: seen, ...(key !== undefined && { key }) };
  }
  return { ...before, hosts };
}

/** Own properties only: a host may be named `constructor`. */
function rememberedHost({ hosts }: FleetMemory, host: string): FleetMemory["hosts"][string] | null {
  return Object.hasOwn(hosts, host) ? (hosts[host] ?? null) : null;
}
