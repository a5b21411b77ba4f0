import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { sealEnvelope } from "../../../../agent/core/formats/envelope.ts";
import {
  MAX_HOSTS,
  activationOf,
  comparePositions,
  describePosition,
  encodeManifest,
  MAX_HISTORY,
  manifestSchema,
  parseManifest,
  positionOf,
  readManifest,
  releaseFor,
  releaseSchema,
  systemsIn,
  systemsOf,
  type Manifest,
  type SignedManifest,
} from "../../../../agent/core/formats/manifest.ts";
import { failureOf } from "../../../support/failure.ts";
import {
  sampleDigest,
  sampleHost,
  sampleManifest,
  samplePath,
} from "../../../support/sample-release.ts";
import { takesAt } from "../../../support/schema-bounds.ts";
import { testKey } from "../../../support/test-key.ts";

const KEY = testKey("fleet-1");
const TRUST = { publicKeys: [KEY.publicKey], threshold: 1 };

function signed(payload: string | Uint8Array): Buffer {
  return Buffer.from(sealEnvelope(Buffer.from(payload), [KEY]));
}

function read(payload: string | Uint8Array): SignedManifest {
  return readManifest(signed(payload), TRUST);
}

/** A sample manifest as JSON with the value at `path` replaced; undefined takes it away. */
function altered(path: readonly string[], value: unknown): string {
  const manifest = JSON.parse(JSON.stringify(sampleManifest())) as Record<string, unknown>;
  let object = manifest;
  for (const key of path.slice(0, -1)) {
    object[key] ??= {};
    object = object[key] as Record<string, unknown>;
  }
  object[path.at(-1) ?? ""] = value;
  return JSON.stringify(manifest);
}

test("a signed manifest is read as it was encoded", () => {
  const manifest = sampleManifest();
  expect(read(encodeManifest(manifest))).toEqual({
    manifest,
    digest: sampleDigest(encodeManifest(manifest).toString()),
    signedBy: ["fleet-1"],
  });
});

describe("encoding", () => {
  test("gives the same bytes in whatever order the hosts come", () => {
    const hostnames = fc.uniqueArray(fc.stringMatching(/^[a-z][a-z0-9]{0,8}$/), { maxLength: 9 });
    fc.assert(
      fc.property(hostnames, (names) => {
        const inOrder = (order: readonly string[]): Buffer =>
          encodeManifest(
            sampleManifest({
              hosts: Object.fromEntries(order.map((name) => [name, sampleHost()])),
            }),
          );
        expect(inOrder(names).equals(inOrder(names.toReversed()))).toBe(true);
      }),
    );
  });
});

describe("a field that the format does not know is refused", () => {
  test.each([
    ["at the top", ["schedule"], 'top level: unknown key "schedule"'],
    ["in the defaults", ["defaults", "archive"], 'defaults: unknown key "archive"'],
    [
      "in the default activation",
      ["defaults", "activation", "reboot"],
      'defaults.activation: unknown key "reboot"',
    ],
    ["in a host", ["hosts", "web1", "address"], 'hosts.web1: unknown key "address"'],
    [
      "in a host's activation",
      ["hosts", "web1", "activation", "when"],
      'hosts.web1.activation: unknown key "when"',
    ],
    ["in an archive", ["hosts", "web1", "archive", "url"], 'hosts.web1.archive: unknown key "url"'],
    [
      "in an index",
      ["hosts", "web1", "archive", "index", "offset"],
      'hosts.web1.archive.index: unknown key "offset"',
    ],
  ])("%s", (_, path, words) => {
    const failure = failureOf(() => read(altered(path, 1)));
    expect(failure.code).toBe("MANIFEST_INVALID");
    expect(failure.message).toBe(words);
  });

  test("by the name of __proto__ at the top", () => {
    const payload = JSON.stringify(sampleManifest()).replace("{", '{"__proto__":{"sequence":9},');
    const failure = failureOf(() => read(payload));
    expect(failure.code).toBe("MANIFEST_INVALID");
    expect(failure.message).toContain('unknown key "__proto__"');
  });
});

