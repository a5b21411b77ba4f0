import { mkdir, readdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { removeDurably, writeDurably } from "../../../agent/effects/files/durable-file.ts";
import { RootDirectory } from "../../../agent/effects/files/root-directory.ts";
import { gcRootsIn } from "../../../agent/effects/nix/gc-roots.ts";
import { nixStoreOf } from "../../../agent/effects/nix/nix-store.ts";
import { writeOnStick } from "../../../agent/effects/report/stick-report-writer.ts";
import { writeConfirmation } from "../../../agent/effects/state/confirmation-file.ts";
import { History } from "../../../agent/effects/state/history.ts";
import { removeHold, writeHold } from "../../../agent/effects/state/hold-file.ts";
import { hostKey } from "../../../agent/effects/state/host-key.ts";
import { IndexFiles } from "../../../agent/effects/state/index-cache.ts";
import { ManifestCacheFile } from "../../../agent/effects/state/manifest-cache.ts";
import { ReportSpoolFile } from "../../../agent/effects/state/report-spool.ts";
import { StateFile } from "../../../agent/effects/state/state-file.ts";
import { silentLog } from "../../../agent/effects/host/log.ts";
import { EMPTY_RECORD } from "../../../agent/core/update/record.ts";
import { notOnDisk, recordDiskOperations } from "../../support/disk-operations.ts";
import { sampleDigest, samplePath } from "../../support/sample-release.ts";
import { sampleSettings } from "../../support/sample-settings.ts";
import { temporaryDirectory } from "../../support/temporary.ts";

const AT = "2026-02-01T00:00:00.000Z";
const MEMORY = { channel: "stable", sequence: 1, digest: sampleDigest("1"), createdAt: AT };

/** Everything that is written so that a power cut must neither tear it nor take it back. */
const WRITES: Record<string, (directory: string) => Promise<unknown>> = {
  "a file": (directory) => writeDurably(join(directory, "file"), "contents"),
  "a file below somebody else's directory": (directory) =>
    new RootDirectory(directory).writeFile("file", "contents"),
  "a report on a stick": async (directory) => {
    await mkdir(join(directory, "channels"));
    await mkdir(join(directory, "reports"));
    await writeOnStick(directory, "web1.json", "{}");
  },
  "the record, its copy and the memories": (directory) =>
    new StateFile(
      { state: directory, runtime: join(directory, "run"), memories: join(directory, "memories") },
      { history: new History(directory), log: silentLog, machineId: async () => null },
    ).save({ ...EMPTY_RECORD, trust: [MEMORY] }),
  "the first line of a history": (directory) =>
    new History(directory).append({ at: AT, event: "HealthConfirmed", state: "Committed" }),
  "further lines of a history": async (directory) => {
    const history = new History(directory);
    for (let at = 0; at < 3; at++) {
      await history.append({ at: AT, event: "HealthConfirmed", state: "Committed" });
    }
  },
  "a history that begins anew": async (directory) => {
    const history = new History(directory);
    const message = "x".repeat(700_000);
    const trust = MEMORY;
    await history.append({ at: AT, event: "ManifestAccepted", state: "Idle", message, trust });
    await history.append({ at: AT, event: "ManifestAccepted", state: "Idle", message });
    expect(await readdir(directory)).toHaveLength(2);
  },
  "a hold": (directory) => writeHold(directory, { at: AT, until: null, reason: null }),
  "a confirmation": (directory) =>
    writeConfirmation(directory, {
      ...{ at: AT, sequence: 1, digest: sampleDigest("1"), mode: "switch" },
      toplevel: samplePath("nixos-system-web1-1"),
    }),
  "the host's key": (directory) => hostKey(directory, "web1"),
  "a report that waits": (directory) =>
    new ReportSpoolFile(directory).write({
      envelope: "{}",
      targets: [{ target: "url", failures: 1, retryAt: AT }],
    }),
  "a manifest": async (directory) => {
    const cache = new ManifestCacheFile(directory);
    await cache.put("file:///mirror", "stable", { bytes: Buffer.from("{}"), validators: {} });
    await cache.save();
  },
  "an index": async (directory) => {
    await mkdir(join(directory, "indexes"));
    const index = { json: Buffer.from("{}"), verified: Buffer.alloc(0) };
    await new IndexFiles(directory).keep(sampleDigest("1"), index);
  },
  "a root": (directory) => gcRootsIn(directory).hold("next", samplePath("nixos-system-web1-1")),
  "roots of an import": async (directory) => {
    await mkdir(join(directory, "importing"));
    await gcRootsIn(directory).holdAlso("importing", [samplePath("a-1"), samplePath("b-1")]);
  },
};

describe("after a power cut is there, whole", () => {
  test.each(Object.entries(WRITES))("%s", async (_, write) => {
    const directory = await temporaryDirectory();
    const operations = await recordDiskOperations();
    await write(directory);
    expect(operations.length).toBeGreaterThan(1);
    expect(notOnDisk(operations)).toEqual([]);
  });
});

describe("after a power cut is not there any more", () => {
  test("a file that was removed", async () => {
    const directory = await temporaryDirectory();
    await writeDurably(join(directory, "file"), "contents");
    const operations = await recordDiskOperations();
    await removeDurably(join(directory, "file"));
    expect(operations.map(({ kind }) => kind)).toEqual(["remove", "sync"]);
    expect(notOnDisk(operations)).toEqual([]);
  });

  test("a hold that was ended", async () => {
    const directory = await temporaryDirectory();
    await writeHold(directory, { at: AT, until: null, reason: null });
    const operations = await recordDiskOperations();
    await removeHold(directory);
    expect(operations.map(({ kind }) => kind)).toEqual(["remove", "sync"]);
    expect(notOnDisk(operations)).toEqual([]);
  });

  test("a profile on a host that had none", async () => {
    const directory = await temporaryDirectory();
    const profile = join(directory, "system");
    await symlink("system-1-link", profile);
    const operations = await recordDiskOperations();
    const settings = sampleSettings();
    await nixStoreOf({ ...settings, paths: { ...settings.paths, profile } }).restoreProfile(null);
    expect(operations.map(({ kind }) => kind)).toEqual(["remove", "sync"]);
    expect(notOnDisk(operations)).toEqual([]);
  });
});

test("the operations are told apart: what is not flushed is found", async () => {
  const directory = await temporaryDirectory();
  const file = join(directory, "file");
  const sync = { kind: "sync", path: `${file}.tmp`, isDirectory: false } as const;
  const whole = [
    { kind: "create", path: `${file}.tmp` },
    { kind: "write", path: `${file}.tmp` },
    sync,
    { kind: "rename", from: `${file}.tmp`, to: file },
    { kind: "sync", path: directory, isDirectory: true },
  ] as const;
  expect(notOnDisk(whole)).toEqual([]);
  expect(notOnDisk(whole.filter((it) => it !== sync))).toEqual(["contents of file"]);
  expect(notOnDisk(whole.slice(0, -1))).toEqual(["name of file"]);
  expect(notOnDisk(whole.slice(0, 2))).toEqual(["contents of file.tmp", "name of file.tmp"]);
});
