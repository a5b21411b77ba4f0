import { describe, expect, test } from "vitest";
import { encodeManifest, type Manifest } from "../../../../agent/core/formats/manifest.ts";
import {
  parseUnverified,
  placeUnverified,
} from "../../../../agent/core/formats/manifest-reader.ts";
import { failureOf } from "../../../support/failure.ts";
import { sampleHost, sampleManifest } from "../../../support/sample-release.ts";

/** So many hosts that the payload is read value by value. */
function largeManifest(changes: Partial<Manifest> = {}): Manifest {
  const names = Array.from({ length: 400 }, (_, at) => `web${at}`);
  return sampleManifest({
    defaults: {
      activation: {
        mode: "boot",
        specialisation: "small",
        checks: [{ kind: "tcp", name: "ssh", host: "localhost", port: 22, timeout: "10s" }],
      },
    },
    epoch: { number: 2, reason: "key stolen" },
    barrier: { sequence: 3, epoch: 2 },
    rollout: {
      start: "2026-01-01T00:00:00.000Z",
      salt: "salt",
      waves: [
        { hosts: ["web1"], after: "0s" },
        { share: 1, after: "1h" },
      ],
      paused: { reason: "look first", since: "2026-01-01T00:00:00.000Z" },
    },
    hosts: Object.fromEntries(names.map((name) => [name, sampleHost({ groups: ["canary"] })])),
    ...changes,
  });
}

/** The payload with one text replaced. */
function altered(from: string, to: string, manifest = largeManifest()): Buffer {
  const text = encodeManifest(manifest).toString();
  expect(text).toContain(from);
  return Buffer.from(text.replace(from, to));
}

describe("a payload that nobody verified", () => {
  test.each([
    ["a large one", largeManifest()],
    ["a small one", sampleManifest()],
  ])("is read as it was encoded: %s", (_, manifest) => {
    const { channel, epoch, sequence, history } = manifest;
    expect(parseUnverified(encodeManifest(manifest))).toEqual(manifest);
    expect(placeUnverified(encodeManifest(manifest))).toEqual({
      ...{ channel, sequence, history },
      ...(epoch && { epoch }),
    });
  });

  test.each([
    ["an unknown key", '"hosts":{', '"other":1,"hosts":{', "only the keys formatVersion,"],
    ["a host without a system", '"web7":{', '"aaaa":{},"web7":{', "hosts.aaaa.toplevel: missing"],
    ["a host twice", '"web7":{', '"web1":{', "each name once"],
    ["a host of a bad name", '"web7":{', '"__proto__":{', "hosts: expected a hostname"],
    ["hosts that are a list", '"hosts":{', '"hosts":[{}],"x":{', "hosts: expected an object"],
    ["a check of no kind", '"kind":"tcp"', '"kind":"udp"', "defaults.activation.checks[0].kind"],
    ["a wave without hosts", '"share":1,', "", "rollout.waves[1]: expected hosts, groups or share"],
    ["a bad mode", '"mode":"boot"', '"mode":"reboot"', "defaults.activation.mode"],
    ["no sequence", '"sequence":7,', "", "sequence: missing"],
    ["more behind it", '{"formatVersion"', '{}{"formatVersion"', "the payload: expected the end"],
  ])("is no manifest with %s", (_, from, to, message) => {
    const manifest = largeManifest({ sequence: 7, barrier: { sequence: 3, epoch: 2 } });
    const error = failureOf(() => parseUnverified(altered(from, to, manifest)));
    expect(error.code).toBe("MANIFEST_INVALID");
    expect(error.message).toContain(message);
  });

  test("of a newer format is told from a wrong one", () => {
    const newer = altered('"formatVersion":1', '"formatVersion":2');
    expect(failureOf(() => parseUnverified(newer)).code).toBe("FORMAT_UNSUPPORTED");
    expect(failureOf(() => placeUnverified(newer)).code).toBe("FORMAT_UNSUPPORTED");
  });

  test("has a place, whatever is said of hosts", () => {
    const { sequence } = largeManifest();
    const other = altered('"hosts":{', '"hosts":{"a":[1,{}],');
    expect(placeUnverified(other)).toMatchObject({ sequence, epoch: { number: 2 } });
  });

  test.each([
    ["lists in lists", "[".repeat(200_000)],
    ["nothing", ""],
    ["hosts that do not end", '{"hosts":{"a":'],
    ["a key without a value", '{"hosts":}'],
  ])("has no place: %s", (_, text) => {
    expect(failureOf(() => placeUnverified(Buffer.from(text))).code).toBe("MANIFEST_INVALID");
  });
});
