import { execFileSync } from "node:child_process";
import { open, mkdir, symlink, link, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { pack } from "tar-stream";
import { describe, expect, test } from "vitest";
import {
  describeTarHeader,
  paddedSize,
  tarHeader,
} from "../../../../agent/core/formats/tar-layout.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const GIB = 1024 ** 3;

/** The header block that tar-stream writes for a plain file. */
async function packedHeader(name: string, size: number): Promise<Buffer> {
  const archive = pack();
  const entry = archive.entry({
    ...{ name, size, mode: 0o644, uid: 0, gid: 0, mtime: new Date(0), type: "file" as const },
  });
  // Its contents never come; the header is there already.
  entry.on("error", () => undefined);
  archive.on("error", () => undefined);
  for await (const chunk of archive) return chunk as Buffer;
  throw new Error("tar-stream gave nothing");
}

describe("a header", () => {
  const names = fc.stringMatching(/^[!-~]{1,100}$/).filter((name) => !name.endsWith("/"));
  const sizes = fc.oneof(
    fc.nat({ max: 100_000 }),
    fc.constantFrom(0, 1, 511, 512, 8 * GIB - 1, 8 * GIB, 8 * GIB + 1, Number.MAX_SAFE_INTEGER),
    fc.maxSafeNat(),
  );

  test("is byte for byte what tar-stream writes, for all names and sizes", async () => {
    await fc.assert(
      fc.asyncProperty(names, sizes, async (name, size) => {
        expect(tarHeader(name, size).equals(await packedHeader(name, size))).toBe(true);
      }),
    );
  });

  test("describes itself as the file that it is", () => {
    expect(describeTarHeader(tarHeader("nar/abc.nar.zst", 0o1234))).toBe("another header (file)");
  });

  test("is read by GNU tar, also for a file beyond 8 GiB", async () => {
    const directory = await temporaryDirectory();
    const path = join(directory, "archive.tar");
    const file = await open(path, "w");
    try {
      // The huge file is a hole.
      const first = Buffer.concat([tarHeader("small", 3), Buffer.from("abc"), Buffer.alloc(509)]);
      await file.write(first, 0, first.length, 0);
      await file.write(tarHeader("nar/huge", 9 * GIB), 0, 512, 1024);
      await file.write(tarHeader("n".repeat(100), 0), 0, 512, 1536 + 9 * GIB);
      await file.truncate(2048 + 9 * GIB + 1024);
    } finally {
      await file.close();
    }
    const args = ["--list", "--verbose", "--numeric-owner", "--utc", "--full-time", "--file", path];
    const listed = execFileSync("tar", args, { encoding: "utf8" });
    expect(listed.split("\n").map((line) => line.replace(/ +/g, " "))).toEqual([
      "-rw-r--r-- 0/0 3 1970-01-01 00:00:00 small",
      `-rw-r--r-- 0/0 ${9 * GIB} 1970-01-01 00:00:00 nar/huge`,
      `-rw-r--r-- 0/0 0 1970-01-01 00:00:00 ${"n".repeat(100)}`,
      "",
    ]);
  });
});

test("sizes are padded to whole blocks", () => {
  fc.assert(
    fc.property(fc.nat({ max: 2 ** 40 }), (size) => {
      const padded = paddedSize(size);
      expect(padded % 512).toBe(0);
      expect(padded - size).toBeGreaterThanOrEqual(0);
      expect(padded - size).toBeLessThan(512);
    }),
  );
});

describe("the description of a header", () => {
  test("names every kind of member that GNU tar writes", async () => {
    const directory = await temporaryDirectory();
    await mkdir(join(directory, "directory"));
    await writeFile(join(directory, "file"), "x");
    await link(join(directory, "file"), join(directory, "hard"));
    await symlink("/etc/passwd", join(directory, "soft"));
    execFileSync("mkfifo", [join(directory, "fifo")]);
    const members = ["directory", "file", "hard", "soft", "fifo"];
    const archive = execFileSync(
      "tar",
      ["--create", "--format=gnu", "--blocking-factor=1", "--directory", directory, ...members],
      { encoding: "buffer" },
    );
    const blocks = [0, 1, 3, 4, 5].map((at) => archive.subarray(at * 512, at * 512 + 512));
    expect(blocks.map(describeTarHeader)).toEqual([
      "another header (directory)",
      "another header (file)",
      "another header (hard link)",
      "another header (symbolic link)",
      "another header (FIFO)",
    ]);
  });

  test.each([
    ["pax", "pax header"],
    ["gnu", "GNU long name"],
  ])("names the header that a long name needs in the %s format", async (format, words) => {
    const directory = await temporaryDirectory();
    const name = "x".repeat(150);
    await writeFile(join(directory, name), "");
    const archive = execFileSync(
      "tar",
      ["--create", `--format=${format}`, "--directory", directory, name],
      { encoding: "buffer" },
    );
    expect(describeTarHeader(archive.subarray(0, 512))).toContain(words);
  });

  test.each([
    ["device", "3", "character device"],
    ["block device", "4", "block device"],
    ["global pax header", "g", "global pax header"],
    ["something else", "Z", "unknown type"],
  ])("names a %s", (_, type, words) => {
    const header = tarHeader("x", 0);
    header.write(type, 156, "latin1");
    expect(describeTarHeader(header)).toBe(`another header (${words})`);
  });

  test("calls a zero block the end of the archive", () => {
    expect(describeTarHeader(Buffer.alloc(512))).toBe("the end of the archive");
  });

  test("calls anything else bytes that are no header", () => {
    expect(describeTarHeader(Buffer.from("<html>".padEnd(512)))).toBe(
      "bytes that are no tar header",
    );
    expect(describeTarHeader(Buffer.alloc(512, 0xff))).toBe("bytes that are no tar header");
  });

  const garbage = fc.uint8Array({ minLength: 512, maxLength: 512 }).map((bytes) => {
    const block = Buffer.from(bytes);
    block.write("ustar", 257, "latin1");
    return block;
  });

  test("never throws and never gets long, whatever the block holds", () => {
    fc.assert(
      fc.property(fc.oneof(garbage, fc.uint8Array({ maxLength: 600 })), (block) => {
        expect(describeTarHeader(block).length).toBeLessThan(1_500);
      }),
    );
  });

  test("has no control characters, whatever the block holds", () => {
    fc.assert(
      fc.property(garbage, (block) => {
        expect(describeTarHeader(block)).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
      }),
    );
  });
});
