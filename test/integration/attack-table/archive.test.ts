import {
  chmod,
  link,
  mkdir,
  readFile,
  readdir,
  rename,
  rm,
  stat,
  statfs,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  archiveIndexSchema,
  endOfIndex,
  layOut,
  ownNarInfosOf,
  type ArchiveIndex,
} from "../../../agent/core/formats/archive-index.ts";
import { narFileName } from "../../../agent/core/formats/narinfo.ts";
import {
  TAR_BLOCK,
  TAR_TRAILER,
  paddedSize,
  tarHeader,
} from "../../../agent/core/formats/tar-layout.ts";
import { attacks, inAttackWorld, sha256, type AttackWorld } from "../../support/attack-world.ts";
import { mountTmpfs, whyNoMounts } from "../../support/scratch-mount.ts";

let world: AttackWorld;

inAttackWorld((it) => (world = it));
const here = (): AttackWorld => world;

/** Offset of the header of the last NAR that the host lacks: the toplevel's. */
async function lastNar(): Promise<{ header: number; size: number }> {
  const { file, indexSize } = await world.archive();
  const last = (await readArchiveIndex(file, indexSize)).paths.at(-1);
  if (!last) throw new Error("an empty index");
  const end = TAR_BLOCK + paddedSize(indexSize);
  return { header: end + last.nar.offset - TAR_BLOCK, size: last.nar.size };
}

async function readArchiveIndex(file: string, indexSize: number): Promise<ArchiveIndex> {
  const bytes = await readFile(file);
  const json = gunzipSync(bytes.subarray(TAR_BLOCK, TAR_BLOCK + indexSize)).toString();
  return archiveIndexSchema.parse(JSON.parse(json));
}

