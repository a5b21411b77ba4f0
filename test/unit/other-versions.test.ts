import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { fleetView } from "../../agent/core/fleet/fleet.ts";
import { parseReport, sealReport, type Report } from "../../agent/core/formats/report.ts";
import { countPoll, countersSchema } from "../../agent/core/metrics/counters.ts";
import { confirms } from "../../agent/core/schedule/confirmation.ts";
import { readChecked, writeChecked } from "../../agent/effects/files/checked-file.ts";
import { readConfirmation } from "../../agent/effects/state/confirmation-file.ts";
import { readHold } from "../../agent/effects/state/hold-file.ts";
import { ManifestCacheFile } from "../../agent/effects/state/manifest-cache.ts";
import { ReportSpoolFile } from "../../agent/effects/state/report-spool.ts";
import { readFleetMemory, writeFleetMemory } from "../../agent/fleet/memory.ts";
import { believeReports } from "../../agent/fleet/read-fleet.ts";
import { readPollReport } from "../../agent/host/poll/poll-report.ts";
import { ReportDelivery } from "../../agent/host/report/report-delivery.ts";
import { SignerMemoryFile } from "../../agent/operator/channel/signer-memory-file.ts";
import { MemoryHost } from "../support/memory-host.ts";
import { LATER_KEY, ofLaterVersion } from "../support/other-version.ts";
import { FLEET_NOW, hostKeyOf, sampleReport } from "../support/sample-fleet.ts";
import {
  sampleDigest,
  sampleManifest,
  samplePath,
  sampleRelease,
} from "../support/sample-release.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const AT = "2026-02-01T00:00:00.000Z";
const { mode: _, ...release } = sampleRelease();

/** A directory with one checked file as a later version writes it; gives how it looks now. */
async function laterFile(name: string, value: unknown, maps: readonly string[] = []) {
  const directory = await temporaryDirectory();
  const path = join(directory, name);
  const later = ofLaterVersion(value, maps) as Record<string, unknown>;
  await writeChecked(path, later);
  const now = async (): Promise<unknown> =>
    (JSON.parse(await readFile(path, "utf8")) as { value: unknown }).value;
  return { directory, path, later, now };
}

describe("a file that a later version of a host's agent wrote", () => {
  test("hold.json still holds the host", async () => {
    const hold = { at: AT, until: null, reason: "a storm" };
    const { directory, later } = await laterFile("hold.json", hold);
    expect(await readHold(directory)).toEqual({ kind: "held", hold: later });
  });

  test("confirmation.json confirms what is known, and nothing by a mode that is not", async () => {
    const { sequence, digest, toplevel } = release;
    const known = { at: AT, sequence, digest, toplevel, mode: "switch" } as const;
    const one = await laterFile("confirmation.json", known);
    expect(confirms(await readConfirmation(one.directory), known)).toBe(true);
    const other = await laterFile("confirmation.json", { ...known, mode: "live" });
    expect(confirms(await readConfirmation(other.directory), known)).toBe(false);
  });

  test("counters.json counts on, and keeps what it counts beside", async () => {
    const { path, later } = await laterFile("counters.json", {
      ...{ polls: 1, pollFailures: 0, updates: 1 },
    });
    const read = await readChecked(path, countersSchema);
    if (read.kind !== "read") throw new Error("expected counters");
    expect(countPoll(read.value, { failed: false, updated: false })).toEqual({
      ...later,
      polls: 2,
    });
  });

  test("poll.json is shown, with reasons, codes and modes that are not known", async () => {
    const error = { code: "CODE_OF_0_2", message: "m" };
    const { path, later } = await laterFile("poll.json", {
      ...{ at: AT, decision: "dreaming", error },
      release: { sequence: 1, digest: release.digest, toplevel: release.toplevel, mode: "live" },
      waits: [{ reason: "MOON", message: "m", until: null, binds: "cats", allowsFetch: true }],
      mirrors: [{ mirror: "m", unchanged: false, ...error }],
      archives: [{ mirror: "m", at: AT, ...error }],
    });
    const read = await readPollReport({
      async read(_name, schema) {
        const found = await readChecked(path, schema);
        return found.kind === "read" ? found.value : null;
      },
    });
    expect(read).toEqual(later);
  });

  test("manifests.json keeps what is not known of other mirrors' manifests", async () => {
    const entry = { etag: '"1"', envelope: "e30=" };
    const { directory, later, now } = await laterFile(
      ...(["manifests.json", { all: { "stable m1": entry } }, ["all"]] as const),
    );
    const { all } = later as { all: Record<string, unknown> };
    await writeChecked(join(directory, "manifests.json"), all);
    const cache = new ManifestCacheFile(directory);
    await cache.put("m2", "stable", { bytes: Buffer.from("{}"), validators: {} });
    await cache.save();
    expect(await now()).toEqual({ ...all, "stable m2": { envelope: "e30=" } });
  });

  test("report.pending.json goes where this version can bring it, and waits for the rest", async () => {
    const target = { target: "directory", failures: 1, retryAt: AT };
    const queue = { ...target, target: "queue" };
    const { directory, later, now } = await laterFile("report.pending.json", {
      envelope: "e",
      targets: [target, queue],
    });
    const spool = new ReportSpoolFile(directory);
    const host = new MemoryHost({ reports: { directory: "/srv/reports" } });
    const reports = new ReportDelivery({ ...host.tools, spool });
    await reports.retry();
    expect(host.takeCalls()).toEqual(["deliver report to directory"]);
    expect(await now()).toEqual({ ...later, targets: [ofLaterVersion(queue)] });
    expect(await reports.untilRetry()).toBe(Infinity);
    host.fault("deliver report to directory", "MIRROR_STATUS", "503");
    await reports.sendNew();
    expect(await now()).toMatchObject({
      [LATER_KEY]: {},
      targets: [{ target: "directory", failures: 1 }, ofLaterVersion(queue)],
    });
  });
});

