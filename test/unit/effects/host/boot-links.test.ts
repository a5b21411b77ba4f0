import { mkdir, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { missingBootSpace, needsReboot } from "../../../../agent/effects/host/boot-links.ts";
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

describe("space for the boot loader", () => {
  /** No disk holds this; the files are sparse. */
  const HUGE = 2 ** 42;

  test("is missing where kernel and initrd do not fit", async () => {
    const directory = await temporaryDirectory();
    const booted = await toplevel(directory, "booted", LINKS);
    const links = { kernel: "kernel-2", initrd: "initrd-2" };
    const next = await toplevel(directory, "next", links, HUGE);
    const missing = await missingBootSpace(directory, booted, next);
    expect(missing?.needed).toBe(2 * HUGE);
    expect(missing?.free).toBeLessThan(2 * HUGE);
  });

  test("is not missing where they fit", async () => {
    const directory = await temporaryDirectory();
    const booted = await toplevel(directory, "booted", LINKS);
    const next = await toplevel(directory, "next", { kernel: "kernel-2", initrd: "initrd-2" });
    expect(await missingBootSpace(directory, booted, next)).toBeNull();
  });

  test("is not asked for where nothing new is to be booted", async () => {
    const directory = await temporaryDirectory();
    const booted = await toplevel(directory, "booted", LINKS, HUGE);
    const next = await toplevel(directory, "next", LINKS, HUGE);
    expect(await missingBootSpace(directory, booted, next)).toBeNull();
  });

  test("is not asked for without a boot directory", async () => {
    const directory = await temporaryDirectory();
    const booted = await toplevel(directory, "booted", LINKS);
    const links = { kernel: "kernel-2", initrd: "initrd-2" };
    const next = await toplevel(directory, "next", links, HUGE);
    expect(await missingBootSpace(join(directory, "boot"), booted, next)).toBeNull();
  });
});
