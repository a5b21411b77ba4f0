import { readFile } from "node:fs/promises";
import { machine } from "node:os";
import { expect, test } from "vitest";
import {
  ELF_HEADER_BYTES,
  platformOf,
  platformOfProgram,
  platformSchema,
  runsOn,
} from "../../../../agent/core/formats/platform.ts";

/** The beginning of a program for a machine (elf.h). */
function program(bits: 32 | 64, order: "le" | "be", code: number): Buffer {
  const header = Buffer.alloc(64);
  header.writeUInt32BE(0x7f454c46);
  header[4] = bits === 64 ? 2 : 1;
  header[5] = order === "le" ? 1 : 2;
  if (order === "le") header.writeUInt16LE(code, 18);
  else header.writeUInt16BE(code, 18);
  return header;
}

test.each([
  [64, "le", 62, "x86_64-linux"],
  [32, "le", 3, "i686-linux"],
  [64, "le", 183, "aarch64-linux"],
  [32, "le", 40, "armv7l-linux"],
  [64, "le", 243, "riscv64-linux"],
  [64, "be", 22, "s390x-linux"],
  // A 32-bit program for x86_64, and one for a machine that nobody here knows.
  [32, "le", 62, null],
  [64, "le", 9, null],
] as const)("an ELF header of %i bits, %s, machine %i is of %s", (bits, order, code, platform) => {
  expect(platformOfProgram(program(bits, order, code))).toBe(platform);
});

test("what is no program has no platform", () => {
  expect(platformOfProgram(Buffer.from("#!/bin/sh\nexit 0 # and more\n"))).toBeNull();
  const short = program(64, "le", 62).subarray(0, ELF_HEADER_BYTES - 1);
  expect(platformOfProgram(short)).toBeNull();
  expect(platformOfProgram(Buffer.alloc(0))).toBeNull();
});

test("the program that runs this test runs on this machine", async () => {
  const start = (await readFile(process.execPath)).subarray(0, ELF_HEADER_BYTES);
  const platform = platformOfProgram(start);
  expect(platform).toBe(platformOf(machine()));
  expect(runsOn(platform, machine())).toBe(true);
});

test.each([
  ["x86_64", "x86_64-linux", true],
  ["x86_64", "i686-linux", true],
  ["i686", "x86_64-linux", false],
  ["x86_64", "aarch64-linux", false],
  ["aarch64", "armv7l-linux", true],
  ["armv7l", "aarch64-linux", false],
  ["constructor", "aarch64-linux", true],
  ["x86_64", "constructor", true],
  ["x86_64", undefined, true],
])("a machine %s with a system for %s", (name, platform, expected) => {
  expect(runsOn(platform, name)).toBe(expected);
});

test("names have one form, and unknown machines none", () => {
  expect(platformOf("constructor")).toBeNull();
  expect(platformSchema.safeParse("x86_64-linux").success).toBe(true);
  expect(platformSchema.safeParse("x86_64-darwin").success).toBe(false);
  expect(platformSchema.safeParse("../x-linux").success).toBe(false);
});
