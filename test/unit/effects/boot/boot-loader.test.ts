import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { detectedLoader, unknownLoader } from "../../../../agent/effects/boot/boot-loader.ts";
import type { BootLoader } from "../../../../agent/core/ports.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { BOOTCTL_LIST } from "../../../support/bootctl-list.ts";
import { grubConfig, type MenuContents } from "../../../support/grub-config.ts";
import { pathWith } from "../../../support/program-path.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const TRIAL = { toplevel: "/nix/store/bbb-2", proven: "/nix/store/aaa-1" };
const VENDOR = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

const PATH = process.env["PATH"] ?? "";

/** Has these scripts found before other programs. */
async function putOnPath(scripts: Readonly<Record<string, string>>): Promise<void> {
  vi.stubEnv("PATH", `${await pathWith([], scripts)}:${PATH}`);
}

/** The value of a variable as efivarfs shows it. */
function variable(value: string | bigint): Buffer {
  const attributes = Buffer.from([6, 0, 0, 0]);
  if (typeof value === "string") {
    return Buffer.concat([attributes, Buffer.from(`${value}\0`, "utf16le")]);
  }
  const number = Buffer.alloc(8);
  number.writeBigUInt64LE(value);
  return Buffer.concat([attributes, number]);
}

describe("systemd-boot", () => {
  interface Machine {
    readonly features?: bigint;
    readonly entries?: readonly object[];
    /** What the firmware does when it is told; `keep` sets the variable. */
    readonly firmware?: "keep" | "forget" | "refuse";
    readonly listed?: string;
  }
  const ENTRIES = JSON.parse(BOOTCTL_LIST) as readonly { readonly isDefault: boolean }[];

  /** A machine that systemd-boot started, with a bootctl that behaves as the real one. */
  async function machine({
    features = 0xffn,
    entries = ENTRIES,
    firmware = "keep",
    listed = JSON.stringify(entries),
  }: Machine = {}): Promise<{ loader: BootLoader; variables: string; oneShot: string }> {
    const variables = await temporaryDirectory();
    const oneShot = join(variables, `LoaderEntryOneShot-${VENDOR}`);
    await writeFile(join(variables, `LoaderInfo-${VENDOR}`), variable("systemd-boot 257.8"));
    await writeFile(join(variables, `LoaderFeatures-${VENDOR}`), variable(features));
    const set = {
      keep: `{ printf '\\006\\0\\0\\0'; printf '%s\\0' "$2" | iconv -t UTF-16LE; } > ${oneShot}`,
      forget: ":",
      refuse: 'echo "Failed to set EFI variable: No space left on device" >&2; exit 1',
    }[firmware];
    const bootctl = `case $1 in
      list) cat <<'END'\n${listed}\nEND\n;;
      set-oneshot) if [ -z "$2" ]; then rm -f ${oneShot}; else ${set}; fi;;
      --print-boot-path) echo /efi/xboot;;
      *) echo "Unknown command verb '$1'." >&2; exit 1;;
    esac`;
    await putOnPath({ bootctl });
    const places = { variables, boot: "/nowhere", programs: "/nowhere" };
    return { loader: detectedLoader(places), variables, oneShot };
  }

  test("tries a system once, and knows whether that is still to come", async () => {
    const { loader, oneShot } = await machine();
    expect(await loader.look()).toEqual({ name: "systemd-boot", cannotTry: null });
    expect(await loader.isTrialPending()).toBe(false);
    expect(await loader.tryOnce(TRIAL)).toBeNull();
    expect(await loader.isTrialPending()).toBe(true);
    // The loader removes it before it starts the entry.
    await rm(oneShot);
    expect(await loader.isTrialPending()).toBe(false);
  });

  test("forgets a trial that is called off, and says where its kernels are", async () => {
    const { loader } = await machine();
    await loader.tryOnce(TRIAL);
    await loader.cancelTrial();
    expect(await loader.isTrialPending()).toBe(false);
    await loader.cancelTrial();
    expect(await loader.kernelPlace()).toEqual({ directory: "/efi/xboot", removesFirst: true });
  });

  test.each<[string, Machine, string]>([
    ["too old", { features: 0b0111n }, "this systemd-boot is too old to start an entry once"],
    [
      "without an entry for the proven system",
      { entries: ENTRIES.slice(0, 1) },
      `systemd-boot does not have ${TRIAL.proven} as its default entry`,
    ],
    [
      "with another default",
      { entries: ENTRIES.map((entry) => ({ ...entry, isDefault: !entry.isDefault })) },
      `systemd-boot does not have ${TRIAL.proven} as its default entry`,
    ],
    [
      "without an entry for the system",
      { entries: ENTRIES.slice(1) },
      `systemd-boot has no entry for ${TRIAL.toplevel}`,
    ],
    [
      "on a firmware that forgets",
      { firmware: "forget" },
      "the firmware did not keep LoaderEntryOneShot: expected nixos-generation-2.conf, found nothing",
    ],
  ])("%s tries nothing, and says why", async (_, parts, why) => {
    const { loader } = await machine(parts);
    expect(await loader.tryOnce(TRIAL)).toBe(why);
    expect(await loader.isTrialPending()).toBe(false);
  });

  test("tells what bootctl said if it fails, or prints something else", async () => {
    const refused = await machine({ firmware: "refuse" });
    const error = await rejectionOf(refused.loader.tryOnce(TRIAL));
    expect(error).toMatchObject({
      code: "BOOT_LOADER_FAILED",
      message: expect.stringContaining("No space left on device") as string,
    });
    const odd = await machine({ listed: "{}" });
    expect(await rejectionOf(odd.loader.tryOnce(TRIAL))).toMatchObject({
      code: "BOOT_LOADER_FAILED",
    });
  });
});