describe("sizes", () => {
  const places = [
    ["hosts", "web1", "closureSize"],
    ["hosts", "web1", "archive", "size"],
    ["hosts", "web1", "archive", "index", "size"],
  ];

  test.each(places)("at %s.%s.%s… are refused unless they are whole byte counts", (...path) => {
    for (const value of [-1, 0.5, 2 ** 53, 1e300, "1", null, [1], true, undefined]) {
      const failure = failureOf(() => read(altered(path, value)));
      expect(failure.code).toBe("MANIFEST_INVALID");
      expect(failure.message).toContain(path.join("."));
    }
  });

  test("as long as JSON can write them, are refused", () => {
    const huge = JSON.stringify(sampleManifest()).replace(
      '"size":20480',
      `"size":${"9".repeat(400)}`,
    );
    expect(failureOf(() => read(huge)).code).toBe("MANIFEST_INVALID");
  });

  test("of an index may be 256 MiB and no more", () => {
    const path = ["hosts", "web1", "archive", "index", "size"];
    expect(read(altered(path, 256 * 1024 * 1024)).manifest.sequence).toBe(7);
    const failure = failureOf(() => read(altered(path, 256 * 1024 * 1024 + 1)));
    expect(failure.code).toBe("MANIFEST_INVALID");
    expect(failure.message).toContain("<=268435456, found 268435457");
  });
});

describe("values of the wrong form are refused and named", () => {
  test.each<[string, string[], unknown, string]>([
    ["sequence zero", ["sequence"], 0, "sequence: "],
    ["a negative sequence", ["sequence"], -1, "sequence: "],
    ["half a sequence", ["sequence"], 1.5, "sequence: expected int, found 1.5"],
    ["a sequence beyond exact numbers", ["sequence"], 2 ** 53, "sequence: "],
    ["a sequence as text", ["sequence"], "7", 'sequence: expected number, found "7"'],
    ["no channel", ["channel"], undefined, "channel: missing"],
    ["a channel in capitals", ["channel"], "Stable", "channel: expected a channel name"],
    ["a channel with a slash", ["channel"], "a/b", "channel: expected a channel name"],
    ["a channel that leads upwards", ["channel"], "..", "channel: expected a channel name"],
    ["a channel that ends a line", ["channel"], "stable\n", "channel: expected a channel name"],
    ["a time that is no time", ["createdAt"], "yesterday", "createdAt: expected a UTC time"],
    ["a time in a zone", ["createdAt"], "2026-01-31T12:00:00+01:00", "expected a UTC time"],
    [
      "a day that does not exist",
      ["expiresAt"],
      "2026-02-30T12:00:00Z",
      "expiresAt: expected a UTC",
    ],
    ["a time as a number", ["expiresAt"], 1_770_000_000, "expiresAt: expected a UTC time"],
    ["hosts as a list", ["hosts"], [], "hosts: "],
    ["no defaults", ["defaults"], undefined, "defaults: missing"],
    ["an unknown mode", ["defaults", "activation", "mode"], "reboot", "defaults.activation.mode"],
    [
      "an unknown mode of a host",
      ["hosts", "web1", "activation"],
      { mode: "kexec" },
      "hosts.web1.activation.mode",
    ],
    ["a toplevel elsewhere", ["hosts", "web1", "toplevel"], "/etc", "expected a store path"],
    [
      "a file below a store path",
      ["hosts", "web1", "toplevel"],
      `${samplePath("system")}/bin/sh`,
      "hosts.web1.toplevel: expected a store path",
    ],
    [
      "a store path that leads elsewhere",
      ["hosts", "web1", "toplevel"],
      `/nix/store/../${samplePath("system")}`,
      "hosts.web1.toplevel: expected a store path",
    ],
    [
      "a hash in capitals",
      ["hosts", "web1", "archive", "sha256"],
      "AB".repeat(32),
      "hosts.web1.archive.sha256: expected a sha256",
    ],
    [
      "a hash that leads elsewhere",
      ["hosts", "web1", "archive", "sha256"],
      `../${"a".repeat(61)}`,
      "hosts.web1.archive.sha256: expected a sha256",
    ],
    [
      "a host without an archive",
      ["hosts", "web1", "archive"],
      undefined,
      "hosts.web1.archive: missing",
    ],
    ["a host that is null", ["hosts", "web1"], null, "hosts.web1: expected object, found null"],
  ])("%s", (_, path, value, words) => {
    const failure = failureOf(() => read(altered(path, value)));
    expect(failure.code).toBe("MANIFEST_INVALID");
    expect(failure.message).toContain(words);
  });

  test.each(["", "-a", "a-", ".", "..", "a/b", "a b", "a\n", "ä", "x".repeat(254)])(
    "the hostname %j",
    (hostname) => {
      const failure = failureOf(() => read(altered(["hosts", hostname], sampleHost())));
      expect(failure.code).toBe("MANIFEST_INVALID");
      expect(failure.message).toContain("hosts.");
    },
  );

  test("a time is a time to Date wherever the format takes it for one", () => {
    const digits = fc.stringMatching(
      /^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9](:[0-5][0-9](\.[0-9]{1,12})?)?Z$/,
    );
    fc.assert(
      fc.property(digits, (text) => {
        fc.pre(manifestSchema.shape.createdAt.safeParse(text).success);
        expect(Date.parse(text)).not.toBeNaN();
      }),
    );
  });
});

