import { mkdir, symlink, truncate, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  bootDirectoryOf,
  missingBootSpace,
  needsReboot,
} from "../../../../agent/effects/host/boot-links.ts";
import type { KernelPlace } from "../../../../agent/core/ports.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const LINKS = { kernel: "kernel-1", initrd: "initrd-1", "kernel-modules": "modules-1" };

/** Makes a toplevel with these links to files of the size. */
async function toplevel(
  directory: string,
  name: string,
  links: Record<string, string>,
  size = 1_000,
): Promise<string> {
  const path = join(directory, name);
  await mkdir(path);
  for (const [link, target] of Object.entries(links)) {
    const file = join(directory, target);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, "");
    await truncate(file, size);
    await symlink(file, join(path, link));
  }
  return path;
}

describe("a reboot is needed", () => {
  test.each(["kernel", "initrd", "kernel-modules"])("for another %s", async (link) => {
    const directory = await temporaryDirectory();
    const booted = await toplevel(directory, "booted", LINKS);
    const next = await toplevel(directory, "next", { ...LINKS, [link]: "another" });
    expect(await needsReboot(booted, next)).toBe(true);
    expect(await needsReboot(next, booted)).toBe(true);
  });

  test("not for the same links in another system", async () => {
    const directory = await temporaryDirectory();
    const booted = await toplevel(directory, "booted", LINKS);
    expect(await needsReboot(booted, await toplevel(directory, "next", LINKS))).toBe(false);
  });

  test("also where the booted system is itself a link, as /run/booted-system is", async () => {
    const directory = await temporaryDirectory();
    const booted = join(directory, "booted-system");
    await symlink(await toplevel(directory, "booted", LINKS), booted);
    const same = await toplevel(directory, "same", LINKS);
    const other = await toplevel(directory, "other", { ...LINKS, kernel: "kernel-2" });
    expect(await needsReboot(booted, same)).toBe(false);
    expect(await needsReboot(booted, other)).toBe(true);
  });

  test("not where either side has nothing to boot", async () => {
    const directory = await temporaryDirectory();
    const booted = await toplevel(directory, "booted", LINKS);
    const container = await toplevel(directory, "container", {});
    expect(await needsReboot(booted, container)).toBe(false);
    expect(await needsReboot(container, booted)).toBe(false);
    expect(await needsReboot(join(directory, "nowhere"), booted)).toBe(false);
  });

  test("not for a file where a link should be", async () => {
    const directory = await temporaryDirectory();
    const booted = await toplevel(directory, "booted", LINKS);
    const odd = await toplevel(directory, "odd", {});
    await writeFile(join(odd, "kernel"), "");
    expect(await needsReboot(booted, odd)).toBe(false);
  });
});

