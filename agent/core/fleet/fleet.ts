import { CLOCK_TOLERANCE_MS } from "../release/acceptance.ts";
import { describeDrift } from "../update/drift.ts";
import type { ErrorCode } from "../errors.ts";
import {
  comparePositions,
  describePosition,
  positionOf,
  type Manifest,
} from "../formats/manifest.ts";
import type { Position } from "../formats/manifest.ts";
import type { Open } from "../formats/compatibility.ts";
import type { Report } from "../formats/report.ts";
import { describeOutdated, outdatedAgent } from "./outdated-agents.ts";

/**
 * The fleet as its hosts describe it, beside what the channels' manifests say that it
 * should be. Pure: the same reports, manifests and time give the same view.
 */

/** How a host is doing, worst first; a host has the first one that applies. */
export const STANDINGS = [
  /** What claims to be its report is not to be believed. */
  "distrusted",
  /** It says that something is wrong. */
  "failing",
  /** Its last report is older than it may be. */
  "silent",
  /** A manifest names it, and it never reported. */
  "missing",
  /** Somebody changed it by hand. */
  "drifted",
  /** The release waits for a window, its wave or a person. */
  "waiting",
  /** It runs another release and is on its way. */
  "behind",
  /** It runs the release, but only a reboot makes that complete. */
  "reboot",
  /** It runs what it should. */
  "current",
] as const;
export type Standing = (typeof STANDINGS)[number];

/** Those that want a person to look; `fleet --exit-code` tells them. */
export const TROUBLED: ReadonlySet<Standing> = new Set([
  "distrusted",
  "failing",
  "silent",
  "missing",
  "drifted",
]);

/** Why a report was not believed. */
export const DISTRUST_REASONS = [
  /** A valid report, but by another key than the one that is known for the host. */
  "KEY_CHANGED",
  /** No key is known for this host. */
  "KEY_UNKNOWN",
  /** Not a report, or not signed by the host's key. */
  "REPORT_INVALID",
  /** Older than one that was read before. */
  "REPORT_REPLAYED",
  /** It is there, but could not be read. */
  "REPORT_UNREADABLE",
] as const;
export type DistrustReason = (typeof DISTRUST_REASONS)[number];

/** A report that was not believed. `message` may hold words of whoever wrote it. */
export interface Distrust {
  readonly hostname: string;
  readonly reason: DistrustReason;
  readonly message: string;
}

/** What was read of the fleet, as `readReports` gives it. */
export interface FleetInput {
  /** At most one for each host: verified, and the newest. */
  readonly reports: readonly Report[];
  readonly distrusted: readonly Distrust[];
  /** Verified manifests, one for each channel at most. */
  readonly manifests: readonly { readonly manifest: Manifest; readonly digest: string }[];
  /** When each host was last heard of, from the memory of earlier readings. */
  readonly lastSeen?: ReadonlyMap<string, string>;
}

export interface FleetOptions {
  readonly now: Date;
  /** A host that said nothing for longer is silent, in milliseconds. */
  readonly silentAfter: number;
}

/** One host. Null stands for what is not known. */
export interface FleetHost {
  readonly hostname: string;
  readonly channel: string | null;
  readonly standing: Standing;
  /** Why, for people. */
  readonly note: string | null;
  /** The reason code, of the report or of its refusal. */
  readonly code: Open<ErrorCode | DistrustReason> | null;
  /** The sequence number of the release that it last became. */
  readonly release: number | null;
  /** Whether it runs the system that it should; null if that is not known. */
  readonly onTarget: boolean | null;
  readonly state: string | null;
  readonly lastSeen: string | null;
  readonly rebootNeeded: boolean;
  readonly drifted: boolean;
  readonly disk: { readonly free: number; readonly total: number } | null;
  readonly committedAt: string | null;
  readonly waits: NonNullable<Report["waits"]>;
  readonly failure: NonNullable<Report["failure"]> | null;
  readonly agentVersion: string | null;
}

/** What a channel's hosts are to become, and how many of them are that. */
export interface FleetTarget {
  readonly channel: string;
  readonly position: Position;
  /** True if a manifest says so, false if it is the newest that any host accepted. */
  readonly signed: boolean;
  readonly createdAt: string | null;
  readonly expiresAt: string | null;
  readonly expired: boolean;
  readonly hosts: number;
  readonly onTarget: number;
  /** When each of those became it, oldest first. */
  readonly committed: readonly string[];
}