describe("the format version", () => {
  test.each([2, 3, 1.5, 1e9])("%d is newer: this host needs another agent", (version) => {
    const failure = failureOf(() => read(altered(["formatVersion"], version)));
    expect(failure.code).toBe("FORMAT_UNSUPPORTED");
    expect(failure.message).toContain(`expected manifest format 1, found ${version}`);
  });

  test("is looked at before anything else, since a newer format may look like nothing we know", () => {
    const failure = failureOf(() => read('{"formatVersion":2,"everything":"else"}'));
    expect(failure.code).toBe("FORMAT_UNSUPPORTED");
  });

  test.each([0, -1, "2", null, undefined, [2]])("%j is no version at all", (version) => {
    const failure = failureOf(() => read(altered(["formatVersion"], version)));
    expect(failure.code).toBe("MANIFEST_INVALID");
    expect(failure.message).toContain("formatVersion");
  });
});

describe("a signed payload that is no manifest", () => {
  test.each(["", "hello", "{", "\u0000"])("%j is not JSON", (payload) => {
    const failure = failureOf(() => read(payload));
    expect(failure.code).toBe("MANIFEST_INVALID");
    expect(failure.message).toBe("the signed payload is not JSON");
  });

  test.each(["null", "1", '"text"', "[]", "{}"])("%s is refused", (payload) => {
    expect(failureOf(() => read(payload)).code).toBe("MANIFEST_INVALID");
  });

  test("is refused with MANIFEST_INVALID or FORMAT_UNSUPPORTED whatever JSON it is", () => {
    fc.assert(
      fc.property(fc.json(), (payload) => {
        expect(["MANIFEST_INVALID", "FORMAT_UNSUPPORTED"]).toContain(
          failureOf(() => read(payload)).code,
        );
      }),
      { numRuns: 50 },
    );
  });
});

describe("a host called __proto__", () => {
  const payload = JSON.stringify(sampleManifest()).replace(
    '"hosts":{',
    `"hosts":{"__proto__":${JSON.stringify(sampleHost({ closureSize: 666 }))},`,
  );

  test("is refused as any other impossible hostname", () => {
    expect(failureOf(() => read(payload)).code).toBe("MANIFEST_INVALID");
  });
});

