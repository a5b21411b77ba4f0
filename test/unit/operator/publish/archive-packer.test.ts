import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFile,
  cp,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rm,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readIndex, type ArchiveContents } from "../../../../agent/core/formats/archive-index.ts";
import {
  narFileName,
  narInfoFileName,
  renderNarInfo,
} from "../../../../agent/core/formats/narinfo.ts";
import { encodeBase32, storePathName } from "../../../../agent/core/formats/store-path.ts";
import { packArchive, packShared } from "../../../../agent/operator/publish/archive-packer.ts";
import {
  readClosure,
  type PackableClosure,
} from "../../../../agent/operator/publish/packable-closure.ts";
import { PathSigner } from "../../../../agent/operator/publish/path-signer.ts";
import { buildSystem } from "../../../support/closure.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { scriptOnFullDisk } from "../../../support/full-disk.ts";
import { nix } from "../../../support/real-nix.ts";
import { sampleDigest, samplePath, sampleRelease } from "../../../support/sample-release.ts";
import { removeTree, temporaryDirectory } from "../../../support/temporary.ts";
import { testKey } from "../../../support/test-key.ts";

const KEYS = [testKey("fleet-1"), testKey("fleet-2")];

let directory: string;
let cache: string;
let toplevel: string;
let closure: PackableClosure;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "nixos-pull-test-"));
  cache = join(directory, "cache");
  toplevel = await buildSystem();
  nix(["copy", "--to", `file://${cache}?compression=zstd`, toplevel]);
  closure = await readClosure(cache, toplevel);
});
afterAll(() => removeTree(directory));

async function pack(from: PackableClosure = closure, source: string = cache, keys = KEYS) {
  const path = join(await temporaryDirectory(), "archive.tar");
  let counted = 0;
  const archive = await packArchive(from, path, {
    signer: new PathSigner(keys),
    cache: source,
    onBytes: (count) => (counted += count),
  });
  return { path, archive, counted, bytes: await readFile(path) };
}

function contentsOf(bytes: Buffer, archive: Awaited<ReturnType<typeof pack>>["archive"]) {
  const { closureSize } = closure;
  const release = sampleRelease({ toplevel, closureSize, archive });
  const compressed = bytes.subarray(512, 512 + archive.index.size);
  return readIndex(
    compressed,
    release,
    [KEYS[0]?.publicKey].filter((key) => key !== undefined),
  );
}

describe("a closure that Nix copied", () => {
  test("is read whole, dependencies first, the toplevel last", () => {
    const listed = nix(["path-info", "--recursive", "--json", toplevel]);
    const infos = JSON.parse(listed) as { path: string; narSize: number }[];
    const names = closure.paths.map(({ storePath }) => storePath);
    expect(names.toSorted()).toEqual(infos.map(({ path }) => storePathName(path)).sort());
    expect(names.at(-1)).toBe(storePathName(toplevel));
    expect(closure.closureSize).toBe(infos.reduce((sum, { narSize }) => sum + narSize, 0));
    for (const [at, { references }] of closure.paths.entries()) {
      for (const reference of references) expect(names.indexOf(reference)).toBeLessThanOrEqual(at);
    }
  });

  test("is refused where a narinfo is missing, naming it", async () => {
    const copy = join(await temporaryDirectory(), "cache");
    await cp(cache, copy, { recursive: true });
    const first = closure.paths[0]?.storePath ?? "";
    await rm(join(copy, narInfoFileName(first)));
    const failure = await rejectionOf(readClosure(copy, toplevel));
    expect(failure.code).toBe("PUBLISH_FAILED");
    expect(failure.message).toBe(`the cache has no ${narInfoFileName(first)} for ${first}`);
  });

  test("is refused where a narinfo is damaged", async () => {
    const copy = join(await temporaryDirectory(), "cache");
    await cp(cache, copy, { recursive: true });
    await writeFile(join(copy, narInfoFileName(closure.paths[0]?.storePath ?? "")), "StorePath");
    expect((await rejectionOf(readClosure(copy, toplevel))).code).toBe("PUBLISH_FAILED");
  });
});