/** Writes another header over the last NAR's; the checksum is right, as tar would have it. */
async function forgeHeader(change: (header: Buffer) => void): Promise<void> {
  const { header, size } = await lastNar();
  const block = tarHeader("nar/x.nar.zst", size);
  change(block);
  block.fill(" ", 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  await world.patchArchive(header, block);
}

function named(name: string, type = "0", target = ""): (header: Buffer) => void {
  return (header) => {
    header.fill(0, 0, 100).write(name, 0, "latin1");
    header.write(type, 156, "latin1");
    header.write(target, 157, "latin1");
  };
}

/** A signed index that says something else: a key holder's mistake or worse. */
async function forgeIndex(change: (index: ArchiveIndex) => unknown): Promise<void> {
  const { file, indexSize, sha256: name } = await world.archive();
  const bytes = await readFile(file);
  const index = await readArchiveIndex(file, indexSize);
  const changed = change(index) ?? index;
  const text = typeof changed === "string" ? changed : JSON.stringify(changed);
  await placeIndex(gzipSync(text, { level: 9 }), name, bytes, indexSize);
}

async function placeIndex(
  compressed: Buffer,
  name: string,
  bytes: Buffer,
  indexSize: number,
): Promise<void> {
  const rest = bytes.subarray(TAR_BLOCK + paddedSize(indexSize));
  const padding = Buffer.alloc(paddedSize(compressed.length) - compressed.length);
  const whole = Buffer.concat([
    tarHeader("index.json.gz", compressed.length),
    compressed,
    padding,
    rest,
  ]);
  const hash = sha256(whole);
  await writeFile(join(world.mirror, "archives", `${hash}.tar`), whole);
  await world.resign((manifest) => {
    for (const host of Object.values(manifest.hosts)) {
      if (host.archive.sha256 !== name) continue;
      host.archive = {
        sha256: hash,
        size: whole.length,
        index: { sha256: sha256(compressed), size: compressed.length },
      };
    }
  });
}

function lastPath(index: ArchiveIndex): ArchiveIndex["paths"][number] {
  const path = index.paths.at(-1);
  if (!path) throw new Error("an empty index");
  return path;
}

attacks("tar members", here, [
  {
    name: "a member with a way out of staging",
    code: "ARCHIVE_MEMBER",
    arrange: () => forgeHeader(named("../../../../tmp/nixos-pull-escaped")),
  },
  {
    name: "an absolute member",
    code: "ARCHIVE_MEMBER",
    arrange: () => forgeHeader(named("/etc/nixos-pull-escaped")),
  },
  {
    name: "a symbolic link",
    code: "ARCHIVE_MEMBER",
    arrange: () => forgeHeader(named("nar/link", "2", "/etc")),
  },
  {
    name: "a hard link",
    code: "ARCHIVE_MEMBER",
    arrange: () => forgeHeader(named("nar/link", "1", "/etc/shadow")),
  },
  { name: "a device", code: "ARCHIVE_MEMBER", arrange: () => forgeHeader(named("nar/sda", "3")) },
  { name: "a FIFO", code: "ARCHIVE_MEMBER", arrange: () => forgeHeader(named("nar/fifo", "6")) },
  {
    name: "a directory",
    code: "ARCHIVE_MEMBER",
    arrange: () => forgeHeader(named("nar/directory", "5")),
  },
  {
    name: "a long name in an extended header",
    code: "ARCHIVE_MEMBER",
    arrange: () => forgeHeader(named("PaxHeader", "x")),
  },
  {
    name: "a member that the index does not name",
    code: "ARCHIVE_MEMBER",
    arrange: () => forgeHeader(named("nar/extra.nar.zst")),
  },
  {
    name: "a member of another size",
    code: "ARCHIVE_MEMBER",
    arrange: () => forgeHeader((header) => header.write("77777777777 ", 124, "latin1")),
  },
  {
    name: "zeros in place of a header: an early end",
    code: "ARCHIVE_MEMBER",
    arrange: async () => world.patchArchive((await lastNar()).header, Buffer.alloc(TAR_BLOCK)),
  },
]);

attacks("contents", here, [
  {
    name: "a flipped bit in a NAR",
    code: "ARCHIVE_CORRUPT",
    arrange: async () => {
      const { header, size } = await lastNar();
      await world.patchArchive(header + TAR_BLOCK + Math.floor(size / 2), Buffer.from("X"));
    },
  },
  {
    name: "something hidden in the padding",
    code: "ARCHIVE_MEMBER",
    arrange: async () => {
      const { header, size } = await lastNar();
      await world.patchArchive(header + TAR_BLOCK + paddedSize(size) - 1, Buffer.from("X"));
    },
  },
  {
    name: "an archive cut in its middle",
    code: "ARCHIVE_TRUNCATED",
    arrange: async () => truncate((await world.archive()).file, (await lastNar()).header + 600),
  },
  {
    name: "an archive cut in its index",
    code: "ARCHIVE_TRUNCATED",
    arrange: async () => truncate((await world.archive()).file, TAR_BLOCK + 20),
  },
  {
    name: "an empty archive",
    code: "ARCHIVE_TRUNCATED",
    arrange: async () => truncate((await world.archive()).file, 0),
  },
  {
    name: "a flipped bit in the index",
    code: "ARCHIVE_CORRUPT",
    arrange: () => world.patchArchive(TAR_BLOCK + 30, Buffer.from("X")),
  },
  {
    name: "another archive under this one's name",
    code: "ARCHIVE_CORRUPT",
    arrange: async () => {
      const other = (await world.manifest()).hosts["db1"]?.archive.sha256;
      const { file } = await world.archive();
      await rename(join(world.mirror, "archives", `${other}.tar`), file);
    },
  },
  {
    name: "no archive at all",
    code: "MIRROR_NOT_FOUND",
    arrange: async () => rm((await world.archive()).file),
  },
  {
    name: "a directory in the archive's place",
    code: "MIRROR_STATUS",
    arrange: async () => {
      const { file } = await world.archive();
      await rm(file);
      await mkdir(file);
    },
  },
]);

attacks("a signed index that lies", here, [
  { name: "no JSON", code: "INDEX_INVALID", arrange: () => forgeIndex(() => "index") },
  {
    name: "a format of the future",
    code: "FORMAT_UNSUPPORTED",
    arrange: () => forgeIndex((it) => ({ ...it, formatVersion: 9 })),
  },
  {
    name: "a path twice",
    code: "INDEX_INVALID",
    arrange: () => forgeIndex((it) => ({ ...it, paths: [...it.paths, ...it.paths.slice(0, 1)] })),
  },
  {
    name: "a reference to a later path",
    code: "INDEX_INVALID",
    arrange: () => forgeIndex((it) => void it.paths[0]?.references.push(it.paths.length - 1)),
  },
  {
    name: "a store path with a slash",
    code: "INDEX_INVALID",
    arrange: () => forgeIndex((it) => void (lastPath(it).path += "/../../x")),
  },
  {
    name: "another toplevel at the end",
    code: "INDEX_INVALID",
    arrange: () => forgeIndex((it) => void (lastPath(it).path = `${"0".repeat(32)}-evil`)),
  },
  {
    name: "NAR sizes that do not add up",
    code: "INDEX_INVALID",
    arrange: () => forgeIndex((it) => void (lastPath(it).narSize += 1)),
  },
  {
    name: "a NAR at another place",
    code: "INDEX_INVALID",
    arrange: () => forgeIndex((it) => void (lastPath(it).nar.offset += 512)),
  },
  {
    name: "a path without signature",
    code: "PATH_SIGNATURE",
    arrange: () =>
      forgeIndex((it) => {
        // Of the same length in all, so that everything else stays right.
        lastPath(it).signatures = [`fleet-1:${"A".repeat(86)}==`];
      }),
  },
  {
    name: "a compression bomb",
    code: "INDEX_INVALID",
    arrange: async () => {
      const { file, indexSize, sha256: name } = await world.archive();
      const bomb = gzipSync(Buffer.alloc(300 * 1024 * 1024, " "), { level: 1 });
      await placeIndex(bomb, name, await readFile(file), indexSize);
    },
  },
]);

/** A zstd frame of a NAR that unpacks to `bytes` of zeros, at 4 bytes for 128 KiB (RFC 8878). */
function narBomb(bytes: number): Buffer {
  const text = (value: string): Buffer => {
    const padded = Buffer.alloc(8 + Math.ceil(value.length / 8) * 8);
    padded.writeBigUInt64LE(BigInt(value.length));
    padded.write(value, 8, "latin1");
    return padded;
  };
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes));
  const words = ["nix-archive-1", "(", "type", "regular", "contents"].map(text);
  const start = Buffer.concat([...words, length]);
  const block = (type: number, size: number, last: number): Buffer => {
    const header = Buffer.alloc(3);
    header.writeUIntLE(size * 8 + type * 2 + last, 0, 3);
    return header;
  };
  const zeros = Buffer.concat([block(1, 128 * 1024, 0), Buffer.alloc(1)]);
  const count = Math.floor(bytes / (128 * 1024));
  return Buffer.concat([
    // Magic, no sizes in the header, a window of 128 KiB.
    Buffer.from("28b52ffd0038", "hex"),
    ...[block(0, start.length, 0), start],
    ...Array.from({ length: count }, () => zeros),
    block(0, 0, 1),
  ]);
}