describe("a rollout", () => {
  const START = "2026-01-31T12:00:00.000Z";
  const stage = { ...sampleHost(), sequence: 3, digest: "0".repeat(64) };
  const activation = { mode: "switch" };

  test("with a barrier is read as it was encoded", () => {
    const manifest = sampleManifest({
      barrier: { epoch: 1, sequence: 3 },
      rollout: {
        ...{ start: START, salt: "stable 7" },
        waves: [
          { hosts: ["web1"], groups: ["canary"], after: "0s" },
          { share: 0.1, after: "90m" },
          { share: 1, after: "90m", over: "1d" },
        ],
        paused: { reason: "disks fill up", since: START },
      },
      hosts: {
        web1: sampleHost({
          groups: ["canary"],
          turn: { held: "being repaired" },
          through: [{ ...stage, activation: { mode: "switch" } }],
        }),
      },
    });
    expect(read(encodeManifest(manifest)).manifest).toEqual(manifest);
  });

  const waves = (...list: unknown[]) => ({ start: START, salt: "s", waves: list });
  test.each<[string, readonly string[], unknown, string]>([
    ["without a start", ["rollout"], { salt: "s" }, "rollout.start: missing"],
    ["without a salt", ["rollout"], { start: START }, "rollout.salt: missing"],
    ["with a key more", ["rollout"], { start: START, salt: "s", over: "1d" }, "unknown key"],
    ["with no wave", ["rollout"], waves(), "rollout.waves: "],
    ["with a wave of nobody", ["rollout"], waves({ after: "1h" }), "hosts, groups or share"],
    ["with more than all", ["rollout"], waves({ share: 1.1, after: "1h" }), "waves[0].share"],
    ["with a share of nothing", ["rollout"], waves({ share: 0, after: "1h" }), "waves[0].share"],
    ["with no duration", ["rollout"], waves({ share: 1, after: "soon" }), "such as 90s"],
    ["with an endless one", ["rollout"], waves({ share: 1, after: "367d" }), "at most 366d"],
    [
      "whose shares shrink",
      ["rollout"],
      waves({ share: 0.5, after: "1h" }, { share: 0.5, after: "2h" }),
      "each with a greater share",
    ],
    [
      "whose waves go back in time",
      ["rollout"],
      waves({ groups: ["a"], after: "2h" }, { share: 1, after: "119m" }),
      "in the order of `after`",
    ],
    [
      "with too many waves",
      ["rollout"],
      waves(...Array.from({ length: 65 }, () => ({ hosts: ["web1"], after: "1h" }))),
      "rollout.waves: ",
    ],
    [
      "paused for no reason",
      ["rollout"],
      { start: START, salt: "s", paused: { reason: "", since: START } },
      "rollout.paused.reason",
    ],
    ["and a group of no name", ["hosts", "web1", "groups"], ["A B"], "hosts.web1.groups[0]"],
    ["and a turn that is none", ["hosts", "web1", "turn"], "later", 'expected "now" or'],
    [
      "and too many barriers",
      ["hosts", "web1", "through"],
      Array(9).fill({ ...stage, activation }),
      "through",
    ],
    ["and a barrier without a digest", ["hosts", "web1", "through"], [sampleHost()], "through[0]"],
    ["and a barrier at 0", ["barrier"], { sequence: 0 }, "barrier.sequence"],
  ])("%s is refused", (_, path, value, words) => {
    const failure = failureOf(() => read(altered(path, value)));
    expect(failure.code).toBe("MANIFEST_INVALID");
    expect(failure.message).toContain(words);
  });
});

test("more hosts than the limit are refused", () => {
  const host = sampleHost();
  const names = Array.from({ length: MAX_HOSTS + 1 }, (_, at) => `h${at}`);
  const hosts = Object.fromEntries(names.map((name) => [name, host]));
  expect(manifestSchema.safeParse(sampleManifest({ hosts })).error?.issues).toMatchObject([
    { path: ["hosts"], message: "expected at most 100000 hosts" },
  ]);
});

