import { execFileSync } from "node:child_process";
import { appendFile, mkdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import fc from "fast-check";
import { describe, expect, onTestFinished, test } from "vitest";
import { DirectoryMirror } from "../../../../agent/effects/mirror/directory-mirror.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { sampleDigest } from "../../../support/sample-release.ts";
import { sampleLimits } from "../../../support/sample-settings.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const SHA256 = sampleDigest("archive");

async function mirrorDirectory(name = "mirror") {
  const directory = join(await temporaryDirectory(), name);
  await mkdir(join(directory, "channels/stable"), { recursive: true });
  await mkdir(join(directory, "archives"));
  const limits = sampleLimits({ manifestBytes: 1_000 });
  return {
    mirror: new DirectoryMirror(pathToFileURL(directory).href, limits),
    directory,
    manifest: join(directory, "channels/stable/manifest.json"),
    archive: join(directory, `archives/${SHA256}.tar`),
  };
}

async function read(mirror: DirectoryMirror, from: number, to: number, signal?: AbortSignal) {
  const pieces: Buffer[] = [];
  for await (const piece of mirror.readArchive(SHA256, { from, to }, signal)) pieces.push(piece);
  return Buffer.concat(pieces);
}

describe("a manifest", () => {
  test("is read whole, without anything for a conditional request", async () => {
    const { mirror, manifest } = await mirrorDirectory();
    await writeFile(manifest, "{}");
    const answer = await mirror.readManifest("stable");
    expect(answer).toEqual({ kind: "read", bytes: Buffer.from("{}"), validators: {} });
  });

  test("is read from a directory with spaces and percent signs in its name", async () => {
    const { mirror, manifest } = await mirrorDirectory("USB stick 100% ünïcödé");
    await writeFile(manifest, "{}");
    expect((await mirror.readManifest("stable")).kind).toBe("read");
  });

  test("may be as long as the limit and not a byte longer", async () => {
    const { mirror, manifest } = await mirrorDirectory();
    await writeFile(manifest, "x".repeat(1_000));
    expect(await mirror.readManifest("stable")).toMatchObject({ kind: "read" });
    await appendFile(manifest, "x");
    const failure = await rejectionOf(mirror.readManifest("stable"));
    expect(failure.code).toBe("MIRROR_OVERSIZE");
    expect(failure.message).toBe(`${manifest}: expected at most 1000 bytes, found 1001`);
  });

  test("that is missing is MIRROR_NOT_FOUND; a missing mirror is MIRROR_ABSENT", async () => {
    const { mirror, manifest, directory } = await mirrorDirectory();
    const failure = await rejectionOf(mirror.readManifest("stable"));
    expect(failure.code).toBe("MIRROR_NOT_FOUND");
    expect(failure.message).toContain(manifest);
    expect((await rejectionOf(mirror.readManifest("canary"))).code).toBe("MIRROR_NOT_FOUND");
    await rm(join(directory, "channels"), { recursive: true });
    expect((await rejectionOf(mirror.readManifest("stable"))).code).toBe("MIRROR_ABSENT");
    await rm(directory, { recursive: true });
    expect((await rejectionOf(mirror.readManifest("stable"))).code).toBe("MIRROR_ABSENT");
  });

  test("below a regular file is MIRROR_STATUS", async () => {
    const { mirror, directory } = await mirrorDirectory();
    await rm(join(directory, "channels"), { recursive: true });
    await writeFile(join(directory, "channels"), "");
    expect((await rejectionOf(mirror.readManifest("stable"))).code).toBe("MIRROR_STATUS");
  });
});

describe("what is no regular file is refused, as a manifest and as an archive", () => {
  async function refusals(place: (path: string) => unknown): Promise<string[]> {
    const { mirror, manifest, archive } = await mirrorDirectory();
    await place(manifest);
    await place(archive);
    const reads = [mirror.readManifest("stable"), read(mirror, 0, 10)];
    return (await Promise.all(reads.map(rejectionOf))).map(({ code }) => code);
  }

  test("a directory", async () => {
    expect(await refusals((path) => mkdir(path))).toEqual(["MIRROR_STATUS", "MIRROR_STATUS"]);
  });

  test("a FIFO, which nobody writes to, without waiting for somebody", async () => {
    const made = await refusals((path) => execFileSync("mkfifo", [path]));
    expect(made).toEqual(["MIRROR_STATUS", "MIRROR_STATUS"]);
  });

  test("a device without an end", async () => {
    expect(await refusals((path) => symlink("/dev/zero", path))).toEqual([
      ...["MIRROR_STATUS", "MIRROR_STATUS"],
    ]);
  });

  test("a link to nothing", async () => {
    expect(await refusals((path) => symlink("/nowhere/at/all", path))).toEqual([
      ...["MIRROR_STATUS", "MIRROR_STATUS"],
    ]);
  });

  test("a link to a file of the same mirror", async () => {
    const { mirror, manifest, directory } = await mirrorDirectory();
    await writeFile(join(directory, "manifest.json"), "{}");
    await symlink("../../manifest.json", manifest);
    const failure = await rejectionOf(mirror.readManifest("stable"));
    expect(failure.code).toBe("MIRROR_STATUS");
    expect(failure.message).toContain(
      `${manifest}: expected a regular file, found a symbolic link`,
    );
  });

  test("a link in the middle of a path", async () => {
    const { mirror, manifest, directory } = await mirrorDirectory();
    await writeFile(manifest, "{}");
    await rename(join(directory, "channels/stable"), join(directory, "channels/other"));
    await symlink("other", join(directory, "channels/stable"));
    const failure = await rejectionOf(mirror.readManifest("stable"));
    expect(failure.code).toBe("MIRROR_STATUS");
    expect(failure.message).toContain(
      "channels/stable: expected a directory, found a symbolic link",
    );
    expect((await mirror.readManifest("other")).kind).toBe("read");
  });

  test("a socket", async () => {
    const { mirror, manifest } = await mirrorDirectory();
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(manifest, resolve));
    onTestFinished(() => void server.close());
    await expect(mirror.readManifest("stable")).rejects.toMatchObject({ code: "MIRROR_STATUS" });
  });
});

