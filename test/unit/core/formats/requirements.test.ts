import { expect, test } from "vitest";
import {
  featuresOf,
  requiredByManifest,
  type Needs,
} from "../../../../agent/core/formats/requirements.ts";
import { sampleHost, sampleManifest } from "../../../support/sample-release.ts";

interface Entry {
  readonly system: string;
  readonly window?: string;
  readonly hint?: string;
  readonly mode?: "boot" | "kexec";
}

/** As a later version would decide. */
const NEEDS: Needs<Entry, "windows" | "kexec"> = {
  system: "base",
  window: "windows",
  hint: "ignorable",
  mode: (mode) => (mode === "kexec" ? ["kexec"] : []),
};

test("a release requires what it uses and no more", () => {
  const of = (entry: Entry): string[] => [...featuresOf(NEEDS, entry)];
  expect(of({ system: "s" })).toEqual([]);
  expect(of({ system: "s", hint: "h", mode: "boot" })).toEqual([]);
  expect(of({ system: "s", window: "02:00" })).toEqual(["windows"]);
  expect(of({ system: "s", window: "02:00", mode: "kexec" })).toEqual(["windows", "kexec"]);
});

test("what 0.1.0 reads is the base", () => {
  const check = { kind: "command" as const, name: "c", timeout: "1s", command: ["true"] };
  const through = [
    { ...sampleHost(), sequence: 3, digest: "a".repeat(64), activation: { mode: "test" as const } },
  ];
  const manifest = sampleManifest({
    barrier: { sequence: 3 },
    defaults: { activation: { mode: "boot", specialisation: "s", checks: [check] } },
    hosts: { web1: sampleHost({ platform: "x86_64-linux", turn: { held: "h" }, through }) },
  });
  expect(requiredByManifest(manifest)).toEqual([]);
});
