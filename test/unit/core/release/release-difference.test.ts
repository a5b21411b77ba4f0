import { describe, expect, test } from "vitest";
import {
  manifestSchema,
  type HostEntry,
  type Manifest,
} from "../../../../agent/core/formats/manifest.ts";
import {
  differenceOf,
  type Change,
  type ReleaseDifference,
} from "../../../../agent/core/release/release-difference.ts";
import {
  sampleDigest,
  sampleHost,
  sampleManifest,
  samplePath,
} from "../../../support/sample-release.ts";

const SHA = sampleDigest("x");
const command = (program: string) => ({
  ...{ kind: "command" as const, name: "smoke", timeout: "10s", command: [program, "-x"] },
});

/** What changes if the manifest, or its host web1, is changed so. */
function changed(manifest: Partial<Manifest>, host: Partial<HostEntry> = {}): ReleaseDifference {
  const hosts = { web1: sampleHost(host), db1: sampleHost() };
  const before = sampleManifest({ hosts: { web1: sampleHost(), db1: sampleHost() } });
  return differenceOf(before, sampleManifest({ hosts, ...manifest }));
}

const ofHost = (host: Partial<HostEntry>): readonly Change[] =>
  changed({}, host).hosts.flatMap(({ changes }) => changes);
const change = (what: string, before: string | null, after: string | null): Change => ({
  ...{ what, before, after },
});

test("the same release has no difference", () => {
  expect(changed({})).toEqual({ release: [], hosts: [], unchanged: 2 });
});

describe("hosts", () => {
  test("come, go, and change, by name", () => {
    const toplevel = samplePath("nixos-system-web1-2");
    const hosts = { web1: sampleHost({ toplevel }), new1: sampleHost() };
    const { hosts: found, unchanged } = changed({ hosts });
    expect(found.map(({ hostname, kind }) => [hostname, kind])).toEqual([
      ["db1", "removed"],
      ["new1", "added"],
      ["web1", "changed"],
    ]);
    expect(found[2]?.changes).toEqual([change("system", sampleHost().toplevel, toplevel)]);
    expect(unchanged).toBe(0);
  });

  test("show systems that they become first, with everything that these do", () => {
    const { toplevel, closureSize, archive } = sampleHost();
    const [stage] = ofHost({
      through: [
        {
          ...{ sequence: 3, digest: SHA, toplevel: samplePath("evil"), closureSize, archive },
          activation: { mode: "boot", checks: [command("/bin/evil")] },
        },
      ],
    });
    expect(stage).toMatchObject({ what: "first becomes", before: null });
    expect(stage?.after).toContain(`system ${samplePath("evil")}`);
    expect(stage?.after).toContain("mode boot");
    expect(stage?.after).toContain("/bin/evil");
    expect(stage?.after).not.toContain(toplevel);
  });

  test("show commands that are run as root", () => {
    expect(ofHost({ activation: { checks: [command("/bin/evil")] } })).toEqual([
      change(
        "command run as root",
        null,
        '"smoke": command {"timeout":"10s","command":["/bin/evil","-x"]}',
      ),
    ]);
    expect(ofHost({ activation: { checks: [] } })).toEqual([change("checks", null, "none")]);
  });

  test("show turns, groups, machines and modes", () => {
    expect(ofHost({ turn: "now" })).toEqual([change("turn", null, "now")]);
    expect(ofHost({ turn: { held: "disks" } })).toEqual([change("turn", null, "held: disks")]);
    expect(ofHost({ groups: ["a", "b"] })).toEqual([change("groups", null, "@a @b")]);
    expect(ofHost({ machineId: SHA })).toEqual([change("machine", null, SHA)]);
    expect(ofHost({ activation: { mode: "boot" } })).toEqual([change("mode", "switch", "boot")]);
    expect(ofHost({ activation: { specialisation: "debug" } })).toEqual([
      change("specialisation", null, "debug"),
    ]);
  });

  test("show a mode that is only the default's", () => {
    const { release, hosts } = changed({ defaults: { activation: { mode: "boot" } } });
    expect(release).toEqual([change("default mode", "switch", "boot")]);
    expect(hosts.map(({ changes }) => changes)).toEqual([
      [change("mode", "switch", "boot")],
      [change("mode", "switch", "boot")],
    ]);
  });
});

