import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFile,
  chmod,
  chown,
  link,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  isNarMember,
  readIndex,
  type ArchiveContents,
} from "../../../../agent/core/formats/archive-index.ts";
import { planRuns, type Run } from "../../../../agent/core/transfer/fetch-plan.ts";
import { tarHeader } from "../../../../agent/core/formats/tar-layout.ts";
import { readRun } from "../../../../agent/core/transfer/run-reader.ts";
import {
  StagingDirectory,
  removeStaging,
  stagingIn,
} from "../../../../agent/effects/nix/staging.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { scriptOnFullDisk } from "../../../support/full-disk.ts";
import {
  SAMPLE_KEY,
  chainArchive,
  sampleArchives,
  type SampleArchive,
} from "../../../support/sample-archive.ts";
import { sampleDigest } from "../../../support/sample-release.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const ARCHIVE = chainArchive();
const [LIBRARY = "", PROGRAM = "", SYSTEM = ""] = ARCHIVE.nars.keys();

function contentsOf({ compressed, release }: SampleArchive): ArchiveContents {
  return readIndex(compressed, release, [SAMPLE_KEY.publicKey]);
}

const CONTENTS = contentsOf(ARCHIVE);

/** The run that reads everything after the index. */
function wholeRun(contents: ArchiveContents): Run {
  const nars = contents.members.filter(isNarMember);
  const [run] = planRuns(contents, new Map(nars.map(({ name }) => [name, 0])));
  if (!run) throw new Error("no run");
  return run;
}

const WHOLE = wholeRun(CONTENTS);

/** Reads a run into staging; gives how many bytes of NARs it heard of. */
async function take(
  staging: StagingDirectory,
  run: Run,
  contents: ArchiveContents,
  source: AsyncIterable<Uint8Array>,
): Promise<number> {
  let counted = 0;
  const count = (bytes: number): void => {
    counted += bytes;
  };
  await readRun(run, contents, source, (member, have, pieces) =>
    staging.writeNar(member, have, pieces, count),
  );
  return counted;
}

/** What an honest mirror sends for it. */
const HONEST = ARCHIVE.bytes.subarray(WHOLE.from, WHOLE.to);

/** Offset of a member's header within the run. */
function offsetOf(name: string): number {
  const member = CONTENTS.members.find((one) => one.name === name);
  return (member?.headerOffset ?? 0) - WHOLE.from;
}

