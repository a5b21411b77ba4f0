import { readFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { readManifest, type Manifest } from "../../agent/core/formats/manifest.ts";
import { historyAfter } from "../../agent/core/release/release-history.ts";
import { answerOf, jsonOf } from "../support/answer.ts";
import { honestly, servedRelease, type Target } from "../support/attack.ts";
import { rootsOf, snapshotOf } from "../support/host-snapshot.ts";
import {
  interruptArchive,
  manifestAnswers,
  manifestStatus,
  parseRange,
} from "../support/misbehaviours.ts";
import type { MirrorServer, Misbehaviour } from "../support/mirror-server.ts";
import type { CommandOutput } from "../support/nixos-pull.ts";
import { publishReleases, sealManifest, type ReleaseSeries } from "../support/release-series.ts";
import { runsOf } from "../support/scripted-system.ts";
import { suiteDirectory } from "../support/suite-directory.ts";

const directory = suiteDirectory();
let series: ReleaseSeries;
beforeAll(async () => {
  series = await publishReleases(directory);
});

/** Where an archive's first member, its index, begins. */
const INDEX_OFFSET = 512;

type Served = Target & { server: MirrorServer };

/** The place of a release after the one in an envelope. */
function comingAfter(before: Uint8Array, sequence: number): Pick<Manifest, "sequence" | "history"> {
  const trust = { publicKeys: [series.secretKey.publicKey], threshold: 1 };
  return { sequence, history: historyAfter(readManifest(before, trust)) };
}

/** Puts release 2 as the operator changed it into force. */
async function publishChanged(
  { mirror }: Served,
  sequence: number,
  change: (manifest: Manifest) => unknown,
): Promise<void> {
  const before = await readFile(mirror.manifestFile);
  const manifest = { ...structuredClone(series.manifests[2]), ...comingAfter(before, sequence) };
  change(manifest);
  await mirror.writeManifest(sealManifest(manifest, series.secretKey));
}

function paused(manifest: Manifest): void {
  const start = manifest.createdAt;
  manifest.rollout = { start, salt: "s", paused: { since: start, reason: "disks fill up" } };
}

/** Applies release 2 and does something in the middle of its download. */
async function applyWith(
  { host, server, mirror }: Served,
  meanwhile: () => unknown,
  { then = honestly, goesOn = true }: { then?: Misbehaviour; goesOn?: boolean } = {},
): Promise<CommandOutput> {
  const pause = interruptArchive(mirror.directory, 100_000, "wait");
  server.misbehave = pause.misbehave;
  const applying = host.start("apply");
  await pause.reached;
  await meanwhile();
  server.misbehave = then;
  if (goesOn) pause.goOn();
  return applying.ended;
}

interface Status {
  readonly state: { readonly name: string };
  readonly lastPoll: {
    readonly decision: string;
    readonly error: { readonly code: string } | null;
    readonly waits: readonly { readonly reason: string }[];
  };
}

function manifestReads({ requests }: MirrorServer): number[] {
  return requests.filter(({ path }) => path.endsWith("/manifest.json")).map(({ status }) => status);
}

describe("while its closure is fetched, a release that is", () => {
  test("paused is not activated; what was imported is kept and used after the pause", async () => {
    const served = await servedRelease(series);
    const { host, server } = served;
    const before = await snapshotOf(host);
    const { exitCode, stdout } = await applyWith(served, () => publishChanged(served, 3, paused));
    expect(stdout).toContain("its rollout is paused since");
    expect(stdout).toContain("disks fill up");
    expect(exitCode).toBe(11);
    expect(await snapshotOf(host)).toEqual(before);
    const status = await jsonOf<Status>(host, "status");
    expect(status).toMatchObject({
      state: { name: "Imported" },
      lastPoll: {
        decision: "waiting",
        error: null,
        release: { sequence: 3 },
        waits: [{ reason: "ROLLOUT_PAUSED" }],
      },
    });
    expect((await rootsOf(host))["pending"]).toBe(series.toplevels[2]);
    // Polls during the pause leave it so.
    expect(await answerOf(host, "apply")).toMatchObject({ decision: "waiting" });
    expect((await rootsOf(host))["pending"]).toBe(series.toplevels[2]);

    await publishChanged(served, 4, () => undefined);
    const from = server.requests.length;
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, updated: true });
    // The new manifest's index, and no NAR.
    const reads = server.requests.slice(from).flatMap(({ range }) => parseRange(range) ?? []);
    expect(reads.filter(({ from: first }) => first !== INDEX_OFFSET)).toEqual([]);
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1], series.toplevels[2]));
  });

  test("aborted is not activated, and the host goes on as it is", async () => {
    const served = await servedRelease(series);
    const { host } = served;
    const { exitCode } = await applyWith(served, () =>
      publishChanged(served, 3, ({ hosts }) => {
        hosts["web1"] = series.manifests[1].hosts["web1"]!;
      }),
    );
    expect(exitCode).toBe(0);
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1]));
    expect(await jsonOf<Status>(host, "status")).toMatchObject({
      state: { name: "Idle" },
      committed: { sequence: 3, toplevel: series.toplevels[1] },
      lastPoll: { decision: "adopt", error: null },
    });
    expect(await host.stagingIsClean()).toBe(true);
  });

  test("no longer for this host is not activated", async () => {
    const served = await servedRelease(series);
    const { host } = served;
    const { exitCode, stderr } = await applyWith(served, () =>
      publishChanged(served, 3, ({ hosts }) => {
        hosts["web2"] = hosts["web1"]!;
        delete hosts["web1"];
      }),
    );
    expect(stderr).toMatch(/release 2 is not activated: .*web1/);
    expect(exitCode).toBe(4);
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1]));
    expect(await jsonOf<Status>(host, "status")).toMatchObject({ state: { name: "Idle" } });
  });

  test("replaced by a newer one is left out", async () => {
    const served = await servedRelease(series);
    const { host, mirror } = served;
    const { exitCode, stdout } = await applyWith(served, () => mirror.release(3));
    expect(exitCode, stdout).toBe(0);
    expect(stdout).toContain("Applied release 3 of stable");
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1], series.toplevels[3]));
  });

  test("replaced at every look is left to later polls in the end", async () => {
    const served = await servedRelease(series);
    const { host, mirror } = served;
    let sequence = 2;
    let last = await readFile(mirror.manifestFile);
    // Each manifest is another one than the poll before found.
    const restless: Misbehaviour = manifestAnswers((_, response) => {
      sequence += 1;
      const manifest = { ...series.manifests[2], ...comingAfter(last, sequence) };
      last = Buffer.from(sealManifest(manifest, series.secretKey));
      response.writeHead(200).end(last);
    });
    const { stdout } = await applyWith(served, () => undefined, { then: restless });
    expect(stdout).not.toContain("Applied");
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1]));
    expect(sequence).toBeLessThan(10);
  });

  test.each([
    ["cannot be asked about any more", manifestStatus(503), 503],
    [
      "replayed by a mirror that went back",
      manifestAnswers((_, response) => {
        response.writeHead(200).end(sealManifest(series.manifests[1], series.secretKey));
      }),
      200,
    ],
  ])("%s is activated as it was accepted", async (_, then, status) => {
    const served = await servedRelease(series, { health: { mirror: false } });
    const { host, server } = served;
    const { exitCode, stderr } = await applyWith(served, () => undefined, { then });
    expect(exitCode, stderr).toBe(0);
    expect(stderr).toContain("asked again: ");
    expect(manifestReads(server)).toEqual([
      200,
      ...manifestReads(server)
        .slice(1)
        .map(() => status),
    ]);
    expect(manifestReads(server).length).toBeGreaterThan(1);
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1], series.toplevels[2]));
  });

  test("unchanged is asked for once more, by a conditional request", async () => {
    const served = await servedRelease(series, { health: { mirror: false } });
    const { exitCode } = await applyWith(served, () => undefined);
    expect(exitCode).toBe(0);
    expect(manifestReads(served.server)).toEqual([200, 304]);
  });
});

