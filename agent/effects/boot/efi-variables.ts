import { constants } from "node:fs";
import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import { hasErrorCode, ifMissing } from "../files/missing-file.ts";

/** Where Linux shows the firmware's variables (efivarfs). */
export const EFI_VARIABLES = "/sys/firmware/efi/efivars";

/** Whose variables the boot loader interface has (systemd.io, BOOT_LOADER_INTERFACE). */
const LOADER_VENDOR = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/** The kernel puts the attributes of a variable before its value. */
const ATTRIBUTES_BYTES = 4;

/** A variable that the boot loader and the system share, or null if there is none. */
async function readLoaderVariable(directory: string, name: string): Promise<Buffer | null> {
  const bytes = await ifMissing(readFile(join(directory, `${name}-${LOADER_VENDOR}`)), null);
  return bytes?.subarray(ATTRIBUTES_BYTES) ?? null;
}

/** The same as text, which is UTF-16 with a zero at its end. */
export async function readLoaderText(directory: string, name: string): Promise<string | null> {
  const bytes = await readLoaderVariable(directory, name);
  return bytes?.toString("utf16le").replace(/\0.*$/su, "") ?? null;
}

/** What the boot loader can do, as bits; 0 if it does not say. */
export async function readLoaderFeatures(directory: string): Promise<bigint> {
  const bytes = await readLoaderVariable(directory, "LoaderFeatures");
  return bytes && bytes.length >= 8 ? bytes.readBigUInt64LE() : 0n;
}

/** Whether variables can be set: some firmware has them for reading alone. */
export async function canSetVariables(directory: string): Promise<boolean> {
  try {
    await access(directory, constants.W_OK);
    return true;
  } catch (error) {
    if (hasErrorCode(error, "EROFS", "EACCES", "EPERM", "ENOENT", "ENOTDIR")) return false;
    throw error;
  }
}
