import { execFileSync } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { dumpNar } from "../../../agent/publisher/nar-dump.ts";
import { narOf } from "../../support/nar.ts";
import { temporaryDirectory } from "../../support/temporary.ts";

describe("dumpNar", () => {
  it("gives the bytes of a file, a link and a tree, names in the order of their bytes", async () => {
    const directory = await temporaryDirectory();
    writeFileSync(join(directory, "b"), "eight by");
    writeFileSync(join(directory, "B"), "");
    symlinkSync("../nowhere", join(directory, "a-link"));
    mkdirSync(join(directory, "a"));
    writeFileSync(join(directory, "a/é"), "nine byte");

    expect(dumpNar(join(directory, "b"))).toEqual(narOf("eight by"));
    expect(dumpNar(join(directory, "a-link"))).toEqual(narOf(["../nowhere"]));
    expect(dumpNar(directory)).toEqual(
      narOf({ B: "", a: { é: "nine byte" }, "a-link": ["../nowhere"], b: "eight by" }),
    );
  });

  it("refuses what no store path holds", async () => {
    const directory = await temporaryDirectory();
    execFileSync("mkfifo", [join(directory, "pipe")]);
    expect(() => dumpNar(directory)).toThrow("pipe: expected a file, directory or link");
  });
});