export interface Fleet {
  readonly at: string;
  /** Worst first, then by name. */
  readonly hosts: readonly FleetHost[];
  readonly targets: readonly FleetTarget[];
  readonly counts: Readonly<Record<Standing, number>>;
  /** How many of the hosts carry each code, most first. */
  readonly codes: readonly { readonly code: string; readonly hosts: number }[];
}

/** Puts everything that is known of the fleet together. */
export function fleetView(input: FleetInput, options: FleetOptions): Fleet {
  const reports = new Map(input.reports.map((report) => [report.hostname, report]));
  const distrusted = new Map(input.distrusted.map((it) => [it.hostname, it]));
  const manifests = new Map(input.manifests.map((it) => [it.manifest.channel, it.manifest]));
  const newest = newestAccepted(input.reports);
  const named = input.manifests.flatMap(({ manifest }) =>
    Object.keys(manifest.hosts).map((hostname) => [hostname, manifest.channel] as const),
  );
  const channels = new Map(named);
  const names = new Set([...channels.keys(), ...reports.keys(), ...distrusted.keys()]);
  const hosts = [...names]
    .map((hostname): FleetHost => {
      const report = reports.get(hostname) ?? null;
      // Whoever moves a host to another channel does so on the host: its word counts.
      const channel = report?.channel ?? channels.get(hostname) ?? null;
      const manifest = channel === null ? undefined : manifests.get(channel);
      return describeHost(hostname, {
        ...{ report, channel, manifest, options },
        distrust: distrusted.get(hostname) ?? null,
        newest: channel === null ? null : (newest.get(channel) ?? null),
        lastSeen: input.lastSeen?.get(hostname) ?? null,
      });
    })
    .sort(byStanding);
  const counts = Object.fromEntries(STANDINGS.map((it) => [it, 0])) as Record<Standing, number>;
  for (const { standing } of hosts) counts[standing] += 1;
  return {
    at: options.now.toISOString(),
    hosts,
    targets: targetsOf(hosts, manifests, newest, options.now),
    counts,
    codes: countCodes(hosts),
  };
}

interface Known {
  readonly report: Report | null;
  readonly distrust: Distrust | null;
  readonly channel: string | null;
  readonly manifest: Manifest | undefined;
  readonly newest: Position | null;
  readonly lastSeen: string | null;
  readonly options: FleetOptions;
}

function describeHost(hostname: string, known: Known): FleetHost {
  const { report, channel, lastSeen } = known;
  const onTarget = isOnTarget(hostname, known);
  const { standing, note, code } = judge(known, hostname, onTarget);
  return {
    ...{ hostname, channel, standing, note, code, onTarget },
    release: report?.release?.sequence ?? null,
    state: report?.state ?? null,
    lastSeen: report?.at ?? lastSeen,
    rebootNeeded: report?.pendingReboot !== undefined || (report?.release?.rebootNeeded ?? false),
    drifted: report?.drift !== undefined,
    disk: report?.disk ?? null,
    committedAt: report?.release?.committedAt ?? null,
    waits: report?.waits ?? [],
    failure: report?.failure ?? null,
    agentVersion: report?.agentVersion ?? null,
  };
}

/** A refresh of a release changes its digest; what counts is the system. */
function isOnTarget(hostname: string, { report, manifest, newest }: Known): boolean | null {
  if (manifest) {
    const entry = Object.hasOwn(manifest.hosts, hostname) ? manifest.hosts[hostname] : undefined;
    if (!entry) return null;
    return report?.release?.toplevel === entry.toplevel && report.drift === undefined;
  }
  if (!report || !newest) return null;
  return report.release?.sequence === newest.sequence && report.drift === undefined;
}