test("any closure is sorted dependencies first, each path once, alike every time", async () => {
  const root = await temporaryDirectory();
  const graphs = fc.array(fc.array(fc.nat({ max: 11 }), { maxLength: 4 }), {
    ...{ minLength: 1, maxLength: 12 },
  });
  await fc.assert(
    fc.asyncProperty(graphs, fc.boolean(), async (graph, self) => {
      const made = await mkdtemp(join(root, "cache-"));
      const names = graph.map((_, at) => storePathName(samplePath(`path-${at}`)));
      for (const [at, edges] of graph.entries()) {
        // Edges lead to earlier paths, as in a store; some paths refer to themselves.
        const to = new Set(edges.filter((edge) => edge < at));
        if (self) to.add(at);
        const narInfo = renderNarInfo({
          ...{ storePath: names[at] ?? "", compression: "none", fileSize: 1, narSize: 1 },
          ...{ fileSha256: sampleDigest(`${at}`), narHash: `sha256:${"0".repeat(52)}` },
          ...{ references: [...to].map((edge) => names[edge] ?? "").sort(), signatures: [] },
        });
        await writeFile(join(made, narInfoFileName(names[at] ?? "")), narInfo);
      }
      const last = names.at(-1) ?? "";
      const { paths } = await readClosure(made, `/nix/store/${last}`);
      const order = paths.map(({ storePath }) => storePath);
      expect(new Set(order).size).toBe(order.length);
      expect(order.at(-1)).toBe(last);
      for (const [at, { references }] of paths.entries()) {
        for (const reference of references) {
          expect(order.indexOf(reference)).toBeGreaterThanOrEqual(0);
          expect(order.indexOf(reference)).toBeLessThanOrEqual(at);
        }
      }
      expect((await readClosure(made, last)).paths).toEqual(paths);
    }),
    { numRuns: 20 },
  );
});

describe("an archive", () => {
  test("has the size and hashes that are given back, every byte of which was counted", async () => {
    const { archive, bytes, counted } = await pack();
    expect(archive.sha256).toBe(createHash("sha256").update(bytes).digest("hex"));
    expect(archive.size).toBe(bytes.length);
    expect(counted).toBe(bytes.length);
    const index = bytes.subarray(512, 512 + archive.index.size);
    expect(archive.index.sha256).toBe(createHash("sha256").update(index).digest("hex"));
  });

  test("packed twice is the same bytes", async () => {
    const [one, two] = [await pack(), await pack(await readClosure(cache, toplevel))];
    expect(two.archive).toEqual(one.archive);
    expect(two.bytes.equals(one.bytes)).toBe(true);
  });

  test("has an index that a host accepts, signed by every key", async () => {
    const { archive, bytes } = await pack();
    const { index, size } = contentsOf(bytes, archive);
    expect(size).toBe(bytes.length);
    expect(index.compression).toBe("zstd");
    for (const { signatures } of index.paths) {
      expect(signatures.map((text) => text.split(":")[0])).toEqual(["fleet-1", "fleet-2"]);
    }
  });

  test("is listed by GNU tar as index, cache info, narinfos by name, NARs in order", async () => {
    const { path, archive, bytes } = await pack();
    const listed = execFileSync("tar", ["--list", "--file", path], { encoding: "utf8" });
    const names = listed.trim().split("\n");
    const contents: ArchiveContents = contentsOf(bytes, archive);
    expect(names).toEqual(["index.json.gz", ...contents.members.map(({ name }) => name)]);
    const narInfos = names.filter((name) => name.endsWith(".narinfo"));
    expect(narInfos).toEqual(
      closure.paths.map(({ storePath }) => narInfoFileName(storePath)).sort(),
    );
    const nars = closure.paths.map((info) => narFileName(info.fileSha256, "zstd"));
    expect(names.slice(2 + narInfos.length)).toEqual([...new Set(nars)]);
  });

  test("unpacked by hand is a binary cache that Nix copies from", async () => {
    const { path } = await pack();
    const [unpacked, target] = [await temporaryDirectory(), await temporaryDirectory()];
    execFileSync("tar", ["--extract", "--file", path, "--directory", unpacked]);
    nix([
      ...["copy", "--from", `file://${unpacked}`, toplevel, "--store", `local?root=${target}`],
      ...["--option", "trusted-public-keys", KEYS[1]?.publicKey.text ?? ""],
      ...["--option", "require-sigs", "true"],
    ]);
    expect(await readFile(join(target, toplevel, "nixos-version"), "utf8")).toBe("1\n");
  });

  test("does not replace a file that is there", async () => {
    const path = join(await temporaryDirectory(), "archive.tar");
    await writeFile(path, "precious");
    const options = { signer: new PathSigner(KEYS), cache, onBytes: () => undefined };
    await expect(packArchive(closure, path, options)).rejects.toMatchObject({
      code: "EEXIST",
    });
    expect(await readFile(path, "utf8")).toBe("precious");
  });

  test("of one path that is content-addressed keeps its address", async () => {
    const made = await temporaryDirectory();
    await mkdir(join(made, "nar"));
    const nar = Buffer.from("some nar");
    const sha256 = createHash("sha256").update(nar).digest();
    const [fileSha256, ca] = [sha256.toString("hex"), `text:sha256:${"0".repeat(52)}`];
    const storePath = storePathName(samplePath("text"));
    const narInfo = renderNarInfo({
      ...{ storePath, compression: "none", fileSha256, fileSize: nar.length, narSize: 8, ca },
      ...{ narHash: `sha256:${encodeBase32(sha256)}`, references: [], signatures: [] },
    });
    await writeFile(join(made, narInfoFileName(storePath)), narInfo);
    await writeFile(join(made, narFileName(fileSha256, "none")), nar);
    const one = await readClosure(made, storePath);
    const { bytes } = await pack(one, made);
    expect(bytes.toString("latin1")).toContain(`\nCA: ${ca}\n`);
  });
});