describe("an archive", () => {
  test("gives exactly the bytes that were asked for", async () => {
    const { mirror, archive } = await mirrorDirectory();
    const bytes = Buffer.from(
      fc.sample(fc.uint8Array({ minLength: 5_000, maxLength: 5_000 }), 1)[0] ?? [],
    );
    await writeFile(archive, bytes);
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: 5_000 }), fc.nat({ max: 5_000 }), async (one, other) => {
        const [from, to] = [Math.min(one, other), Math.max(one, other)];
        expect((await read(mirror, from, to)).equals(bytes.subarray(from, to))).toBe(true);
      }),
      { numRuns: 30 },
    );
    expect(mirror.ranges).toBe(true);
  });

  test("of more than one read's size is given in pieces", async () => {
    const { mirror, archive } = await mirrorDirectory();
    await writeFile(archive, Buffer.alloc(600 * 1024, 1));
    const sizes: number[] = [];
    for await (const piece of mirror.readArchive(SHA256, { from: 10, to: 600 * 1024 })) {
      sizes.push(piece.length);
    }
    expect(sizes).toEqual([256 * 1024, 256 * 1024, 88 * 1024 - 10]);
  });

  test("that is shorter ends early; its reader finds out", async () => {
    const { mirror, archive } = await mirrorDirectory();
    await writeFile(archive, "0123456789");
    expect((await read(mirror, 8, 20)).toString()).toBe("89");
    expect((await read(mirror, 50, 60)).toString()).toBe("");
  });

  test("that is missing is MIRROR_NOT_FOUND", async () => {
    const { mirror, archive } = await mirrorDirectory();
    const failure = await rejectionOf(read(mirror, 0, 10));
    expect(failure.code).toBe("MIRROR_NOT_FOUND");
    expect(failure.message).toContain(archive);
  });

  test("is not read on after an abort", async () => {
    const { mirror, archive } = await mirrorDirectory();
    await writeFile(archive, Buffer.alloc(600 * 1024));
    const abort = new AbortController();
    const pieces = mirror.readArchive(SHA256, { from: 0, to: 600 * 1024 }, abort.signal);
    expect((await pieces.next()).done).toBe(false);
    abort.abort();
    expect((await rejectionOf(pieces.next())).code).toBe("INTERRUPTED");
  });
});
