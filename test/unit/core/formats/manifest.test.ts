import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { sealEnvelope } from "../../../../agent/core/formats/envelope.ts";
import {
  MAX_HOSTS,
  encodeManifest,
  manifestSchema,
  readManifest,
  releaseFor,
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
