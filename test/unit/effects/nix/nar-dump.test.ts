import { execFileSync } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { dumpNar } from "../../../../agent/effects/nix/nar-dump.ts";
import { narOf } from "../../../support/nar.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

describe("dumpNar", () => {
  it("gives the bytes of a file, a link and a tree, names in the order of their bytes", async () => {
    const directory = await temporaryDirectory();
    writeFileSync(join(directory, "b"), "eight by");
    writeFileSync(join(directory, "B"), "");
    symlinkSync("../nowhere", join(directory, "a-link"));
    mkdirSync(join(directory, "a"));
    writeFileSync(join(directory, "a/é"), "nine byte");

    expect(dumpNar(join(directory, "b"), 10_000)).toEqual(narOf("eight by"));
    expect(dumpNar(join(directory, "a-link"), 10_000)).toEqual(narOf(["../nowhere"]));
    expect(dumpNar(directory, 10_000)).toEqual(
      narOf({ B: "", a: { é: "nine byte" }, "a-link": ["../nowhere"], b: "eight by" }),
    );
  });

  it("refuses what no store path holds", async () => {
    const directory = await temporaryDirectory();
    execFileSync("mkfifo", [join(directory, "pipe")]);
    expect(() => dumpNar(directory, 10_000)).toThrow(
      "pipe: expected a file, a directory or a link",
    );
  });

  it("is null for more than the limit, whose last byte still counts", async () => {
    const directory = await temporaryDirectory();
    writeFileSync(join(directory, "a"), "a".repeat(100));
    writeFileSync(join(directory, "b"), "b".repeat(100));
    const size = dumpNar(directory, 10_000)?.length ?? 0;
    expect(size).toBeGreaterThan(200);
    expect(dumpNar(directory, size)).toHaveLength(size);
    expect(dumpNar(directory, size - 1)).toBeNull();
    expect(dumpNar(directory, 150)).toBeNull();
    expect(dumpNar(directory, 10)).toBeNull();
  });
});
