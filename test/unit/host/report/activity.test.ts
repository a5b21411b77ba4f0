import { describe, expect, test } from "vitest";
import { EMPTY_RECORD } from "../../../../agent/core/update/record.ts";
import { readActivity } from "../../../../agent/host/report/activity.ts";
import { MemoryHost } from "../../../support/memory-host.ts";
import { STANDINGS } from "../../../support/standings.ts";

const NOTHING = { service: null, update: null, since: null, fetched: null };

/** What runs on a host. */
async function activityOf({ record, tools }: MemoryHost) {
  return readActivity(record ?? EMPTY_RECORD, tools);
}

async function downloading(): Promise<MemoryHost> {
  const host = await STANDINGS["updating: downloading"]?.();
  if (!host) throw new Error("there is no such standing");
  return host;
}

describe("what runs on a host", () => {
  test("is nothing before the first agent", async () => {
    expect(await activityOf(new MemoryHost())).toEqual(NOTHING);
  });

  test("is who holds the locks, since when, and how far the download is", async () => {
    const host = await downloading();
    expect(await activityOf(host)).toEqual({
      ...{ service: 4242, update: 4242, since: "2026-02-01T03:04:01.000Z" },
      fetched: { received: 356_515_840, total: 851_443_712, rate: 12_582_912 },
    });
  });

  test("is no download of another process, of an earlier one, or without one", async () => {
    const host = await downloading();
    const told = host.toldProgress;
    if (!told) throw new Error("nothing is told");
    const stale = [{ process: 7 }, { at: "2026-02-01T03:04:00.000Z" }];
    for (const part of stale) {
      host.toldProgress = { ...told, ...part };
      expect((await activityOf(host)).fetched).toBeNull();
    }
    host.toldProgress = told;
    host.locked.delete("update");
    expect(await activityOf(host)).toMatchObject({ update: null, fetched: null });
  });
});