describe.skipIf(whyNoMounts() !== null)("decompression", () => {
  test("a NAR that unpacks to a thousand times its signed size is stopped: DISK_FULL", async () => {
    const root = join(world.directory, "small-disk");
    await mountTmpfs(root, "300m");
    await world.becomeFreshHost(root);
    world.configure({ limits: { reserveBytes: 200 * 1024 ** 2 } });
    const { file, indexSize, sha256: name } = await world.archive();
    const index = await readArchiveIndex(file, indexSize);
    const bytes = await readFile(file);
    const bomb = narBomb(1024 ** 3);
    const last = lastPath(index);
    // Whoever can sign releases, but no store paths, can lead the index to it.
    const end = TAR_BLOCK + paddedSize(indexSize);
    // The others lie in the archive of the release before.
    const own = index.paths.filter(({ nar }) => nar.archive === undefined);
    const nars = new Map<string, Buffer>(
      own.map(({ nar }) => [
        nar.sha256,
        bytes.subarray(end + nar.offset, end + nar.offset + nar.size),
      ]),
    );
    last.nar = { ...last.nar, size: bomb.length, sha256: sha256(bomb) };
    nars.set(last.nar.sha256, bomb);
    // Laid out anew: its narinfo is not as long as it was.
    const members = layOut(ownNarInfosOf(index), 0);
    for (const { nar } of own) {
      const member = members.find(({ body }) => body.kind === "nar" && body.sha256 === nar.sha256);
      nar.offset = (member?.headerOffset ?? 0) + TAR_BLOCK - endOfIndex(0);
    }
    const rest = members.flatMap(({ name: member, size, body }) => [
      tarHeader(member, size),
      body.kind === "bytes" ? body.bytes : (nars.get(body.sha256) ?? Buffer.alloc(size)),
      Buffer.alloc(paddedSize(size) - size),
    ]);
    const archive = Buffer.concat([bytes.subarray(0, end), ...rest, Buffer.alloc(TAR_TRAILER)]);
    await placeIndex(gzipSync(JSON.stringify(index), { level: 9 }), name, archive, indexSize);
    const { value, stderr } = await world.apply();
    // By us, or by the disk if Nix was faster than our look.
    expect(value.error?.message, stderr).toMatch(/unpacks to more than it says|No space left/);
    expect(value.error?.code).toBe("DISK_FULL");
    const { bavail, bsize } = await statfs(root);
    expect(bavail * bsize).toBeGreaterThan(0);
    expect(await world.exists(join(root, "nix/var/nix/profiles/system"))).toBe(false);
    expect(await readdir(join(root, "state/staging")).catch(() => [])).toEqual([]);
  });
});

