import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { sealEnvelope } from "../../../../agent/core/formats/envelope.ts";
import { parseManifest, type Manifest } from "../../../../agent/core/formats/manifest.ts";
import {
  parseUnverified,
  placeUnverified,
} from "../../../../agent/core/formats/manifest-reader.ts";
import { readOffer } from "../../../../agent/core/release/offered-release.ts";
import { failureOf } from "../../../support/failure.ts";
import { sampleDigest, sampleHost, sampleManifest } from "../../../support/sample-release.ts";
import { testKey } from "../../../support/test-key.ts";

const KEY = testKey("first-1");
const TRUST = { publicKeys: [KEY.publicKey], threshold: 1 };
const START = "2026-01-31T12:00:00.000Z";
const SHA = sampleDigest("any");

/** With every key that there is. */
const FULL: Manifest = sampleManifest({
  epoch: { number: 2, reason: "a thief" },
  history: { since: { sequence: 3 }, releases: [{ epoch: 1, sequence: 3, digest: SHA }] },
  supported: [{ sequence: 3, digest: SHA, until: START }],
  barrier: { epoch: 1, sequence: 3 },
  defaults: {
    activation: {
      mode: "switch",
      checks: [{ kind: "tcp", name: "c", timeout: "1s", host: "h", port: 1 }],
    },
  },
  rollout: {
    ...{ start: START, salt: "s", paused: { reason: "disks", since: START } },
    waves: [{ groups: ["a"], after: "1h" }],
  },
  hosts: {
    web1: {
      ...sampleHost({
        archive: {
          ...{ sha256: SHA, size: 1 },
          index: {
            sha256: SHA,
            size: 1,
            json: SHA,
            patches: [{ base: SHA, archive: SHA, offset: 0, size: 1, sha256: SHA }],
          },
        },
      }),
      ...{ groups: ["a"], turn: { held: "a reason" }, platform: "x86_64-linux" },
      activation: {
        mode: "boot",
        checks: [{ kind: "http", name: "h", timeout: "1s", url: "http://h/", status: 200 }],
      },
      through: [{ ...sampleHost(), sequence: 3, digest: SHA, activation: { mode: "switch" } }],
    },
  },
});

/** Every object in a value; not the map of hosts, whose keys are names. */
function objectsIn(value: unknown, isMap = false): Record<string, unknown>[] {
  if (typeof value !== "object" || value === null) return [];
  const inner = Object.entries(value).flatMap(([key, part]) =>
    objectsIn(part, key === "hosts" && !Array.isArray(part)),
  );
  return Array.isArray(value) || isMap ? inner : [value as Record<string, unknown>, ...inner];
}
const PLACES = objectsIn(FULL).length;

const unknownKey = fc
  .string({ minLength: 1, maxLength: 20, unit: "grapheme-ascii" })
  .map((text) => `later-${text}`);

/** The manifest with keys of a later version in some of its places. */
const later = fc
  .array(fc.tuple(fc.nat(PLACES - 1), unknownKey, fc.jsonValue()), { minLength: 1, maxLength: 8 })
  .map((additions) => {
    const manifest = structuredClone(FULL);
    const places = objectsIn(manifest);
    for (const [at, key, value] of additions) {
      const place = places[at];
      if (place) place[key] = value;
    }
    return manifest;
  });

const bytesOf = (manifest: object): Buffer => Buffer.from(JSON.stringify(manifest));
const offer = (manifest: object, known: string[] = []) =>
  readOffer(Buffer.from(sealEnvelope(bytesOf(manifest), [KEY])), TRUST, known);

describe("keys of a later version", () => {
  test("are ignored by hosts at every depth", () => {
    expect(PLACES).toBeGreaterThan(20);
    fc.assert(
      fc.property(later, (manifest) => {
        const offered = offer(manifest);
        expect(offered.kind).toBe("understood");
        expect(offered.signed.manifest).toEqual(FULL);
      }),
    );
  });

  test("are refused by all who sign, and named", () => {
    const padding = Object.fromEntries(
      Array.from({ length: 400 }, (_, at) => [`padding${at}`, sampleHost()]),
    );
    fc.assert(
      fc.property(later, fc.boolean(), (manifest, isLarge) => {
        if (isLarge) Object.assign(manifest.hosts, padding);
        const payload = bytesOf(manifest);
        for (const read of [parseManifest, parseUnverified]) {
          const { code, message } = failureOf(() => read(payload));
          expect(code).toBe("MANIFEST_INVALID");
          expect(message).toMatch(/unknown key|only the keys|expected "now"/);
        }
        // Where a release stands can always be told.
        if (!hasOwnTrouble(manifest)) expect(placeUnverified(payload).sequence).toBe(7);
      }),
      { numRuns: 60 },
    );
  });

  /** Whether the frame's own parts have more keys; operators' tools refuse those. */
  function hasOwnTrouble({ epoch, history, supported, barrier }: Manifest): boolean {
    return JSON.stringify({ epoch, history, supported, barrier }).includes("later-");
  }

  test("in a check of a kind that is known are ignored; a kind that is not is for `requires`", () => {
    const check = { kind: "dns", name: "d" };
    const defaults = { activation: { mode: "switch", checks: [check] } };
    expect(failureOf(() => offer({ ...FULL, defaults })).code).toBe("MANIFEST_INVALID");
    expect(offer({ ...FULL, defaults, requires: ["checks-dns"] }).kind).toBe("ahead");
  });
});

describe("what a release requires", () => {
  test("decides before anything but the frame is read", () => {
    const strange = { ...FULL, requires: ["tree", "known"], hosts: 7, defaults: [], rollout: "x" };
    const offered = offer(strange, ["known"]);
    expect(offered).toMatchObject({ kind: "ahead", lacks: ["tree"] });
    expect(offered.signed.manifest).not.toHaveProperty("hosts");
    expect(offered.signed.manifest.history).toEqual(FULL.history);
  });

  test("is refused by all who sign, if they do not understand it", () => {
    const payload = bytesOf({ ...FULL, requires: ["tree"], more: { x: 1 } });
    for (const read of [parseManifest, parseUnverified]) {
      expect(failureOf(() => read(payload))).toMatchObject({ code: "AGENT_TOO_OLD" });
    }
    expect(placeUnverified(payload).sequence).toBe(7);
  });

  test.each([
    ["no list", "tree"],
    ["no names", [1]],
    ["a name of another form", ["Tree"]],
    ["too many", Array.from({ length: 65 }, (_, at) => `f${at}`)],
  ])("is invalid if it is %s", (_, requires) => {
    expect(failureOf(() => offer({ ...FULL, requires })).code).toBe("MANIFEST_INVALID");
  });

  test("does not excuse a frame that is wrong", () => {
    const history = { since: { sequence: 9 }, releases: [] };
    const wrong = { ...FULL, epoch: undefined, history, requires: ["tree"] };
    expect(failureOf(() => offer(wrong)).code).toBe("MANIFEST_INVALID");
  });

  test("does not excuse a missing signature", () => {
    const bytes = Buffer.from(sealEnvelope(bytesOf(FULL), [testKey("other-1")]));
    expect(failureOf(() => readOffer(bytes, TRUST)).code).toBe("SIGNATURE_THRESHOLD");
  });
});