/** Bytes as they come from the network, in pieces of `size`. */
async function* inPieces(bytes: Uint8Array, size = 1_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** The honest bytes with `replacement` at `offset`. */
function replaced(offset: number, replacement: Uint8Array, length = replacement.length): Buffer {
  return Buffer.concat([HONEST.subarray(0, offset), replacement, HONEST.subarray(offset + length)]);
}

async function newStaging(root?: string) {
  const parent = await mkdtemp(join(root ?? (await temporaryDirectory()), "staging-"));
  const staging = new StagingDirectory(parent, ARCHIVE.release.archive.sha256);
  await staging.prepare();
  return { staging, parent };
}

/** Takes the whole run from these bytes; gives what went wrong and which files are there then. */
async function refused(bytes: Uint8Array, root?: string) {
  const { staging, parent } = await newStaging(root);
  const taking = take(staging, WHOLE, CONTENTS, inPieces(bytes));
  const failure = await rejectionOf(taking);
  const names = await readdir(parent, { recursive: true });
  const files = names.filter((name) => name.includes("."));
  return { failure, files: files.map((name) => name.slice(name.indexOf("/") + 1)).sort() };
}

function nars(...names: string[]): string[] {
  return names.toSorted();
}

describe("an honest archive", () => {
  test("becomes NAR files with their contents, and the bytes are counted", async () => {
    const root = await temporaryDirectory();
    await fc.assert(
      fc.asyncProperty(
        sampleArchives,
        fc.integer({ min: 1, max: 3_000 }),
        async (archive, size) => {
          const contents = contentsOf(archive);
          const run = wholeRun(contents);
          const parent = await mkdtemp(join(root, "staging-"));
          const staging = new StagingDirectory(parent, archive.release.archive.sha256);
          await staging.prepare();
          const bytes = archive.bytes.subarray(run.from, run.to);
          const counted = await take(staging, run, contents, inPieces(bytes, size));
          let expected = 0;
          for (const [name, nar] of archive.nars) {
            expect((await readFile(join(staging.directory, name))).equals(nar)).toBe(true);
            expected += nar.length;
          }
          expect(counted).toBe(expected);
          expect(await staging.missing(contents.members.filter(isNarMember))).toEqual(new Map());
          expect(await readdir(join(staging.directory, "nar"))).toHaveLength(archive.nars.size);
        },
      ),
      { numRuns: 15 },
    );
  });

  test("is complete with its narinfos, as a binary cache", async () => {
    const { staging } = await newStaging();
    await take(staging, WHOLE, CONTENTS, inPieces(HONEST));
    await staging.writeNarInfos(CONTENTS.narInfos);
    const unpacked = await temporaryDirectory();
    const tar = join(unpacked, "archive.tar");
    await writeFile(tar, ARCHIVE.bytes);
    execFileSync("tar", ["--extract", "--file", tar, "--directory", unpacked]);
    const listing = execFileSync(
      "diff",
      ["-r", "--exclude=archive.tar", "--exclude=index.json.gz", unpacked, staging.directory],
      { encoding: "utf8" },
    );
    expect(listing).toBe("");
  });

  test("may be followed by more bytes, which are not read", async () => {
    const { staging } = await newStaging();
    const more = Buffer.concat([HONEST, Buffer.alloc(10_000, "x")]);
    await take(staging, WHOLE, CONTENTS, inPieces(more));
    expect(await staging.holdsNars()).toBe(true);
  });

  test("closes its source at the end", async () => {
    let closed = false;
    async function* source(): AsyncGenerator<Uint8Array> {
      try {
        yield HONEST;
        yield HONEST;
      } finally {
        closed = true;
      }
    }
    const drain = async (_: unknown, __: number, pieces: AsyncIterable<Uint8Array>) => {
      for await (const piece of pieces) expect(piece.length).toBeGreaterThan(0);
    };
    await readRun(WHOLE, CONTENTS, source(), drain);
    expect(closed).toBe(true);
  });
});

describe("a run over a part of the archive", () => {
  test("writes the wanted NARs, skips what lies between, and checks its header", async () => {
    const { staging } = await newStaging();
    const [run] = planRuns(
      CONTENTS,
      new Map([
        [LIBRARY, 0],
        [SYSTEM, 0],
      ]),
    );
    if (!run) throw new Error("no run");
    const bytes = ARCHIVE.bytes.subarray(run.from, run.to);
    await take(staging, run, CONTENTS, inPieces(bytes));
    const written = await readdir(join(staging.directory, "nar"));
    expect(written.map((name) => `nar/${name}`).sort()).toEqual(nars(LIBRARY, SYSTEM));
    const altered = Buffer.from(bytes);
    altered.write("x", offsetOf(PROGRAM) - (run.from - WHOLE.from), "latin1");
    const taking = take((await newStaging()).staging, run, CONTENTS, inPieces(altered));
    expect((await rejectionOf(taking)).code).toBe("ARCHIVE_MEMBER");
  });

  test("resumes a NAR that broke off anywhere", async () => {
    const root = await temporaryDirectory();
    const size = ARCHIVE.nars.get(LIBRARY)?.length ?? 0;
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: size - 1 }), async (broken) => {
        const { staging } = await newStaging(root);
        const cut = HONEST.subarray(0, offsetOf(LIBRARY) + 512 + broken);
        const first = take(staging, WHOLE, CONTENTS, inPieces(cut));
        expect((await rejectionOf(first)).code).toBe("ARCHIVE_TRUNCATED");
        const wanted = CONTENTS.members.filter(isNarMember);
        const again = new StagingDirectory(
          join(staging.directory, ".."),
          ARCHIVE.release.archive.sha256,
        );
        const missing = await again.missing(wanted);
        expect(missing.get(LIBRARY)).toBe(broken);
        for (const run of planRuns(CONTENTS, missing)) {
          const rest = ARCHIVE.bytes.subarray(run.from, run.to);
          await take(again, run, CONTENTS, inPieces(rest));
        }
        expect(await again.missing(wanted)).toEqual(new Map());
        const nar = await readFile(join(again.directory, LIBRARY));
        expect(nar.equals(ARCHIVE.nars.get(LIBRARY) ?? Buffer.alloc(0))).toBe(true);
      }),
      { numRuns: 15 },
    );
  });

  test("does not believe the start of a NAR that was altered on disk", async () => {
    const { staging } = await newStaging();
    const part = join(staging.directory, `${LIBRARY}.part`);
    await writeFile(part, Buffer.alloc(100, "evil"));
    const missing = await staging.missing(CONTENTS.members.filter(isNarMember));
    expect(missing.get(LIBRARY)).toBe(100);
    const [run] = planRuns(CONTENTS, missing);
    if (!run) throw new Error("no run");
    const rest = inPieces(ARCHIVE.bytes.subarray(run.from, run.to));
    const failure = await rejectionOf(take(staging, run, CONTENTS, rest));
    expect(failure.code).toBe("ARCHIVE_CORRUPT");
    // The next attempt starts it anew.
    const wanted = CONTENTS.members.filter(isNarMember);
    expect((await staging.missing(wanted)).get(LIBRARY)).toBe(0);
  });
});