describe("a report of a later version", () => {
  const key = hostKeyOf("web1");
  const later: object = {
    ...(ofLaterVersion(sampleReport("web1")) as Report),
    ...{ formatVersion: 2, state: "Soaking", code: "CODE_OF_0_2", message: "wet" },
    waits: [{ reason: "MOON", message: "the moon", until: null }],
    drift: { what: "kernel", expected: samplePath("a"), found: null },
  };

  test("is believed, shown as far as it is known, and remembered beside what is not", () => {
    const bytes = Buffer.from(sealReport(later as Report, key));
    const memory = {
      ...{ formatVersion: 2, [LATER_KEY]: 1 },
      hosts: { web1: { at: AT, [LATER_KEY]: 2 }, web2: { at: null, [LATER_KEY]: 3 } },
    };
    const believed = believeReports(
      [{ hostname: "web1", bytes }],
      { keys: new Map([["web1", [key.publicKey]]]), memory, trustNew: false },
      FLEET_NOW,
    );
    expect(believed.refused).toEqual([]);
    expect(believed.memory).toMatchObject({
      ...{ formatVersion: 2, [LATER_KEY]: 1 },
      hosts: { web1: { [LATER_KEY]: 2 }, web2: { [LATER_KEY]: 3 } },
    });
    const view = fleetView(
      { reports: believed.reports, distrusted: [], manifests: [] },
      { now: FLEET_NOW, silentAfter: 86_400_000 },
    );
    expect(view.hosts).toMatchObject([
      { hostname: "web1", standing: "failing", code: "CODE_OF_0_2", note: "wet", drifted: true },
    ]);
    expect(view.codes).toEqual([{ code: "CODE_OF_0_2", hosts: 1 }]);
  });

  test("says what differs, although nobody here knows that place", () => {
    const { code: __, ...others } = later as Report;
    const report = parseReport(Buffer.from(JSON.stringify({ ...others, code: null })));
    const view = fleetView(
      { reports: [report], distrusted: [], manifests: [] },
      { now: FLEET_NOW, silentAfter: 86_400_000 },
    );
    expect(view.hosts).toMatchObject([
      { standing: "drifted", note: `kernel: expected ${samplePath("a")}, found nothing` },
    ]);
  });
});

describe("an operator's file that a later version wrote", () => {
  test("the fleet's memory stays whole", async () => {
    const path = join(await temporaryDirectory(), "fleet.memory");
    const later = ofLaterVersion({ formatVersion: 2, hosts: { web1: { at: AT } } }, ["hosts"]);
    await writeChecked(path, later);
    const memory = await readFleetMemory(path);
    await writeFleetMemory(path, memory);
    expect(await readFleetMemory(path)).toEqual(later);
  });

  test("the signer's memory stays whole beside what is added", async () => {
    const path = join(await temporaryDirectory(), "fleet-1.memory");
    const named = (sequence: number) => ({ sequence, digest: sampleDigest(`${sequence}`) });
    const later = ofLaterVersion({
      formatVersion: 2,
      channels: [
        { channel: "canary", inForce: null, signed: [named(3)] },
        { channel: "stable", inForce: named(1), signed: [] },
      ],
    });
    await writeFile(path, JSON.stringify(later));
    const memory = await SignerMemoryFile.open([path]);
    const manifest = sampleManifest({ channel: "stable", sequence: 2 });
    await memory.rememberSigned({ manifest, digest: sampleDigest("2") });
    const now = JSON.parse(await readFile(path, "utf8")) as { channels: unknown[] };
    const { channels, ...others } = later as { channels: object[] };
    expect(now).toMatchObject(others);
    expect(now.channels).toEqual([channels[0], { ...channels[1], signed: [named(2)] }]);
  });
});
