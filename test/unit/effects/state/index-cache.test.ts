import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { IndexFiles } from "../../../../agent/effects/state/index-cache.ts";
import { sampleDigest } from "../../../support/sample-release.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

test("the last two indexes are kept, and the signatures of the last", async () => {
  const directory = await temporaryDirectory();
  const indexes = new IndexFiles(directory);
  expect(await indexes.verified()).toBeNull();
  for (const name of ["1", "2", "3"]) {
    await indexes.keep(sampleDigest(name), {
      json: Buffer.from(`{"${name}":0}`),
      verified: Buffer.from(`verified ${name}`),
    });
  }
  expect((await indexes.verified())?.toString()).toBe("verified 3");
  expect(await indexes.find(sampleDigest("3"))).not.toBeNull();
  const kept = await readdir(join(directory, "indexes"));
  expect(kept).toHaveLength(3);
  expect(kept).toContain("verified-signatures");
});

test("a file that is far too long is not read", async () => {
  const directory = await temporaryDirectory();
  const indexes = new IndexFiles(directory);
  await indexes.keep(sampleDigest("1"), { json: Buffer.from("{}"), verified: Buffer.alloc(3) });
  await writeFile(join(directory, "indexes/verified-signatures"), Buffer.alloc(4 * 1024 * 1024));
  expect(await indexes.verified()).toBeNull();
});