describe("what others put into staging", () => {
  const staging = (): string => join(world.state, "staging");
  /** The update itself is not the question: it is to be left undone at the very end. */
  const noDisk = { limits: { reserveBytes: 2 ** 52 } };

  test("staging swapped for a link: STAGING_UNSAFE", async () => {
    const elsewhere = join(world.directory, "elsewhere");
    await mkdir(elsewhere, { recursive: true });
    await symlink(elsewhere, staging());
    await world.refuses("STAGING_UNSAFE");
    await rm(staging());
  });

  test("staging that everybody may write to: STAGING_UNSAFE", async () => {
    await mkdir(staging());
    await chmod(staging(), 0o777);
    await world.refuses("STAGING_UNSAFE");
  });

  test("an archive's directory that a group may write to: STAGING_UNSAFE", async () => {
    const { sha256: name } = await world.archive();
    await mkdir(join(staging(), name), { recursive: true });
    await chmod(join(staging(), name), 0o770);
    await world.refuses("STAGING_UNSAFE");
  });

  test("staging of another user: STAGING_UNSAFE", async () => {
    await mkdir(staging());
    const changed = await world.chown(staging(), 65534);
    if (!changed) return;
    await world.refuses("STAGING_UNSAFE");
  });

  test.each([
    ["a link in an archive's place", (it: Places) => symlink(it.victim, it.archive)],
    ["a link in the index's place", (it: Places) => it.under(() => symlink(it.file, it.index))],
    [
      "a second name of a file in the index's place",
      (it: Places) => it.under(() => link(it.file, it.index)),
    ],
    ["a link in a NAR's place", (it: Places) => it.under(() => symlink(it.file, it.nar))],
    [
      "a link in a partial NAR's place",
      (it: Places) => it.under(() => symlink(it.file, `${it.nar}.part`)),
    ],
    [
      "a second name of a file in a partial NAR's place",
      (it: Places) => it.under(() => link(it.file, `${it.nar}.part`)),
    ],
    [
      "a link in the narinfos' place",
      (it: Places) => it.under(() => symlink(it.file, it.cacheInfo)),
    ],
  ])("%s leads no byte elsewhere", async (_, plant) => {
    const it = await places();
    await mkdir(staging(), { recursive: true, mode: 0o700 });
    await plant(it);
    const before = (await stat(it.file)).mtimeMs;
    // Everything is fetched, checked and written; without `nix` nothing comes after that.
    world.leavesDownload();
    const { value } = await world.apply(["apply"], { PATH: await world.pathWithout("nix") });
    expect(value.error?.code).toBe("TOOL_MISSING");
    expect(await readFile(it.file, "utf8")).toBe("precious\n");
    expect((await stat(it.file)).mtimeMs).toBe(before);
    expect(await world.exists(join(it.victim, "nar"))).toBe(false);
  });

  test("a full disk is foreseen: DISK_FULL", async () => {
    world.configure(noDisk);
    await world.refuses("DISK_FULL");
  });

  interface Places {
    readonly victim: string;
    readonly file: string;
    readonly archive: string;
    readonly index: string;
    readonly nar: string;
    readonly cacheInfo: string;
    under(plant: () => Promise<void>): Promise<void>;
  }

  async function places(): Promise<Places> {
    const victim = join(world.directory, "victim");
    await rm(victim, { recursive: true, force: true });
    await mkdir(victim);
    const file = join(victim, "file");
    await writeFile(file, "precious\n");
    const { file: tar, indexSize, sha256: name } = await world.archive();
    const archive = join(staging(), name);
    const last = lastPath(await readArchiveIndex(tar, indexSize));
    return {
      victim,
      file,
      archive,
      index: join(archive, "index.json.gz"),
      nar: join(archive, narFileName(last.nar.sha256, "zstd")),
      cacheInfo: join(archive, "nix-cache-info"),
      async under(plant) {
        await mkdir(join(archive, "nar"), { recursive: true, mode: 0o700 });
        await plant();
      },
    };
  }
});