describe("room for the boot loader", () => {
  /** No disk holds this; the files are sparse. */
  const HUGE = 2 ** 42;
  const NONE = { staying: [], leaving: [] };

  /** A boot directory, and a toplevel whose kernel and initrd have this size. */
  async function host({ size = HUGE, removesFirst = true } = {}) {
    const directory = await temporaryDirectory();
    const boot = join(directory, "boot");
    await mkdir(join(boot, "EFI/nixos"), { recursive: true });
    await mkdir(join(boot, "kernels"));
    const place = { directory: boot, removesFirst };
    /** Makes a system with its own kernel and initrd, or with those of another. */
    const system = async (name: string, files = name): Promise<string> =>
      toplevel(
        directory,
        name,
        { kernel: `linux-${files}/bzImage`, initrd: `initrd-${files}/initrd` },
        size,
      );
    /** Puts a copy of this size where an installer of NixOS puts it. */
    const copied = async (name: string, bytes: number): Promise<void> => {
      await writeFile(join(boot, name), "");
      await truncate(join(boot, name), bytes);
    };
    return { place, system, copied };
  }

  test("is missing if kernel and initrd do not fit", async () => {
    const { place, system } = await host();
    const missing = await missingBootSpace(place, await system("2"), NONE);
    expect(missing?.needed).toBe(2 * HUGE);
    expect(missing?.free).toBeLessThan(2 * HUGE);
  });

  test("is not missing if they fit, or if there is no boot directory", async () => {
    const small = await host({ size: 1_000 });
    expect(await missingBootSpace(small.place, await small.system("2"), NONE)).toBeNull();
    const { place, system } = await host();
    const nowhere = { ...place, directory: join(place.directory, "nowhere") };
    expect(await missingBootSpace(nowhere, await system("2"), NONE)).toBeNull();
  });

  test.each(["EFI/nixos/linux-2-bzImage.efi", "kernels/linux-2-bzImage"])(
    "is not needed for what is there: %s",
    async (copy) => {
      const { place, system, copied } = await host();
      await copied(copy, 1);
      const missing = await missingBootSpace(place, await system("2"), NONE);
      expect(missing?.needed).toBe(HUGE);
    },
  );

  test("includes what generations leave that are about to be deleted", async () => {
    const { place, system, copied } = await host();
    await copied("EFI/nixos/linux-1-bzImage.efi", HUGE);
    const next = await system("2");
    const leaving = [await system("1")];
    const missing = await missingBootSpace(place, next, { staying: [], leaving });
    expect(missing?.needed).toBe(2 * HUGE);
    expect(missing?.free).toBeGreaterThanOrEqual(HUGE);
    await copied("EFI/nixos/initrd-1-initrd.efi", HUGE);
    expect(await missingBootSpace(place, next, { staying: [], leaving })).toBeNull();
  });

  test("does not include what another generation needs too", async () => {
    const { place, system, copied } = await host();
    await copied("EFI/nixos/linux-1-bzImage.efi", HUGE);
    await copied("EFI/nixos/initrd-1-initrd.efi", HUGE);
    const next = await system("2");
    const generations = { leaving: [await system("1")], staying: [await system("1b", "1")] };
    const missing = await missingBootSpace(place, next, generations);
    expect(missing?.free).toBeLessThan(HUGE);
  });

  test("does not include what the installer removes only after it copied, as GRUB's does", async () => {
    const { place, system, copied } = await host({ removesFirst: false });
    await copied("kernels/linux-1-bzImage", HUGE);
    await copied("kernels/initrd-1-initrd", HUGE);
    const next = await system("2");
    const leaving = [await system("1")];
    const missing = await missingBootSpace(place, next, { staying: [], leaving });
    expect(missing?.free).toBeLessThan(HUGE);
  });
});

describe("a host asks for room", () => {
  test("only for a system that is to be booted", async () => {
    const directory = await temporaryDirectory();
    const booted = await toplevel(directory, "booted", LINKS, 2 ** 42);
    const same = await toplevel(directory, "same", LINKS, 2 ** 42);
    const other = await toplevel(directory, "other", { ...LINKS, kernel: "kernel-2" }, 2 ** 42);
    const boot = bootDirectoryOf(
      { paths: { boot: directory, bootedSystem: booted } },
      { realPath: (path) => path },
      { kernelPlace: async () => null },
    );
    expect(await boot.missingSpace(same, { staying: [], leaving: [] })).toBeNull();
    expect(await boot.missingSpace(other, { staying: [], leaving: [] })).toMatchObject({
      directory,
    });
  });

  test("where the boot loader keeps kernels, if the settings name no directory", async () => {
    const directory = await temporaryDirectory();
    const booted = await toplevel(directory, "booted", LINKS);
    const other = await toplevel(directory, "other", { ...LINKS, kernel: "kernel-2" }, 2 ** 42);
    const missingBeside = async (place: KernelPlace | null) =>
      bootDirectoryOf(
        { paths: { bootedSystem: booted } },
        { realPath: (path) => path },
        { kernelPlace: async () => place },
      ).missingSpace(other, { staying: [], leaving: [] });
    expect(await missingBeside({ directory, removesFirst: true })).toMatchObject({ directory });
    expect(await missingBeside(null)).toBeNull();
  });
});