describe("the release", () => {
  test("shows its rollout, wave by wave", () => {
    const start = "2026-01-31T12:00:00.000Z";
    const wave = { share: 0.1, after: "1h" };
    const before = sampleManifest({ rollout: { start, salt: "s", waves: [wave] } });
    const paused = { reason: "disks", since: start };
    const waves = [wave, { hosts: ["web1"], groups: ["a"], after: "2h", over: "1d" }];
    const after = sampleManifest({ rollout: { start, salt: "t", waves, paused } });
    expect(differenceOf(before, after).release).toEqual([
      change("order of hosts", '"s"', '"t"'),
      change("wave", null, "web1; @a; after 2h; over 1d"),
      change("paused", null, `since ${start}: disks`),
    ]);
  });

  test("shows waves that only change their places", () => {
    const [one, other] = [
      { hosts: ["a"], after: "1h" },
      { hosts: ["b"], after: "1h" },
    ];
    const of = (waves: (typeof one)[]): Manifest =>
      sampleManifest({ rollout: { start: "2026-01-31T12:00:00.000Z", salt: "s", waves } });
    expect(differenceOf(of([one, other]), of([other, one])).release).toHaveLength(4);
  });

  test("shows default commands, expiry, epoch, barrier and what it comes after", () => {
    const { release } = changed({
      defaults: { activation: { mode: "switch", checks: [command("/bin/all")] } },
      expiresAt: "2026-03-01T00:00:00.000Z",
      epoch: { number: 1, reason: "numbers" },
      barrier: { sequence: 3 },
      history: { since: { sequence: 1 }, releases: [{ sequence: 6, digest: SHA }] },
    });
    expect(release.map(({ what }) => what).sort()).toEqual([
      ...["comes after", "default command run as root", "epoch", "expires"],
      "hosts must reach first",
    ]);
    expect(release.find(({ what }) => what.startsWith("default"))?.after).toContain("/bin/all");
  });

  test("without one before is shown whole", () => {
    const { release, hosts, unchanged } = differenceOf(null, sampleManifest());
    expect(release.every(({ before }) => before === null)).toBe(true);
    expect(release.map(({ what }) => what)).toContain("expires");
    expect(hosts.map(({ kind }) => kind)).toEqual(["added"]);
    expect(unchanged).toBe(0);
  });
});

describe("no key can hide", () => {
  const start = "2026-01-31T12:00:00.000Z";
  const patch = { base: SHA, archive: SHA, offset: 0, size: 1, sha256: SHA };
  const index = { sha256: SHA, size: 1, json: SHA, patches: [patch] };
  const host: HostEntry = sampleHost({
    archive: { sha256: SHA, size: 1, index },
    activation: { mode: "boot", checks: [command("a")] },
    ...{ groups: ["a"], turn: { held: "why" }, machineId: SHA, platform: "x86_64-linux" },
    through: [
      {
        ...sampleHost({ archive: { sha256: SHA, size: 1, index } }),
        ...{ epoch: 1, sequence: 3, digest: SHA },
        activation: { mode: "switch", checks: [command("b")] },
      },
    ],
  });
  const full = sampleManifest({
    epoch: { number: 2, reason: "why" },
    history: { since: { sequence: 1 }, releases: [{ epoch: 1, sequence: 3, digest: SHA }] },
    barrier: { epoch: 1, sequence: 3 },
    requires: ["tree"],
    supported: [{ epoch: 1, sequence: 3, digest: SHA, requires: ["tree"], until: start }],
    defaults: { activation: { mode: "switch", checks: [command("c")] } },
    rollout: {
      ...{ start, salt: "s", paused: { reason: "why", since: start } },
      waves: [{ hosts: ["web1"], groups: ["a"], share: 0.5, after: "1h", over: "1h" }],
    },
    hosts: { web1: host },
  });

  /** Every place in a value that has no places in it. */
  function leaves(value: unknown, path: readonly (string | number)[] = []): (string | number)[][] {
    if (typeof value !== "object" || value === null) return [[...path]];
    return Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...path, key]));
  }

  function otherAt(path: readonly (string | number)[]): Manifest {
    const copy = structuredClone(full) as unknown;
    let place = copy as Record<string, unknown>;
    for (const key of path.slice(0, -1)) place = place[key] as Record<string, unknown>;
    const last = path.at(-1) ?? "";
    const value = place[last];
    place[last] = typeof value === "number" ? value + 1 : `${String(value)}0`;
    return copy as Manifest;
  }

  const places = leaves(full).filter((path) => path[0] !== "formatVersion");

  test("all keys are in the manifest that is looked at", () => {
    expect(manifestSchema.parse(full)).toEqual(full);
    expect(Object.keys(full).sort()).toEqual(Object.keys(manifestSchema.shape).sort());
    expect(places.length).toBeGreaterThan(60);
  });

  test.each(places.map((path) => [path.join("."), path] as const))("%s", (_, path) => {
    const { release, hosts } = differenceOf(full, otherAt(path));
    expect(release.length + hosts.length).toBeGreaterThan(0);
  });
});