describe("a hostile tar", () => {
  const size = ARCHIVE.nars.get(PROGRAM)?.length ?? 0;
  const header = (name: string, change: (block: Buffer) => void = () => undefined): Buffer => {
    const block = tarHeader(name, size);
    change(block);
    return block;
  };
  /** Makes the checksum right again, so that a tar reader would take the header. */
  const typed = (type: string, link = ""): Buffer =>
    header(PROGRAM, (block) => {
      block.write(type, 156, "latin1");
      block.write(link, 157, "latin1");
      block.write(" ".repeat(8), 148, "latin1");
      const sum = block.reduce((total, byte) => total + byte, 0);
      block.write(`${sum.toString(8).padStart(6, "0")} \0`, 148, "latin1");
    });

  test.each<[string, Buffer, string]>([
    ["a name that leads upwards", header("../../../etc/passwd"), "another header (file)"],
    ["an absolute name", header("/etc/passwd"), "another header (file)"],
    ["a name below another", header(`${PROGRAM}/x`), "another header (file)"],
    ["a name that is not in the index", header("nar/other.nar"), "another header (file)"],
    ["an earlier member's name", header(LIBRARY), "another header (file)"],
    ["an empty name", header(""), "another header (file)"],
    ["a symbolic link", typed("2", "/etc/passwd"), "another header (symbolic link)"],
    ["a hard link", typed("1", "/etc/passwd"), "another header (hard link)"],
    ["a directory", typed("5"), "directory"],
    ["a device", typed("3"), "character device"],
    ["a FIFO", typed("6"), "FIFO"],
    ["a pax header", typed("x"), "pax header"],
    ["a GNU long name", typed("L"), "GNU long name"],
    ["a sparse file", typed("S"), "unknown type"],
    ["a smaller size", tarHeader(PROGRAM, size - 1), "another header (file)"],
    ["a larger size", tarHeader(PROGRAM, size + 1), "another header (file)"],
    ["a huge size", tarHeader(PROGRAM, 2 ** 50), "another header (file)"],
    ["another mode", header(PROGRAM, (block) => block.write("000777", 100, "latin1")), "file"],
    ["another owner", header(PROGRAM, (block) => block.write("000001", 108, "latin1")), "file"],
    ["a wrong checksum", header(PROGRAM, (block) => block.write("777777", 148, "latin1")), "file"],
    [
      "a prefix to its name",
      header(PROGRAM, (block) => block.write("/etc", 345, "latin1")),
      "file",
    ],
    ["the end of the archive", Buffer.alloc(512), "the end of the archive"],
    ["an HTML page", Buffer.alloc(512, "<html>"), "bytes that are no tar header"],
  ])(
    "with %s where a NAR should be is refused, naming the member and what kind came",
    async (_, block, words) => {
      const { failure, files } = await refused(replaced(offsetOf(PROGRAM), block));
      expect(failure.code).toBe("ARCHIVE_MEMBER");
      expect(failure.message).toContain(
        `expected the tar member file "${PROGRAM}" of ${size} bytes`,
      );
      expect(failure.message).toMatch(/, found [^/]*$/);
      expect(failure.message.split(", found ")[1]).toContain(words);
      // What came before was whole; nothing else was written anywhere.
      expect(files).toEqual(nars(LIBRARY));
    },
  );

  test.each<[string, string]>([
    ["the first member", "nix-cache-info"],
    ["a narinfo", CONTENTS.members[1]?.name ?? ""],
  ])("with a symbolic link for %s is refused before anything is written", async (_, name) => {
    const { failure, files } = await refused(replaced(offsetOf(name), typed("2", "/etc")));
    expect(failure.code).toBe("ARCHIVE_MEMBER");
    expect(files).toEqual([]);
  });

  test("with a member twice, left out, or put in, is refused", async () => {
    const [library, program, system] = [LIBRARY, PROGRAM, SYSTEM].map(offsetOf) as [
      number,
      number,
      number,
    ];
    const twice = replaced(program, HONEST.subarray(library, program), 0);
    const without = replaced(program, Buffer.alloc(0), system - program);
    const extra = replaced(program, Buffer.concat([tarHeader("etc/passwd", 0)]), 0);
    const swapped = Buffer.concat([
      HONEST.subarray(0, library),
      HONEST.subarray(program, system),
      HONEST.subarray(library, program),
      HONEST.subarray(system),
    ]);
    for (const bytes of [twice, without, extra, swapped]) {
      expect((await refused(bytes)).failure.code).toBe("ARCHIVE_MEMBER");
    }
  });

  test("with something in its padding or after its end is refused", async () => {
    const padding = offsetOf(PROGRAM) - 1;
    const behind = await refused(replaced(padding, Buffer.from("x")));
    expect(behind.failure.code).toBe("ARCHIVE_MEMBER");
    expect(behind.failure.message).toContain(`324 zero bytes after ${LIBRARY}`);
    const end = await refused(replaced(HONEST.length - 1, Buffer.from("x")));
    expect(end.failure.code).toBe("ARCHIVE_MEMBER");
    expect(end.failure.message).toContain("1024 zero bytes after the last member");
  });

  test("with another narinfo is refused, naming the line", async () => {
    const name = CONTENTS.members[1]?.name ?? "";
    const at = HONEST.indexOf("NarSize: ", offsetOf(name));
    const { failure, files } = await refused(replaced(at, Buffer.from("NarSize: 9")));
    expect(failure.code).toBe("NARINFO_MISMATCH");
    expect(failure.message).toContain(
      `${name} differs from the signed index in line 7: expected "NarSize: `,
    );
    expect(failure.message).not.toContain("NarSize: 9");
    expect(files).toEqual([]);
  });

  test("with another NAR is refused, and that NAR is removed", async () => {
    const { failure, files } = await refused(
      replaced(offsetOf(PROGRAM) + 512, Buffer.from("evil")),
    );
    const nar = Buffer.from(ARCHIVE.nars.get(PROGRAM) ?? []);
    nar.write("evil");
    expect(failure.code).toBe("ARCHIVE_CORRUPT");
    expect(failure.message).toContain(`found ${createHash("sha256").update(nar).digest("hex")}`);
    expect(files).toEqual(nars(LIBRARY));
  });

  test("that real tar made of links and upward names is refused", async () => {
    const directory = await temporaryDirectory();
    await mkdir(join(directory, "nar"));
    await symlink("/etc", join(directory, PROGRAM));
    await writeFile(join(directory, "passwd"), "root");
    for (const [name, options] of [
      [PROGRAM, []],
      ["passwd", ["--transform=s,^,../../,", "--absolute-names"]],
      ["passwd", ["--transform=s,^,/etc/,", "--absolute-names"]],
    ] as const) {
      const made = execFileSync("tar", ["--create", "--directory", directory, ...options, name]);
      const { failure, files } = await refused(replaced(offsetOf(PROGRAM), made, 0));
      expect(failure.code).toBe("ARCHIVE_MEMBER");
      expect(files).toEqual(nars(LIBRARY));
    }
  });

  test("that ends at any block boundary is truncated, and what is whole is kept", async () => {
    const ends = [LIBRARY, PROGRAM, SYSTEM].map((name) => {
      const nar = ARCHIVE.nars.get(name)?.length ?? 0;
      return { name, end: offsetOf(name) + 512 + nar };
    });
    const root = await temporaryDirectory();
    for (let length = 0; length < HONEST.length; length += 512) {
      const { failure, files } = await refused(HONEST.subarray(0, length), root);
      expect(failure.code).toBe("ARCHIVE_TRUNCATED");
      expect(failure.transient).toBe(true);
      const whole = ends.filter(({ end }) => end <= length).map(({ name }) => name);
      expect(files.filter((name) => !name.endsWith(".part"))).toEqual(nars(...whole));
    }
  });

  test("with any one byte altered is refused, and no altered NAR is kept", async () => {
    const root = await temporaryDirectory();
    await fc.assert(
      fc.asyncProperty(
        fc.nat({ max: HONEST.length - 1 }),
        fc.integer({ min: 1, max: 255 }),
        async (at, by) => {
          const altered = Buffer.from(HONEST);
          altered[at] = (altered[at] ?? 0) ^ by;
          const { staging } = await newStaging(root);
          const taking = take(staging, WHOLE, CONTENTS, inPieces(altered));
          const { code } = await rejectionOf(taking);
          expect(["ARCHIVE_MEMBER", "ARCHIVE_CORRUPT", "NARINFO_MISMATCH"]).toContain(code);
          for (const name of await readdir(join(staging.directory, "nar"))) {
            const nar = await readFile(join(staging.directory, "nar", name));
            expect(nar.equals(ARCHIVE.nars.get(`nar/${name}`) ?? Buffer.alloc(0))).toBe(true);
          }
        },
      ),
      { numRuns: 40 },
    );
  });
});