/** The stand-in of test/hosts, which behaves as the real one of GRUB 2.12. */
const GRUB_EDITENV = new URL("../../../hosts/grub-editenv.sh", import.meta.url);

describe("GRUB", () => {
  const MENU: MenuContents = { default: "aaa-1", generations: { 2: "bbb-2", 1: "aaa-1" } };

  interface Machine {
    readonly menu?: MenuContents;
    readonly type?: string;
    readonly device?: "dm" | "md";
    readonly environment?: string;
  }

  /** A machine with GRUB, and a grub-editenv that behaves as the real one. */
  async function machine({ menu = MENU, type = "ext4", device, environment }: Machine = {}) {
    const top = await temporaryDirectory();
    const boot = join(top, "boot");
    await mkdir(join(boot, "grub"), { recursive: true });
    await writeFile(join(boot, "grub/grub.cfg"), grubConfig(menu));
    const environmentFile = join(boot, "grub/grubenv");
    if (environment !== undefined) await writeFile(environmentFile, environment);
    const mountInfo = join(top, "mountinfo");
    await writeFile(
      mountInfo,
      `21 1 8:2 / / rw,relatime shared:1 - btrfs /dev/sda2 rw\n` +
        `22 21 0:40 / ${boot} rw - autofs systemd-1 rw\n` +
        `23 21 8:1 / ${boot} rw,relatime - ${type} /dev/sda1 rw\n`,
    );
    const blockDevices = join(top, "block");
    if (device) await mkdir(join(blockDevices, "8:1", device), { recursive: true });
    const editenv = await readFile(GRUB_EDITENV, "utf8");
    const calls = join(top, "calls");
    const noted = (script: string): string => `echo "$(basename $0) $*" >> ${calls}\n${script}`;
    await putOnPath({ "grub-editenv": noted(editenv), sync: noted(":") });
    const places = { boot, programs: "/nowhere", variables: "/nowhere", mountInfo, blockDevices };
    const called = async (): Promise<string[]> =>
      (await readFile(calls, "utf8")).replaceAll(top, "").trim().split("\n");
    return { loader: detectedLoader(places), environmentFile, called };
  }

  test("has the menu on the disk before the trial, and the trial before it is counted on", async () => {
    const { loader, called } = await machine({ environment: "saved_entry=NixOS\n" });
    expect(await loader.tryOnce(TRIAL)).toBeNull();
    const calls = await called();
    const set = calls.findIndex((it) => it.startsWith("grub-editenv /boot/grub/grubenv set"));
    expect(calls[set - 1]).toBe("sync -f /boot/grub");
    expect(calls[set + 1]).toBe("sync -f /boot/grub");
  });

  test("tries a system once, and knows whether that is still to come", async () => {
    const { loader, environmentFile } = await machine();
    expect(await loader.look()).toEqual({ name: "GRUB", cannotTry: null });
    expect(await loader.isTrialPending()).toBe(false);
    expect(await loader.tryOnce(TRIAL)).toBeNull();
    expect(await loader.isTrialPending()).toBe(true);
    // GRUB leaves it empty before it starts the entry.
    await writeFile(environmentFile, "next_entry=\n");
    expect(await loader.isTrialPending()).toBe(false);
  });

  test("forgets a trial that is called off, and nothing else of its environment", async () => {
    const { loader, environmentFile } = await machine({ environment: "saved_entry=NixOS\n" });
    await loader.tryOnce(TRIAL);
    await loader.cancelTrial();
    expect(await loader.isTrialPending()).toBe(false);
    const block = await readFile(environmentFile, "utf8");
    expect(block.replaceAll(/^#.*\n?/gm, "")).toBe("saved_entry=NixOS\n");
  });

  test.each<[string, Machine, string]>([
    ["on btrfs", { type: "btrfs" }, "GRUB cannot write to a file system of btrfs"],
    ["on LVM", { device: "dm" }, "GRUB cannot write to a mapped device (LVM, LUKS)"],
    ["on a RAID", { device: "md" }, "GRUB cannot write to a RAID"],
    [
      "with another default",
      { menu: { ...MENU, default: "bbb-2" } },
      `GRUB does not have ${TRIAL.proven} as its default entry`,
    ],
    [
      "without an entry for the system",
      { menu: { ...MENU, generations: { 1: "aaa-1" } } },
      `GRUB has no entry for ${TRIAL.toplevel}`,
    ],
    [
      "that starts what was started last, and that is another system",
      {
        menu: { ...MENU, defaultItem: '"${saved_entry}"' },
        environment: "saved_entry=1>0\n",
      },
      `GRUB does not have ${TRIAL.proven} as its default entry`,
    ],
  ])("%s tries nothing, and says why", async (_, parts, why) => {
    const { loader } = await machine(parts);
    expect(await loader.tryOnce(TRIAL)).toBe(why);
    expect(await loader.isTrialPending()).toBe(false);
  });
});

test("another boot loader tries nothing, and keeps its kernels where the settings say", async () => {
  const loader = detectedLoader({ boot: "/b", programs: "/nowhere", variables: "/nowhere" });
  const why = "this boot loader is not known to start a system once";
  expect(await loader.look()).toEqual({ name: null, cannotTry: why });
  expect(await loader.tryOnce(TRIAL)).toBe(why);
  await loader.cancelTrial();
  expect(await loader.isTrialPending()).toBe(false);
  expect(await loader.kernelPlace()).toEqual({ directory: "/b", removesFirst: false });
  expect(await unknownLoader().kernelPlace()).toMatchObject({ directory: "/boot" });
});
