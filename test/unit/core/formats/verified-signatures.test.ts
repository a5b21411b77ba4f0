import { describe, expect, test } from "vitest";
import { pathFingerprint, signPath, type NarInfo } from "../../../../agent/core/formats/narinfo.ts";
import type { PublicKey } from "../../../../agent/core/formats/signing-key.ts";
import { storePathName } from "../../../../agent/core/formats/store-path.ts";
import { VerifiedSignatures } from "../../../../agent/core/formats/verified-signatures.ts";
import { sampleDigest, samplePath } from "../../../support/sample-release.ts";
import { testKey } from "../../../support/test-key.ts";

const KEY = testKey("fleet-1");
const TRUSTED = [KEY.publicKey];

function signed(name: string): NarInfo {
  const info: NarInfo = {
    ...{ storePath: storePathName(samplePath(name)), compression: "zstd" },
    ...{ fileSha256: sampleDigest("file"), fileSize: 1234, signatures: [] },
    ...{ narHash: `sha256:${"0".repeat(52)}`, narSize: 5678 },
    references: [storePathName(samplePath("library-1.0"))],
  };
  return { ...info, signatures: [signPath(KEY, pathFingerprint(info))] };
}

const PROGRAM = signed("program-2.0");

/** The trusted key by its text, with which no signature is right: whatever is checked is refused. */
const REFUSING: PublicKey[] = [
  { ...KEY.publicKey, key: testKey("fleet-1", "other").publicKey.key },
];

function keptOf(...infos: NarInfo[]): Buffer {
  const verified = new VerifiedSignatures();
  for (const info of infos) expect(verified.check(info, TRUSTED)).toBe(true);
  return verified.encode();
}

describe("a signature that was found right", () => {
  test("is not checked again, also not the time after", () => {
    const again = new VerifiedSignatures(keptOf(PROGRAM));
    expect(again.check(PROGRAM, REFUSING)).toBe(true);
    expect(new VerifiedSignatures(again.encode()).check(PROGRAM, REFUSING)).toBe(true);
  });

  test("is forgotten with the path that the next index does not have", () => {
    const next = new VerifiedSignatures(keptOf(PROGRAM, signed("editor-1.0")));
    next.check(PROGRAM, TRUSTED);
    expect(new VerifiedSignatures(next.encode()).check(signed("editor-1.0"), REFUSING)).toBe(false);
  });

  test.each<[string, NarInfo, PublicKey[]]>([
    ["path", { ...PROGRAM, storePath: storePathName(samplePath("program-2.1")) }, REFUSING],
    ["NAR", { ...PROGRAM, narHash: `sha256:${"1".repeat(52)}` }, REFUSING],
    ["size", { ...PROGRAM, narSize: 5679 }, REFUSING],
    ["reference", { ...PROGRAM, references: [] }, REFUSING],
    ["signature", { ...PROGRAM, signatures: [`fleet-1:${"A".repeat(86)}==`] }, REFUSING],
    ["further signature", { ...PROGRAM, signatures: [...PROGRAM.signatures, "x:y"] }, REFUSING],
    ["key", PROGRAM, [testKey("fleet-1", "other").publicKey]],
    ["set of keys", PROGRAM, [...REFUSING, testKey("fleet-2").publicKey]],
  ])("is checked again with another %s", (_, info, keys) => {
    expect(new VerifiedSignatures(keptOf(PROGRAM)).check(info, keys)).toBe(false);
  });
});

describe("what was kept", () => {
  test("stands for nothing if a byte of it is another, or some are missing", () => {
    const kept = keptOf(PROGRAM);
    for (let at = 0; at < kept.length; at++) {
      const altered = Buffer.from(kept);
      altered[at] = (altered[at] ?? 0) ^ 1;
      expect(new VerifiedSignatures(altered).check(PROGRAM, REFUSING)).toBe(false);
      expect(new VerifiedSignatures(kept.subarray(0, at)).check(PROGRAM, REFUSING)).toBe(false);
    }
  });

  test("has no signature that was refused", () => {
    const verified = new VerifiedSignatures();
    expect(verified.check(PROGRAM, REFUSING)).toBe(false);
    expect(verified.encode()).toHaveLength(32);
  });
});