describe("an archive that closures share", () => {
  const options = { signer: new PathSigner(KEYS), cache: "", onBytes: () => undefined };

  test("and what is left of one of them make a binary cache that Nix copies from", async () => {
    const [unpacked, target] = [await temporaryDirectory(), await temporaryDirectory()];
    const [shared, own] = [join(unpacked, "shared.tar"), join(unpacked, "own.tar")];
    const half = closure.paths.slice(0, 3);
    const { archive, offsets } = await packShared(half, shared, { ...options, cache });
    const reference = await packArchive(closure, own, {
      ...{ ...options, cache },
      placeOf: ({ fileSha256 }) => {
        const offset = offsets.get(fileSha256);
        return offset === undefined ? null : { archive, offset };
      },
    });
    const bytes = await readFile(own);
    const contents = contentsOf(bytes, reference);
    expect(contents.elsewhere.map(({ archive: { sha256 } }) => sha256)).toEqual([archive.sha256]);
    for (const { body, headerOffset, name } of contents.elsewhere.flatMap(({ nars }) => nars)) {
      const header = (await readFile(shared)).subarray(headerOffset, headerOffset + 100);
      expect(header.toString("latin1").replaceAll("\0", "")).toBe(name);
      expect(offsets.get(body.sha256)).toBe(headerOffset + 512);
    }
    for (const tar of [shared, own]) {
      execFileSync("tar", ["--extract", "--file", tar, "--directory", unpacked]);
    }
    nix([
      ...["copy", "--from", `file://${unpacked}`, toplevel, "--store", `local?root=${target}`],
      ...["--option", "trusted-public-keys", KEYS[1]?.publicKey.text ?? ""],
      ...["--option", "require-sigs", "true"],
    ]);
    expect(await readFile(join(target, toplevel, "nixos-version"), "utf8")).toBe("1\n");
  });
});