describe("a host's part of a release", () => {
  const of = (manifest: Manifest, hostname: string) =>
    releaseFor({ manifest, digest: sampleDigest("m"), signedBy: [] }, hostname);

  test("has everything that the agent needs to become it", () => {
    expect(of(sampleManifest(), "web1")).toEqual({
      channel: "stable",
      sequence: 7,
      digest: sampleDigest("m"),
      hostname: "web1",
      ...sampleHost(),
      mode: "switch",
      checks: [],
    });
  });

  test("has the host's own checks where there are any, else the default's", () => {
    const check = (name: string) => ({
      ...{ kind: "tcp" as const, name, host: "localhost", port: 22, timeout: "10s" },
    });
    const hosts = {
      web1: sampleHost({ activation: { checks: [check("own")] } }),
      web2: sampleHost({ activation: { checks: [] } }),
      web3: sampleHost({ activation: { mode: "boot" } }),
      web4: sampleHost(),
    };
    const defaults = { activation: { mode: "switch" as const, checks: [check("all")] } };
    const names = (hostname: string): string[] =>
      of(sampleManifest({ hosts, defaults }), hostname).checks.map(({ name }) => name);
    expect(names("web1")).toEqual(["own"]);
    expect(names("web2")).toEqual([]);
    expect(names("web3")).toEqual(["all"]);
    expect(names("web4")).toEqual(["all"]);
  });

  test("has the host's own activation mode where there is one", () => {
    const hosts = {
      web1: sampleHost({ activation: { mode: "boot" } }),
      web2: sampleHost({ activation: {} }),
    };
    expect(of(sampleManifest({ hosts }), "web1").mode).toBe("boot");
    expect(of(sampleManifest({ hosts }), "web2").mode).toBe("switch");
  });

  test.each(["web2", "WEB1", "", "constructor", "toString", "__proto__", "hasOwnProperty"])(
    "does not exist for %j where the release does not name it",
    (hostname) => {
      const failure = failureOf(() => of(sampleManifest(), hostname));
      expect(failure.code).toBe("HOST_NOT_IN_RELEASE");
      expect(failure.message).toContain(`no host ${JSON.stringify(hostname)}; it names 1: web1`);
    },
  );

  test("exists for a host that is called like a method of every object", () => {
    const hosts = JSON.parse(JSON.stringify({ constructor: sampleHost() })) as Manifest["hosts"];
    const { manifest } = read(encodeManifest(sampleManifest({ hosts })));
    expect(of(manifest, "constructor").toplevel).toBe(sampleHost().toplevel);
  });

  test("names a few hosts of many in its error", () => {
    const hosts = Object.fromEntries(
      Array.from({ length: 100 }, (_, at) => [`web${at}`, sampleHost()]),
    );
    const { message } = failureOf(() => of(sampleManifest({ hosts }), "db1"));
    expect(message).toContain("it names 100: web0, web1, web2, web3, web4, …");
  });
});