describe("while its closure comes so slowly that mirrors are polled again, a release that is", () => {
  const slowly = { poll: { interval: "10s", jitter: "0s" } };
  // The rest of the download never comes.
  const stuck = { goesOn: false };

  test("replaced by a newer one is not fetched any further", async () => {
    const served = await servedRelease(series, slowly);
    const { host, mirror } = served;
    const { exitCode, stdout, stderr } = await applyWith(served, () => mirror.release(3), stuck);
    expect(exitCode, stderr).toBe(0);
    expect(stderr).toContain("release 2 is not fetched any further");
    expect(stdout).toContain("Applied release 3 of stable");
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1], series.toplevels[3]));
    expect(await host.stagingIsClean()).toBe(true);
    expect(await rootsOf(host)).not.toHaveProperty("pending");
  });

  test("paused is fetched again from there after the pause", async () => {
    const served = await servedRelease(series, slowly);
    const { host, server } = served;
    const before = await snapshotOf(host);
    const { exitCode, stdout } = await applyWith(
      served,
      () => publishChanged(served, 3, paused),
      stuck,
    );
    expect(stdout).toContain("its rollout is paused since");
    expect(exitCode).toBe(11);
    expect(await snapshotOf(host)).toEqual(before);
    expect(await jsonOf<Status>(host, "status")).toMatchObject({ state: { name: "Fetching" } });

    await publishChanged(served, 4, () => undefined);
    const from = server.requests.length;
    expect(await answerOf(host, "apply")).toMatchObject({ exitCode: 0, updated: true });
    const archive = series.manifests[2].hosts["web1"]!.archive;
    const reads = server.requests.slice(from).flatMap(({ range }) => parseRange(range) ?? []);
    expect(reads.every(({ from: first }) => first > archive.index.size + 100_000)).toBe(true);
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1], series.toplevels[2]));
  });

  test("no longer for this host is withdrawn", async () => {
    const served = await servedRelease(series, slowly);
    const { host } = served;
    const { exitCode, stderr } = await applyWith(
      served,
      () =>
        publishChanged(served, 3, ({ hosts }) => {
          hosts["web2"] = hosts["web1"]!;
          delete hosts["web1"];
        }),
      stuck,
    );
    expect(stderr).toContain("release 2 is not fetched any further");
    expect(exitCode).toBe(4);
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1]));
    expect(await jsonOf<Status>(host, "status")).toMatchObject({ state: { name: "Idle" } });
    expect(await host.stagingIsClean()).toBe(true);
  });

  test("what the mirrors still have goes on, also where none can be asked", async () => {
    const served = await servedRelease(series, { ...slowly, health: { mirror: false } });
    const { host, server } = served;
    const { exitCode, stderr } = await applyWith(served, async () => {
      server.misbehave = manifestStatus(503);
      await expect
        .poll(() => manifestReads(server).filter((status) => status === 503).length, {
          timeout: 120_000,
        })
        .toBeGreaterThan(1);
    });
    expect(exitCode, stderr).toBe(0);
    expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1], series.toplevels[2]));
  });
});

test("a release that expires while it is fetched, with no mirror to ask, is not activated", async () => {
  const served = await servedRelease(series);
  const { host } = served;
  const expiresAt = Date.now() + 15_000;
  await publishChanged(served, 3, (manifest) => {
    manifest.expiresAt = new Date(expiresAt).toISOString();
  });
  const { exitCode, stderr } = await applyWith(
    served,
    async () => {
      while (Date.now() <= expiresAt) await new Promise((resolve) => setTimeout(resolve, 200));
    },
    { then: manifestStatus(503) },
  );
  expect(stderr).toContain("release 3 is not activated: release 3 expired at");
  expect(exitCode).toBe(5);
  expect(await host.switchLog()).toEqual(runsOf(series.toplevels[1]));
  expect(await jsonOf<Status>(host, "status")).toMatchObject({ state: { name: "Imported" } });
});