describe("a NAR in the cache", () => {
  /** A copy of the cache in which the largest NAR was damaged. */
  async function damaged(damage: (path: string) => Promise<unknown>) {
    const copy = join(await temporaryDirectory(), "cache");
    await cp(cache, copy, { recursive: true });
    const { url } = closure.paths.reduce((a, b) => (a.fileSize > b.fileSize ? a : b));
    await damage(join(copy, url));
    return { copy, nar: join(copy, url) };
  }

  test.each<[string, (path: string) => Promise<unknown>]>([
    [
      "altered",
      async (path) => {
        const bytes = await readFile(path);
        bytes[20] = (bytes[20] ?? 0) ^ 1;
        await writeFile(path, bytes);
      },
    ],
    ["cut short", (path) => truncate(path, 20)],
    ["empty", (path) => truncate(path, 0)],
    ["longer", (path) => appendFile(path, "more")],
    ["much longer", (path) => appendFile(path, Buffer.alloc(5_000_000))],
  ])("that is %s is refused, naming it", async (_, damage) => {
    const { copy, nar } = await damaged(damage);
    const failure = await rejectionOf(pack(closure, copy));
    expect(failure.code).toBe("PUBLISH_FAILED");
    expect(failure.message).toContain(nar);
  });

  test("that is missing is the operating system's error, naming it", async () => {
    const { copy, nar } = await damaged((path) => rm(path));
    await expect(pack(closure, copy)).rejects.toMatchObject({ code: "ENOENT", path: nar });
  });

  test("of another compression than the rest is refused", async () => {
    const mixed = join(await temporaryDirectory(), "cache");
    const [first] = closure.paths;
    const path = `/nix/store/${first?.storePath ?? ""}`;
    nix(["copy", "--to", `file://${mixed}?compression=xz`, path]);
    nix(["copy", "--to", `file://${mixed}?compression=zstd`, toplevel]);
    const failure = await rejectionOf(pack(await readClosure(mixed, toplevel), mixed));
    expect(failure.code).toBe("PUBLISH_FAILED");
    expect(failure.message).toContain("expected compression ");
    expect(failure.message).toContain("use a cache directory of its own");
    expect(await readdir(mixed)).toContain("nix-cache-info");
  });
});

describe("an archive of 44.5 KiB", () => {
  let packWhereFilesEndAt: (kibibytes: number, workDirectory: string) => string;

  beforeAll(async () => {
    packWhereFilesEndAt = await scriptOnFullDisk(
      directory,
      `
        import { createHash } from "node:crypto";
        import { mkdir, stat, writeFile } from "node:fs/promises";
        import { join } from "node:path";
        import { packArchive } from "./agent/operator/publish/archive-packer.ts";
        import { PathSigner } from "./agent/operator/publish/path-signer.ts";
        const directory = process.argv[2] ?? "";
        const nar = Buffer.alloc(40_500, 7);
        const path = {
          storePath: "0".repeat(32) + "-x", url: "nar/x.nar", compression: "none", fileSize: nar.length,
          fileSha256: createHash("sha256").update(nar).digest("hex"),
          narHash: "sha256:" + "0".repeat(52), narSize: nar.length, references: [],
        } as const;
        void (async () => {
          await mkdir(join(directory, "nar"));
          await writeFile(join(directory, path.url), nar);
          const archive = join(directory, "archive.tar");
          const closure = { paths: [path], closureSize: nar.length };
          const options = { signer: new PathSigner([]), cache: directory, onBytes: () => undefined };
          const { size } = await packArchive(closure, archive, options);
          const written = (await stat(archive)).size;
          console.log(size === written ? "whole" : "torn");
        })().catch((error) => console.log(error.code));
      `,
    );
  });

  test("is whole where the disk has room for it, and an error where it has not", async () => {
    expect(packWhereFilesEndAt(64, await temporaryDirectory())).toBe("whole");
    expect(packWhereFilesEndAt(8, await temporaryDirectory())).toBe("EFBIG");
  });

  test("is an error where the disk has no room for its last piece", async () => {
    expect(packWhereFilesEndAt(44, await temporaryDirectory())).toBe("EFBIG");
  });
});