function judge(
  known: Known,
  hostname: string,
  onTarget: boolean | null,
): Pick<FleetHost, "standing" | "note" | "code"> {
  const { report, distrust, manifest, options, lastSeen } = known;
  if (distrust) {
    return { standing: "distrusted", note: distrust.message, code: distrust.reason };
  }
  const say = (
    standing: Standing,
    note: string | null = null,
  ): Pick<FleetHost, "standing" | "note" | "code"> => ({
    ...{ standing, note },
    code: report?.code ?? null,
  });
  if (!report) {
    return say(
      "missing",
      lastSeen === null ? "it never reported" : `no report here; last seen at ${lastSeen}`,
    );
  }
  if (report.code !== null) return say("failing", report.message);
  const age = options.now.getTime() - Date.parse(report.at);
  if (age > options.silentAfter) return say("silent", `no report since ${report.at}`);
  if (age < -CLOCK_TOLERANCE_MS) return say("silent", `its clock is ahead: it says ${report.at}`);
  if (report.drift) {
    return say("drifted", describeDrift(report.drift));
  }
  if (report.waits && report.waits.length > 0) {
    return say("waiting", report.waits.map(({ message }) => message).join("; "));
  }
  const outdated = manifest && outdatedAgent(manifest, report);
  if (onTarget === false) {
    return say("behind", outdated ? describeOutdated(outdated) : stepOf(report));
  }
  if (report.pendingReboot ?? report.release?.rebootNeeded) {
    return say("reboot", report.pendingReboot?.message ?? "a reboot is needed");
  }
  if (!report.release) return say("behind", "no release applied yet");
  if (manifest && !Object.hasOwn(manifest.hosts, hostname)) {
    return say("current", `release ${manifest.sequence} of ${manifest.channel} does not name it`);
  }
  return say("current");
}

function stepOf({ state, accepted }: Report): string {
  if (accepted === null) return "no release accepted yet";
  return `${state}, accepted up to ${describePosition(accepted)}`;
}

function newestAccepted(reports: readonly Report[]): Map<string, Position> {
  const newest = new Map<string, Position>();
  for (const { channel, accepted } of reports) {
    const known = newest.get(channel);
    if (accepted && (!known || comparePositions(accepted, known) > 0)) {
      newest.set(channel, { epoch: accepted.epoch, sequence: accepted.sequence });
    }
  }
  return newest;
}

function targetsOf(
  hosts: readonly FleetHost[],
  manifests: ReadonlyMap<string, Manifest>,
  newest: ReadonlyMap<string, Position>,
  now: Date,
): FleetTarget[] {
  const channels = [...new Set([...manifests.keys(), ...newest.keys()])].sort();
  return channels.flatMap((channel): FleetTarget[] => {
    const manifest = manifests.get(channel);
    const position = manifest ? positionOf(manifest) : newest.get(channel);
    if (!position) return [];
    const own = hosts.filter((it) => it.channel === channel && it.onTarget !== null);
    const arrived = own.filter((it) => it.onTarget);
    return [
      {
        ...{ channel, position },
        signed: manifest !== undefined,
        createdAt: manifest?.createdAt ?? null,
        expiresAt: manifest?.expiresAt ?? null,
        expired: manifest !== undefined && Date.parse(manifest.expiresAt) <= now.getTime(),
        hosts: own.length,
        onTarget: arrived.length,
        committed: arrived.flatMap(({ committedAt }) => committedAt ?? []).sort(byTime),
      },
    ];
  });
}

function byTime(a: string, b: string): number {
  return Date.parse(a) - Date.parse(b);
}

function countCodes(hosts: readonly FleetHost[]): Fleet["codes"] {
  const counts = new Map<string, number>();
  for (const { code } of hosts) if (code !== null) counts.set(code, (counts.get(code) ?? 0) + 1);
  return [...counts]
    .map(([code, number]) => ({ code, hosts: number }))
    .sort((a, b) => b.hosts - a.hosts || (a.code < b.code ? -1 : 1));
}

const RANKS = new Map<Standing, number>(STANDINGS.map((standing, at) => [standing, at]));

function byStanding(a: FleetHost, b: FleetHost): number {
  const worse = (RANKS.get(a.standing) ?? 0) - (RANKS.get(b.standing) ?? 0);
  return worse || (a.hostname < b.hostname ? -1 : a.hostname > b.hostname ? 1 : 0);
}

/** `47 of 50 hosts run release 12 of stable`, for each channel. */
export function describeTarget({
  channel,
  position,
  hosts,
  onTarget,
  expired,
}: FleetTarget): string {
  return (
    `${onTarget} of ${hosts} ${hosts === 1 ? "host runs" : "hosts run"} release ${describePosition(position)} of ${channel}` +
    (expired ? ", which has expired" : "")
  );
}

/** `3 failing, 1 silent`: the standings that there are, worst first. */
export function describeCounts(counts: Fleet["counts"]): string {
  return STANDINGS.filter((it) => counts[it] > 0)
    .map((it) => `${counts[it]} ${it}`)
    .join(", ");
}

/** Which release a failed update was for: the host's present trouble may be about another one. */
export function describeFailed({ sequence, at }: NonNullable<Report["failure"]>): string {
  return `the update to release ${sequence ?? "?"} failed at ${at}`;
}