test("a NAR that the disk has no room for is an error and not a complete file", async () => {
  const directory = await temporaryDirectory();
  const run = await scriptOnFullDisk(
    directory,
    `
      import { createHash } from "node:crypto";
      import { StagingDirectory } from "./agent/effects/nix/staging.ts";
      const nar = Buffer.alloc(100_000, 7);
      const sha256 = createHash("sha256").update(nar).digest("hex");
      const body = { kind: "nar", sha256, storePath: "x" } as const;
      const member = { name: "nar/x.nar", size: nar.length, headerOffset: 0, body };
      const source = (async function* () { yield nar; })();
      const staging = new StagingDirectory(process.argv[2] ?? "", "a".repeat(64));
      void staging
        .prepare()
        .then(() => staging.writeNar(member, 0, source, () => undefined))
        .then(() => console.log("complete"), (error) => console.log(error.code));
    `,
  );
  expect(run(64, directory)).toBe("EFBIG");
});

describe("what is in staging already", () => {
  const wanted = CONTENTS.members.filter(isNarMember);

  async function filled() {
    const made = await newStaging();
    await take(made.staging, WHOLE, CONTENTS, inPieces(HONEST));
    // Another process: it must look for itself.
    return { ...made, again: new StagingDirectory(made.parent, ARCHIVE.release.archive.sha256) };
  }

  test("is not fetched again", async () => {
    const { again } = await filled();
    await again.prepare();
    expect(await again.missing(wanted)).toEqual(new Map());
  });

  test.each<[string, (path: string) => Promise<unknown>]>([
    ["torn", (path) => truncate(path, 10)],
    ["empty", (path) => truncate(path, 0)],
    ["longer", (path) => appendFile(path, "x")],
    [
      "other bytes of the same length",
      async (path) => writeFile(path, Buffer.alloc((await stat(path)).size)),
    ],
  ])("but is %s after a power cut is fetched again", async (_, damage) => {
    const { again, staging } = await filled();
    await damage(join(staging.directory, PROGRAM));
    expect(await again.missing(wanted)).toEqual(new Map([[PROGRAM, 0]]));
  });

  test("as files with a second name, through which others could write, counts as nothing", async () => {
    const { staging, again, parent } = await filled();
    const elsewhere = (name: string) => join(parent, name);
    await link(join(staging.directory, PROGRAM), elsewhere("program"));
    await writeFile(elsewhere("part"), ARCHIVE.nars.get(SYSTEM)?.subarray(0, 10) ?? "");
    await rm(join(staging.directory, SYSTEM));
    await link(elsewhere("part"), join(staging.directory, `${SYSTEM}.part`));
    await writeFile(elsewhere("index"), "index");
    await link(elsewhere("index"), join(staging.directory, "index.json.gz"));
    expect(await again.missing(wanted)).toEqual(
      new Map([
        [PROGRAM, 0],
        [SYSTEM, 0],
      ]),
    );
    expect(await again.readIndex()).toBeNull();
    // The names in staging are gone, what they named stays.
    expect(await readdir(join(staging.directory, "nar"))).toEqual([LIBRARY.slice("nar/".length)]);
    expect((await stat(elsewhere("program"))).nlink).toBe(1);
    expect((await readFile(elsewhere("part"))).length).toBe(10);
  });

  test("as a part that got a second name since it was found is not written to", async () => {
    const { staging, parent } = await newStaging();
    const part = join(staging.directory, `${PROGRAM}.part`);
    await writeFile(part, "abc");
    await link(part, join(parent, "second"));
    const [program] = wanted.filter(({ name }) => name === PROGRAM);
    const writing = staging.writeNar(program!, 3, inPieces(Buffer.from("def")), () => undefined);
    const failure = await rejectionOf(writing);
    expect(failure.code).toBe("STAGING_UNSAFE");
    expect(failure.message).toBe(
      `${part}: expected a regular file with only this name, found one with 2 names`,
    );
    expect((await readFile(join(parent, "second"))).toString()).toBe("abc");
  });

  test("as a part that is too long counts as nothing", async () => {
    const { staging } = await newStaging();
    await writeFile(join(staging.directory, `${PROGRAM}.part`), Buffer.alloc(5_000));
    expect((await staging.missing(wanted)).get(PROGRAM)).toBe(0);
    expect(await staging.holdsNars()).toBe(false);
  });

  test("of another archive is removed, and files that are not the agent's stay", async () => {
    const { staging, parent } = await filled();
    await writeFile(join(parent, "somebody-elses-file"), "x");
    const other = new StagingDirectory(parent, sampleDigest("another archive"));
    await other.prepare();
    expect((await readdir(parent)).sort()).toEqual(
      ["somebody-elses-file", sampleDigest("another archive")].sort(),
    );
    expect(await staging.holdsNars()).toBe(false);
    expect((await stat(parent)).mode & 0o777).toBe(0o700);
  });

  test("is removed if it is nobody's part of it, and no link is followed", async () => {
    const { staging, parent } = await newStaging();
    await take(staging, WHOLE, CONTENTS, inPieces(HONEST));
    await staging.writeNarInfos(CONTENTS.narInfos);
    await staging.writeIndex(ARCHIVE.compressed);
    const ours = (await readdir(staging.directory, { recursive: true })).sort();
    const elsewhere = await temporaryDirectory();
    await writeFile(join(elsewhere, "kept"), "");
    await symlink(elsewhere, join(staging.directory, "link"));
    await symlink(elsewhere, join(staging.directory, "nar/link"));
    await mkdir(join(staging.directory, "tree/below"), { recursive: true });
    await symlink(elsewhere, join(staging.directory, "tree/below/link"));
    await writeFile(join(staging.directory, "nar/notes.txt"), "");
    await writeFile(join(parent, "notes.txt"), "somebody's");
    await staging.prepare();
    expect((await readdir(staging.directory, { recursive: true })).sort()).toEqual(ours);
    expect(await readdir(elsewhere)).toEqual(["kept"]);
    expect(await readFile(join(parent, "notes.txt"), "utf8")).toBe("somebody's");
    expect((await staging.missing(CONTENTS.members.filter(isNarMember))).size).toBe(0);
  });

  test.runIf(process.geteuid?.() === 0)(
    "as somebody else's directory in its place is removed, unless others may write beside it",
    async () => {
      const { staging, parent } = await newStaging();
      const squat = async (): Promise<void> => {
        await rm(staging.directory, { recursive: true });
        await mkdir(staging.directory);
        await chown(staging.directory, 12_345, 12_345);
      };
      await squat();
      await staging.prepare();
      expect((await stat(staging.directory)).uid).toBe(0);
      await squat();
      await chmod(parent, 0o1777);
      await expect(staging.prepare()).rejects.toMatchObject({ code: "STAGING_UNSAFE" });
      expect((await stat(staging.directory)).uid).toBe(12_345);
    },
  );

  test("as somebody's link in its place is replaced and not followed", async () => {
    const parent = await temporaryDirectory();
    const elsewhere = await temporaryDirectory();
    const { sha256 } = ARCHIVE.release.archive;
    await symlink(elsewhere, join(parent, sha256));
    const staging = new StagingDirectory(parent, sha256);
    await staging.prepare();
    await staging.writeIndex(Buffer.from("index"));
    expect(await readdir(elsewhere)).toEqual([]);
    expect((await staging.readIndex())?.toString()).toBe("index");
  });

  test("has no index until one is written", async () => {
    const { staging } = await newStaging();
    expect(await staging.readIndex()).toBeNull();
  });

  test("is removed with its directory, but for what is not the agent's", async () => {
    const { parent } = await filled();
    await stagingIn(parent).remove();
    await expect(stat(parent)).rejects.toMatchObject({ code: "ENOENT" });
    await removeStaging(parent);
    await mkdir(join(parent, "other"), { recursive: true });
    await removeStaging(parent);
    expect(await readdir(parent)).toEqual(["other"]);
  });
});
