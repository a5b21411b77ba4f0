import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { dumpNar } from "../../agent/effects/nix/nar-dump.ts";
import { temporaryDirectory } from "../support/temporary.ts";

describe("dumpNar", () => {
  it("gives what nix-store --dump gives, names that are no text and modes included", async () => {
    const directory = await temporaryDirectory();
    const make = (name: string | Buffer, contents: string, mode: number): void => {
      const path = Buffer.concat([Buffer.from(`${directory}/`), Buffer.from(name)]);
      writeFileSync(path, contents);
      chmodSync(path, mode);
    };
    make("owner", "#!/bin/sh\n", 0o744);
    make("others", "x", 0o655);
    make(Buffer.from([0x66, 0xff, 0xfe]), "no text", 0o444);
    make("￿", "beyond", 0o400);
    make("𝄞", "above", 0o555);
    symlinkSync(Buffer.from([0xc3, 0x28]), join(directory, "target"));
    mkdirSync(join(directory, "empty"));

    const dumped = execFileSync("nix-store", ["--dump", directory]);
    expect(dumpNar(directory, 10_000)?.equals(dumped)).toBe(true);
  });
});