describe("every place is bounded", () => {
  const START = "2026-01-31T12:00:00.000Z";
  const SHA = "a".repeat(64);
  const earlier = (count: number): unknown[] =>
    Array.from({ length: count }, (_, at) => ({ epoch: 1, sequence: at + 3, digest: SHA }));
  const times = (count: number, value: unknown): unknown[] => Array<unknown>(count).fill(value);
  const patch = { base: SHA, archive: SHA, offset: 0, size: 1, sha256: SHA };
  const check = { kind: "tcp" as const, name: "c", host: "h", port: 22, timeout: "10s" };
  const index = { sha256: SHA, size: 1, json: SHA, patches: [patch] };
  const host = sampleHost({ archive: { sha256: SHA, size: 1, index } });
  /** A manifest with every key that there is. */
  const full = sampleManifest({
    epoch: { number: 2, reason: "a thief" },
    history: {
      since: { sequence: 3 },
      releases: [3, 6].map((sequence) => ({ sequence, digest: SHA })),
    },
    barrier: { epoch: 1, sequence: 3 },
    defaults: { activation: { mode: "switch", checks: [check] } },
    rollout: {
      ...{ start: START, salt: "s", paused: { reason: "disks", since: START } },
      waves: [
        { hosts: ["web1"], groups: ["a"], share: 0.5, after: "1h", over: "1h" },
        { share: 1, after: "1h" },
      ],
    },
    hosts: {
      web1: {
        ...{ ...host, groups: ["a"], turn: { held: "a reason" }, machineId: SHA },
        activation: { mode: "boot", checks: [check] },
        through: [{ ...host, epoch: 1, sequence: 3, digest: SHA, activation: { mode: "switch" } }],
      },
    },
  });
  const takes = (path: string, value: unknown): boolean =>
    takesAt(manifestSchema, full, path, value);
  const text = (length: number): string => "x".repeat(length);

  test("a history may be as long as readers allow", () => {
    const epoch = { number: 2, reason: "a thief" };
    const history = { since: { sequence: 1 }, releases: earlier(MAX_HISTORY) };
    expect(manifestSchema.safeParse(sampleManifest({ epoch, sequence: 1 })).success).toBe(true);
    expect(manifestSchema.safeParse({ ...sampleManifest({ epoch }), history }).success).toBe(true);
  });

  test("a manifest may have every key, and none more in any place", () => {
    expect(manifestSchema.parse(full)).toEqual(full);
    for (const place of [
      ...["epoch", "barrier", "rollout", "rollout.paused", "rollout.waves.0"],
      ...["hosts.web1.turn", "hosts.web1.through.0", "hosts.web1.archive.index.patches.0"],
      ...["hosts.web1.activation.checks.0", "hosts.web1.through.0.activation"],
    ]) {
      expect(takes(`${place}.more`, 1), place).toBe(false);
    }
  });

  test.each([
    ...["epoch", "barrier", "barrier.epoch", "rollout", "rollout.waves", "rollout.paused"],
    ...["defaults.activation.checks", "hosts.web1.archive.index.json", "hosts.web1.groups"],
    ...["hosts.web1.archive.index.patches", "hosts.web1.turn", "hosts.web1.through"],
    ...["hosts.web1.through.0.epoch", "hosts.web1.machineId", "hosts.web1.activation"],
    ...["hosts.web1.activation.mode", "hosts.web1.activation.checks"],
    ...["rollout.waves.0.hosts", "rollout.waves.0.groups", "rollout.waves.0.over"],
  ])("%s may be absent", (path) => {
    expect(takes(path, undefined)).toBe(true);
  });

  test.each([
    ...["epoch.number", "epoch.reason", "barrier.sequence", "rollout.start", "rollout.salt"],
    ...["rollout.paused.reason", "rollout.paused.since", "rollout.waves.0.after"],
    ...["rollout.waves.1.share", "hosts.web1.turn.held", "defaults.activation.mode"],
    ...["hosts.web1.through.0.sequence", "hosts.web1.through.0.digest"],
    ...["hosts.web1.through.0.activation", "hosts.web1.through.0.activation.mode"],
    ...["hosts.web1.through.0.toplevel", "hosts.web1.archive.index.sha256"],
    ...["base", "archive", "offset", "size", "sha256"].map(
      (key) => `hosts.web1.archive.index.patches.0.${key}`,
    ),
  ])("%s may not", (path) => {
    expect(takes(path, undefined)).toBe(false);
  });

  test.each<[path: string, good: unknown[], bad: unknown[]]>([
    ["epoch.number", [1, 9], [0, -1, 1.5]],
    ["epoch.reason", [text(500)], ["", text(501), "two\nlines"]],
    ["barrier.epoch", [1], [0, 0.5]],
    ["barrier.sequence", [1], [0, 0.5]],
    ["rollout.start", [START], ["soon"]],
    ["rollout.salt", [text(100)], ["", text(101), "a\n"]],
    ["rollout.paused.reason", [text(500)], [text(501), "\u001b[31m"]],
    ["rollout.paused.since", [START], ["yesterday"]],
    ["rollout.waves", [times(64, { hosts: ["web1"], after: "1h" })], [[]]],
    ["rollout.waves.0.hosts", [times(1_000, "web1")], [[], times(1_001, "web1"), ["a b"]]],
    ["rollout.waves.0.groups", [times(32, "a")], [[], times(33, "a"), ["A"]]],
    ["rollout.waves.1.share", [1, 0.51], [0.5, 0.4, 1.01]],
    ["rollout.waves.0.share", [0.01], [0, -0.5, "0.5"]],
    ["rollout.waves.0.after", ["0s", "1h", "59m59s"], ["", "1h ", "x1h", "1.5h", "61m"]],
    ["rollout.waves.1.after", ["366d", "60m"], ["366d1s", "59m", `${"9".repeat(30)}d`]],
    ["rollout.waves.0.over", ["0s", "366d"], ["367d", "later"]],
    ["hosts.web1.groups", [[], times(32, "a"), [text(64)]], [times(33, "a"), [text(65)], [""]]],
    ["hosts.web1.groups", [["0a"], ["a._-"]], [["-a"], [".a"], ["a b"], ["a\n"]]],
    ["hosts.web1.turn", ["now", { held: text(500) }], ["", { held: "" }, { held: text(501) }]],
    ["hosts.web1.machineId", [SHA], ["a", SHA.toUpperCase()]],
    ["hosts.web1.through.0.epoch", [1], [0, 0.5]],
    ["hosts.web1.through.0.sequence", [1], [0, 0.5]],
    ["hosts.web1.through.0.digest", [SHA], ["a"]],
    ["hosts.web1.through", [times(8, full.hosts["web1"]?.through?.[0])], []],
    ["hosts.web1.archive.index.json", [SHA], ["a"]],
    ["hosts.web1.archive.index.patches", [[], times(16, patch)], [times(17, patch)]],
    ["hosts.web1.archive.index.patches.0.base", [SHA], ["a"]],
    ["hosts.web1.archive.index.patches.0.archive", [SHA], ["a"]],
    ["hosts.web1.archive.index.patches.0.sha256", [SHA], ["a"]],
    ["hosts.web1.archive.index.patches.0.offset", [0, 7], [-1, 0.5]],
    ["hosts.web1.archive.index.patches.0.size", [1], [0, 0.5]],
    ["hosts.web1.activation.mode", ["switch", "boot", "test", "dry-activate"], ["", "reboot"]],
    ["hosts.web1.activation.checks", [[], times(64, check)], [times(65, check)]],
    ["defaults.activation.checks", [times(64, check)], [times(65, check), [7]]],
    ["channel", [text(64), "0._-"], [text(65), "-a", ".a", ""]],
    ["history.since.sequence", [1, 3], [0, 4, 1.5]],
    ["history.since.epoch", [], [0, 1]],
    ["history.releases", [[]], [earlier(MAX_HISTORY + 1), [3], undefined]],
    ["history.releases.0.sequence", [3, 5], [2, 6]],
    ["history.releases.0.digest", [], ["a", SHA.toUpperCase()]],
    ["hosts", [{}, { [text(253)]: host, a: host, "A.b_c-9": host }], [{ a_: host }]],
  ])("%s", (path, good, bad) => {
    for (const value of good) expect(takes(path, value), JSON.stringify(value)).toBe(true);
    for (const value of bad) expect(takes(path, value), JSON.stringify(value)).toBe(false);
  });

  test("a wave with a share counts on from the last one that had one, whatever lies between", () => {
    const waves = (...list: unknown[]): boolean => takes("rollout.waves", list);
    const named = { hosts: ["web1"], after: "1h" };
    expect(waves({ share: 0.5, after: "1h" }, named, { share: 0.6, after: "1h" })).toBe(true);
    expect(waves({ share: 0.5, after: "1h" }, named, { share: 0.5, after: "1h" })).toBe(false);
    expect(waves(named, { share: 0.5, after: "59m" })).toBe(false);
    expect(waves({ share: 0.5, after: "1h" }, { hosts: ["web1"], after: "59m" })).toBe(false);
    expect(waves({ groups: ["a"], after: "0s" })).toBe(true);
  });
});

