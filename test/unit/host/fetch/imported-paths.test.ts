import { describe, expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import { IMPORTED_ROOTS, abandonImported } from "../../../../agent/host/fetch/imported-paths.ts";
import { FetchWorld } from "../../../support/fetch-world.ts";
import { chainArchive } from "../../../support/sample-archive.ts";

describe("an attempt that will not be resumed", () => {
  test("leaves what is whole to the garbage collector, once it is on the disk", async () => {
    const world = new FetchWorld(chainArchive());
    world.roots.set(IMPORTED_ROOTS, [world.path("library-1.0")]);
    await abandonImported(world.tools());
    expect(world.events).toEqual(["look at library-1.0", "flush", "release pending-paths"]);
    expect(world.lines()).toEqual([]);
  });

  test("flushes nothing if it imported nothing", async () => {
    const world = new FetchWorld(chainArchive());
    await abandonImported(world.tools());
    expect(world.events).toEqual(["release pending-paths"]);
  });

  test("that cannot be cleaned up is told, and left to the next attempt", async () => {
    const world = new FetchWorld(chainArchive());
    world.roots.set(IMPORTED_ROOTS, [world.path("library-1.0")]);
    world.broken.set("flush", new PullError("TOOL_MISSING", "no sync"));
    await abandonImported(world.tools());
    expect(world.roots.has(IMPORTED_ROOTS)).toBe(true);
    expect(world.lines()).toEqual(["warn: what was imported is not cleaned up yet: no sync"]);
    expect(world.log.lines[0]?.fields).toEqual({ code: "TOOL_MISSING" });
  });
});
