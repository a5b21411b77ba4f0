// Real boot loaders for machines in QEMU: what a disk needs to be started by one, and what it
// will start next, read from outside while the machine stands still or is off.
import {
  cp,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "../power-cut/machine.mjs";
import { readVariables } from "./efi-variables.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Where the one partition begins, and how large the boot disk is. */
const OFFSET = 1024 * 1024;
const DISK_BYTES = 160 * 1024 * 1024;
const FILE_SYSTEM_UUID = "6d9c2f0e-5d0b-4c53-a3a1-b0075e1ec7ed";
const FIRMWARE = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const EMPTY_VARIABLES = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/** The loaders by their names: how each is put on a disk, and read. */
export const LOADERS = {
  "systemd-boot": systemdBoot({ tries: 0 }),
  // Entries with counters, which systemd-bless-boot.service takes away.
  "systemd-boot-counting": systemdBoot({ tries: 3 }),
  grub: grub(),
};

function systemdBoot({ tries }) {
  return {
    /** What systems have of their own for this loader. */
    system: { bootLoaderInstaller: here("install-systemd-boot.sh"), bootTries: tries },
    /** What it says if it is to start a file that is no kernel. */
    refusal:
      /Error (loading|preparing|executing|starting)|Failed to (load|start|execute)|Unsupported|Load Error/i,

    hardware: (directory) => [
      ...["-drive", `if=pflash,format=raw,readonly=on,file=${FIRMWARE}`],
      ...["-drive", `if=pflash,format=raw,file=${join(directory, "variables")}`],
      ...bootDisk(directory),
    ],

    /** Makes the boot disk of a directory out of what the installer left in `boot`. */
    async install(directory, image, boot) {
      await cp(EMPTY_VARIABLES, join(directory, "variables"));
      const part = join(directory, "part");
      await writeFile(part, "");
      await truncate(part, DISK_BYTES - 2 * OFFSET);
      await run("mkfs.vfat", "-F", "32", "-n", "ESP", part);
      for (const [place, name] of [
        ["systemd", "systemd-bootx64.efi"],
        ["BOOT", "BOOTX64.EFI"],
      ]) {
        await mkdir(join(boot, "EFI", place), { recursive: true });
        await cp(join(image, "systemd-boot.efi"), join(boot, "EFI", place, name));
      }
      const files = (await readdir(boot)).map((name) => join(boot, name));
      await run("mcopy", "-s", "-i", part, ...files, "::/");
      const layout = "label: gpt\nstart=2048, type=uefi\n";
      await makeDisk(directory, layout, part);
    },

    /** What is started next: the default, and the entry that is started once; both as toplevels. */
    async look(directory) {
      const copy = await mkdtemp(join(directory, "look-"));
      try {
        const partition = `${join(directory, "boot-disk")}@@${OFFSET}`;
        // A file may just be on its way to the disk: it has a name and no contents yet.
        const isWhole = await run("mcopy", "-s", "-n", "-i", partition, "::/loader", copy).then(
          () => true,
          () => false,
        );
        if (!isWhole) return { default: null, oneShot: null, files: ["the file system is torn"] };
        const config = await readFile(join(copy, "loader/loader.conf"), "utf8").catch(() => "");
        const entries = new Map();
        for (const file of await readdir(join(copy, "loader/entries"))) {
          const text = await readFile(join(copy, "loader/entries", file), "utf8");
          entries.set(file.replace(/\+\d+(-\d+)?(?=\.conf$)/, ""), {
            file,
            toplevel: toplevelIn(text),
          });
        }
        const variables = readVariables(await readFile(join(directory, "variables")));
        if (variables.has("LoaderEntryDefault")) throw new Error("a default was set by hand");
        const oneShot = variables.get("LoaderEntryOneShot")?.toString("utf16le").replace(/\0$/, "");
        const chosen = /^default (.*)$/m.exec(config)?.[1];
        return {
          default: entries.get(chosen)?.toplevel ?? null,
          oneShot: oneShot === undefined ? null : (entries.get(oneShot)?.toplevel ?? oneShot),
          files: [...entries.values()],
        };
      } finally {
        await rm(copy, { recursive: true });
      }
    },
  };
}

function grub() {
  return {
    system: { bootLoaderInstaller: here("install-grub.sh") },
    refusal: /invalid magic number|premature end of file|you need to load the kernel first/,
    hardware: bootDisk,

    async install(directory, image, boot) {
      const part = join(directory, "part");
      await writeFile(part, "");
      await truncate(part, DISK_BYTES - 2 * OFFSET);
      await run("mkfs.ext4", "-q", "-F", "-U", FILE_SYSTEM_UUID, "-d", boot, part);
      await makeDisk(directory, "label: dos\nstart=2048, type=83, bootable\n", part);
      // Its first sector keeps the table of partitions; the rest of it is read from behind that.
      const disk = await open(join(directory, "boot-disk"), "r+");
      try {
        await disk.write(await readFile(join(image, "boot.img")), 0, 440, 0);
        const core = await readFile(join(image, "core.img"));
        await disk.write(core, 0, core.length, 512);
      } finally {
        await disk.close();
      }
    },

    async look(directory) {
      const partition = `${join(directory, "boot-disk")}?offset=${OFFSET}`;
      const read = (path) => run("debugfs", "-R", `cat ${path}`, partition);
      const menu = await read("/grub/grub.cfg");
      const environment = await read("/grub/grubenv").catch(() => "");
      const path = /^next_entry=(.+)$/m.exec(environment)?.[1] ?? null;
      const title = path?.split(">").at(-1) ?? null;
      const tried = title === null ? null : menu.slice(menu.indexOf(`menuentry "${title}"`));
      const isKnown = title !== null && menu.includes(`menuentry "${title}"`);
      return {
        default: toplevelIn(menu),
        oneShot: path === null ? null : isKnown ? toplevelIn(tried) : path,
        files: [{ file: "grubenv", text: environment.replace(/#*$/, "") }],
      };
    },
  };
}

/** The file of GRUB's partition that says what the installer would ask blkid. */
export const UUID_FILE = { name: "uuid", contents: `${FILE_SYSTEM_UUID}\n` };

function bootDisk(directory) {
  return [
    ...["-drive", `file=${join(directory, "boot-disk")},if=none,id=boot,format=raw,cache=unsafe`],
    ...["-device", "virtio-blk-pci,drive=boot,bootindex=0"],
  ];
}

/** A disk with a table of partitions and the one that was made. */
async function makeDisk(directory, layout, part) {
  const disk = join(directory, "boot-disk");
  await writeFile(disk, "");
  await truncate(disk, DISK_BYTES);
  await run("sh", "-c", 'printf %s "$1" | sfdisk -q "$2"', "sh", layout, disk);
  const blocks = ["bs=1M", "seek=1", "conv=notrunc,sparse", "status=none"];
  await run("dd", `if=${part}`, `of=${disk}`, ...blocks);
  await rm(part);
}

/** The system of the first command line in a text. */
function toplevelIn(text) {
  return /\binit=(\S+)\/init\b/.exec(text)?.[1] ?? null;
}