describe("positions", () => {
  const at = (epoch: number, sequence: number) => ({ epoch, sequence });

  test("are ordered by epoch, then by sequence", () => {
    expect(comparePositions(at(0, 9), at(1, 1))).toBeLessThan(0);
    expect(comparePositions(at(1, 1), at(0, 9))).toBeGreaterThan(0);
    expect(comparePositions(at(1, 2), at(1, 3))).toBeLessThan(0);
    expect(comparePositions(at(1, 3), at(1, 2))).toBeGreaterThan(0);
    expect(comparePositions(at(2, 2), at(2, 2))).toBe(0);
  });

  test("are those of a manifest, and told with the epoch if there is one", () => {
    expect(positionOf({ sequence: 7 })).toEqual(at(0, 7));
    expect(positionOf({ sequence: 7, epoch: { number: 2, reason: "r" } })).toEqual(at(2, 7));
    expect(describePosition(at(0, 7))).toBe("7");
    expect(describePosition(at(2, 7))).toBe("7 of epoch 2");
  });
});

describe("the systems of a release", () => {
  const stage = {
    ...{ ...sampleHost({ toplevel: samplePath("old") }), sequence: 3, digest: "0".repeat(64) },
    activation: { mode: "switch" as const },
  };
  const web1 = sampleHost({ through: [stage] });
  const web2 = sampleHost({ toplevel: samplePath("other") });

  test("are those on a host's way, then its own", () => {
    expect(systemsOf(web1)).toEqual([stage, web1]);
    expect(systemsOf(web2)).toEqual([web2]);
    expect(systemsIn(sampleManifest({ hosts: { web1, web2 } }))).toEqual([
      { hostname: "web1", system: stage },
      { hostname: "web1", system: web1 },
      { hostname: "web2", system: web2 },
    ]);
  });

  test("are activated as the host says, or else as all are", () => {
    const check = { kind: "tcp" as const, name: "c", host: "h", port: 22, timeout: "10s" };
    const defaults = { activation: { mode: "boot" as const, checks: [check] } };
    expect(activationOf({ defaults }, {})).toEqual({ mode: "boot", checks: [check] });
    const own = { mode: "test" as const, checks: [] };
    expect(activationOf({ defaults }, { activation: own })).toEqual(own);
    const plain = { activation: { mode: "boot" as const } };
    expect(activationOf({ defaults: plain }, {})).toEqual({ mode: "boot" });
  });
});

