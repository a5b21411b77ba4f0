import { describe, expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import { previewFetch } from "../../../../agent/host/fetch/preview.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { FetchWorld } from "../../../support/fetch-world.ts";
import { chainArchive } from "../../../support/sample-archive.ts";

const CHAIN = chainArchive();
/** What its NARs unpack to, and what is left over. */
const NEEDED = 800 + 1124 + 190 + 1_000;
const RUNNING = "/nix/store/00000000000000000000000000000000-running";

/** A world whose store has so many bytes too few. */
function short(bytes: number, collect: "never" | "when-needed" = "when-needed"): FetchWorld {
  const world = new FetchWorld(CHAIN);
  world.free.set("/store", NEEDED - bytes);
  world.collect = collect;
  world.running = RUNNING;
  return world;
}

describe("a store that has no room", () => {
  test("is relieved of as much garbage as is missing, while what runs is held", async () => {
    const world = short(7);
    world.onCollect = () => {
      expect(world.roots.get("collection")).toEqual([RUNNING]);
      world.free.set("/store", NEEDED);
    };
    expect((await world.fetch()).newPaths).toBe(3);
    expect(world.only("collect")).toEqual(["collect 7"]);
    expect(world.collected).toEqual([{ wanted: 7, freed: 7 }]);
    expect(world.roots.has("collection")).toBe(false);
  });

  test("believes Nix, and not the disk, about what was freed: Nix gives up a reserve for a while", async () => {
    const world = short(7);
    world.collectionSays = 0;
    world.onCollect = () => {
      world.free.set("/store", NEEDED);
    };
    await world.fetch();
    expect(world.collected).toEqual([{ wanted: 7, freed: 0 }]);
  });

  test("is looked at again afterwards: what was garbage of the closure comes again", async () => {
    const world = short(7);
    const [library] = CHAIN.index.paths.map(({ path }) => `/nix/store/${path}`);
    world.valid.add(library ?? "");
    world.free.set("/store", 1_000);
    world.onCollect = () => {
      world.valid.delete(library ?? "");
      world.free.set("/store", NEEDED);
    };
    expect((await world.fetch()).newPaths).toBe(3);
  });

  test("refuses the update if there was not enough garbage", async () => {
    const world = short(7);
    const { code, message } = await rejectionOf(world.fetch());
    expect({ code, message }).toEqual({
      code: "DISK_FULL",
      message:
        `the store (/store): expected ${NEEDED - 1_000} bytes free and 1000 left over, ` +
        `found ${NEEDED - 7}`,
    });
    expect(world.collected).toEqual([{ wanted: 7, freed: 0 }]);
  });

  test("is not collected in if it would be too small without any garbage, and check knows", async () => {
    const world = short(7);
    world.total.set("/store", NEEDED - 1);
    expect((await rejectionOf(previewFetch(CHAIN.release, world.tools()))).code).toBe("DISK_FULL");
    expect((await rejectionOf(world.fetch())).code).toBe("DISK_FULL");
    expect(world.only("collect")).toEqual([]);
    world.total.set("/store", NEEDED);
    expect(await previewFetch(CHAIN.release, world.tools())).toMatchObject({
      collectsGarbage: true,
    });
  });

  test("refuses the update if garbage cannot be collected", async () => {
    const world = short(7);
    world.broken.set("collect", new PullError("TOOL_TIMEOUT", "too slow"));
    expect((await rejectionOf(world.fetch())).code).toBe("DISK_FULL");
    expect(world.lines("warn")).toContain("warn: garbage was not collected: too slow");
    expect(world.roots.has("collection")).toBe(false);
  });

  test("stops if the agent is to stop", async () => {
    const world = short(7);
    world.broken.set("collect", new PullError("INTERRUPTED", "stopped"));
    expect((await rejectionOf(world.fetch())).code).toBe("INTERRUPTED");
    expect(world.roots.has("collection")).toBe(false);
  });

  test("keeps its garbage if the settings do not say so, or if another disk is full", async () => {
    const never = short(7, "never");
    expect((await rejectionOf(never.fetch())).code).toBe("DISK_FULL");
    const staging = short(0);
    staging.free.set("/staging", 0);
    expect((await rejectionOf(staging.fetch())).code).toBe("DISK_FULL");
    expect([...never.only("collect"), ...staging.only("collect")]).toEqual([]);
  });

  test("keeps its garbage if there is room", async () => {
    const world = short(0);
    await world.fetch();
    expect(world.only("collect")).toEqual([]);
  });

  test("is told beforehand", async () => {
    const preview = (world: FetchWorld) => previewFetch(world.release, world.tools());
    expect(await preview(short(7))).toMatchObject({ collectsGarbage: true });
    expect(await preview(short(0))).toMatchObject({ collectsGarbage: false });
    await expect(preview(short(7, "never"))).rejects.toMatchObject({ code: "DISK_FULL" });
  });
});
