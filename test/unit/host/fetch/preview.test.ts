import { expect, test } from "vitest";
import { previewFetch } from "../../../../agent/host/fetch/preview.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { FetchWorld } from "../../../support/fetch-world.ts";
import { samplePath } from "../../../support/sample-release.ts";
import { chainArchive, withDeltas } from "../../../support/sample-archive.ts";

const CHAIN = chainArchive();

test("a preview says what a fetch would move, and writes nothing", async () => {
  const world = new FetchWorld(CHAIN);
  const { size } = CHAIN.release.archive;
  const [from] = world.wholeRange.split("-");
  expect(await previewFetch(CHAIN.release, world.tools())).toEqual({
    ...{ paths: 3, newPaths: 3 },
    ...{
      downloadBytes: size - Number(from),
      storeBytes: 800 + 1124 + 190,
      packages: null,
      collectsGarbage: false,
    },
  });
  expect(world.events).toEqual([`one: archive ${world.indexRange}`]);
});

test("a preview counts only what the store lacks", async () => {
  const world = new FetchWorld(CHAIN);
  for (const name of ["library-1.0", "program-2.0"]) world.valid.add(world.path(name));
  expect(await previewFetch(CHAIN.release, world.tools())).toEqual({
    ...{
      paths: 3,
      newPaths: 1,
      downloadBytes: 512 + 512,
      storeBytes: 190,
      packages: null,
      collectsGarbage: false,
    },
  });
});

test("a preview counts deltas in place of the NARs that they spare", async () => {
  const sample = withDeltas(CHAIN, [
    { at: 0, bytes: Buffer.from("delta 0") },
    { at: 1, bytes: Buffer.from("delta number 1") },
  ]);
  const world = new FetchWorld(sample);
  expect(await previewFetch(sample.release, world.tools())).toEqual({
    ...{
      paths: 3,
      newPaths: 3,
      downloadBytes: 512 + 512 + 7 + 14,
      storeBytes: 2114,
      packages: null,
      collectsGarbage: false,
    },
  });
});

test("a preview names the packages that change from the running system", async () => {
  const world = new FetchWorld(CHAIN);
  world.running = samplePath("old-system");
  world.closures.set(world.running, [
    { storePath: samplePath("library-0.9"), narSize: 500 },
    { storePath: world.path("program-2.0"), narSize: 1124 },
  ]);
  const { packages } = await previewFetch(CHAIN.release, world.tools());
  expect(packages?.find(({ name }) => name === "library")).toEqual({
    ...{ name: "library", kind: "changed", before: ["0.9"], after: ["1.0"] },
    ...{ beforeBytes: 500, afterBytes: 800 },
  });
  expect(packages?.some(({ name }) => name === "program")).toBe(false);
});

test("a preview refuses as a fetch would", async () => {
  const world = new FetchWorld(CHAIN);
  world.free.set("/staging", 0);
  const failure = await rejectionOf(previewFetch(CHAIN.release, world.tools()));
  expect(failure.message).toBe(
    "staging (/staging): expected 1814 bytes free and 1000 left over, found 0",
  );
  const stopped = previewFetch(CHAIN.release, world.tools(), AbortSignal.abort());
  expect((await rejectionOf(stopped)).code).toBe("INTERRUPTED");
});

test("a preview refuses if the Nix daemon would, and only if there is something to import", async () => {
  const world = new FetchWorld(CHAIN);
  world.access = {
    ...{ via: "daemon", user: "agent", trusted: false },
    ...{ keys: ["cache-1:AAAA"], requiresSignatures: true },
  };
  const error = await rejectionOf(previewFetch(CHAIN.release, world.tools()));
  expect(error.code).toBe("IMPORT_FAILED");
  expect(error.message).toContain("the Nix daemon does not trust user agent");
  for (const { path } of CHAIN.index.paths) world.valid.add(`/nix/store/${path}`);
  expect(await previewFetch(CHAIN.release, world.tools())).toMatchObject({ newPaths: 0 });
});
