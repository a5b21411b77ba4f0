import * as z from "zod";

/** What a system's programs run on, as Nix names it: `x86_64-linux`. */
export const platformSchema = z
  .string()
  .regex(/^[a-z0-9_]{1,32}-linux$/, "expected a platform such as x86_64-linux");

/** By the machine's name in uname(2), those whose programs its kernel runs; its own first. */
const RUNS: Readonly<Record<string, readonly string[]>> = {
  x86_64: ["x86_64-linux", "i686-linux"],
  i686: ["i686-linux"],
  i586: ["i686-linux"],
  aarch64: ["aarch64-linux", "armv7l-linux", "armv6l-linux"],
  armv7l: ["armv7l-linux", "armv6l-linux"],
  armv6l: ["armv6l-linux"],
  riscv64: ["riscv64-linux"],
  ppc64le: ["powerpc64le-linux"],
  s390x: ["s390x-linux"],
  loongarch64: ["loongarch64-linux"],
};

const PLATFORMS: ReadonlySet<string> = new Set(Object.values(RUNS).flat());

/** The platform of a machine by its name in uname(2); null for one that is not known here. */
export function platformOf(machine: string): string | null {
  const runs = Object.hasOwn(RUNS, machine) ? RUNS[machine] : undefined;
  return runs?.[0] ?? null;
}

/**
 * Whether programs of a platform run on a machine. Of names that are not known here nobody can
 * tell, and null stands for a system whose platform is not known: then they may.
 */
export function runsOn(platform: string | null | undefined, machine: string): boolean {
  const runs = Object.hasOwn(RUNS, machine) ? RUNS[machine] : undefined;
  if (!platform || !runs || !PLATFORMS.has(platform)) return true;
  return runs.includes(platform);
}

/** Bytes of a program's header that tell its platform. */
export const ELF_HEADER_BYTES = 20;

/** Machines of ELF headers (elf.h) whose programs have one platform, by class and byte order. */
const ELF: Readonly<Record<string, string>> = {
  "64le62": "x86_64-linux",
  "32le3": "i686-linux",
  "64le183": "aarch64-linux",
  "32le40": "armv7l-linux",
  "64le243": "riscv64-linux",
  "64le21": "powerpc64le-linux",
  "64be22": "s390x-linux",
  "64le258": "loongarch64-linux",
};

/** The platform of a program by the first bytes of its file; null if it is no such program. */
export function platformOfProgram(start: Uint8Array): string | null {
  const bytes = Buffer.from(start);
  if (bytes.length < ELF_HEADER_BYTES || bytes.readUInt32BE(0) !== 0x7f454c46) return null;
  const [bits, isLittle] = [bytes[4] === 2 ? 64 : 32, bytes[5] === 1];
  const machine = isLittle ? bytes.readUInt16LE(18) : bytes.readUInt16BE(18);
  return ELF[`${bits}${isLittle ? "le" : "be"}${machine}`] ?? null;
}