describe("a host's part that is bound to a machine", () => {
  const bound = "b".repeat(64);
  const manifest = sampleManifest({
    epoch: { number: 2, reason: "r" },
    hosts: { web1: sampleHost({ machineId: bound }), web2: sampleHost() },
  });
  const of = (hostname: string, machineId?: string | null) =>
    releaseFor({ manifest, digest: sampleDigest("m"), signedBy: [] }, hostname, machineId);

  test("is for that machine alone, unless nobody asks", () => {
    expect(of("web1", bound)).toMatchObject({ hostname: "web1", epoch: 2 });
    expect(of("web1").hostname).toBe("web1");
    expect(of("web2", "c".repeat(64)).hostname).toBe("web2");
    expect(of("web2", null).hostname).toBe("web2");
    const other = failureOf(() => of("web1", "c".repeat(64)));
    expect(other.code).toBe("MACHINE_MISMATCH");
    expect(other.message).toBe(
      `release 7 gives web1 to the machine ${bound}, this one is ${"c".repeat(64)}`,
    );
    expect(failureOf(() => of("web1", null)).message).toContain("this one is without a machine-id");
  });

  test("is named among up to five, which are all of five", () => {
    const hosts = Object.fromEntries([1, 2, 3, 4, 5].map((at) => [`web${at}`, sampleHost()]));
    const five = { manifest: sampleManifest({ hosts }), digest: "", signedBy: [] };
    expect(failureOf(() => releaseFor(five, "db1")).message).toBe(
      'release 7 of channel stable names no host "db1"; it names 5: web1, web2, web3, web4, web5',
    );
  });
});

test("a payload that is not JSON keeps the reason", () => {
  expect(failureOf(() => parseManifest(Buffer.from("{"))).cause).toBeInstanceOf(SyntaxError);
  expect(failureOf(() => parseManifest(Buffer.from('{"hosts":{"__proto__":1}}'))).message).toBe(
    'hosts: expected a hostname, found "__proto__"',
  );
  expect(failureOf(() => parseManifest(Buffer.from('{"formatVersion":2}'))).message).toBe(
    "expected manifest format 1, found 2; this host needs a newer nixos-pull",
  );
});

test("hosts are encoded in the order of their names", () => {
  const hosts = Object.fromEntries(["b", "c", "a"].map((name) => [name, sampleHost()]));
  const text = encodeManifest(sampleManifest({ hosts })).toString();
  expect(Object.keys((JSON.parse(text) as Manifest).hosts)).toEqual(["a", "b", "c"]);
});

test("names that are none are told as what was expected", () => {
  const words = (path: string[], value: unknown): string =>
    failureOf(() => read(altered(path, value))).message;
  expect(words(["hosts", "a b"], sampleHost())).toContain("hosts.a b: ");
  expect(words(["hosts", "web1", "groups"], ["A"])).toContain(
    "expected a group name of lower-case letters, digits, dots, dashes and underscores",
  );
});

test("a host's part of a release has no key that nobody knows", () => {
  const release = releaseFor(
    { manifest: sampleManifest(), digest: "0".repeat(64), signedBy: [] },
    "web1",
  );
  expect(releaseSchema.parse(release)).toEqual(release);
  expect(releaseSchema.safeParse({ ...release, more: 1 }).success).toBe(false);
  expect(releaseSchema.safeParse({ ...release, epoch: 0 }).success).toBe(false);
  expect(releaseSchema.safeParse({ ...release, sequence: 0 }).success).toBe(false);
});
