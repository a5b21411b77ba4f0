import { expect, test } from "vitest";
import { differenceAtAGlance } from "../../../../agent/cli/display/difference-glance.ts";
import { plain } from "../../../../agent/cli/display/screen.ts";
import { Times } from "../../../../agent/core/text/times.ts";
import type {
  SeenDifference,
  SeenHost,
} from "../../../../agent/operator/channel/seen-difference.ts";
import { sampleToplevel } from "../../../support/sample-fleet.ts";

const TIMES = new Times({ now: new Date("2026-12-01T12:00:00Z"), zone: "UTC" });
const [OLD, NEW] = [sampleToplevel("a"), sampleToplevel("b")];

function seen(hosts: readonly SeenHost[], release: SeenDifference["release"] = []): string[] {
  const from = { epoch: 0, sequence: 2, digest: "d".repeat(64) };
  return differenceAtAGlance({ from, release, hosts, unchanged: 3 }, TIMES).map(plain);
}

const system = (toplevel: string) => ({ toplevel }) as SeenHost["after"];
const moved: SeenHost = {
  ...{ hostname: "web1", kind: "changed", before: system(OLD), after: system(NEW) },
  changes: [
    { what: "system", before: OLD, after: NEW },
    { what: "closure", before: "1 bytes", after: "2 bytes" },
    { what: "archive", before: "x", after: "y" },
    { what: "mode", before: "switch", after: "boot" },
  ],
  packages: [
    {
      ...{ name: "nginx", kind: "changed", before: ["1.0"], after: ["1.2"] },
      ...{ beforeBytes: 1024, afterBytes: 2048 },
    },
  ],
};

test("what a release changes at a glance: each host once, with short names of its systems", () => {
  const lines = seen([moved, { ...moved, hostname: "web2" }]);
  expect(lines[0]).toBe("Compared with release 2:");
  expect(lines[1]).toMatch(/^ {2}~ web1 {2}[0-9a-z]{7}-a → [0-9a-z]{7}-b$/);
  expect(lines.slice(2, 5)).toEqual([
    "      ~ mode: switch → boot",
    "      ~ nginx 1.0 → 1.2, +1.0 KiB",
    "      closure +1.0 KiB",
  ]);
  expect(lines.slice(5)).toEqual([
    expect.stringMatching(/^ {2}~ web2 /),
    "      ~ mode: switch → boot",
    "      packages: as on web1",
    "  3 hosts stay the same.",
  ]);
});

test("a host of which only the archive is described otherwise stays the same", () => {
  const { changes, ...host } = { ...moved, after: system(OLD) };
  const archive = changes.filter(({ what }) => what === "archive");
  expect(seen([{ ...host, changes: archive, packages: null }])).toEqual([
    "Compared with release 2:",
    "  No host changes.",
  ]);
});

test("what concerns the release is shown with local times, without what every release changes", () => {
  const release = [
    { what: "sequence", before: "2", after: "3" },
    { what: "paused", before: null, after: "since 2026-12-01T11:00:00.000Z: a disk" },
  ];
  expect(seen([], release)).toEqual([
    "Compared with release 2:",
    "  + paused: since 11:00: a disk",
    "  No host changes.",
  ]);
});
