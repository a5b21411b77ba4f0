import { describe, expect, test } from "vitest";
import { sealEnvelope } from "../../../../agent/core/formats/envelope.ts";
import { encodeManifest } from "../../../../agent/core/formats/manifest.ts";
import type { ManifestRead } from "../../../../agent/core/ports.ts";
import { readChannel } from "../../../../agent/core/release/read-channel.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { sampleManifest } from "../../../support/sample-release.ts";
import { testKey } from "../../../support/test-key.ts";

const KEY = testKey("fleet-1");
const TRUST = { publicKeys: [KEY.publicKey], threshold: 1 };

/** A mirror that gives the same answer for every channel. */
function mirrorWith(answer: ManifestRead) {
  return { address: "https://mirror.test", readManifest: async () => answer };
}

function answerWith(channel: string): ManifestRead {
  const payload = encodeManifest(sampleManifest({ channel }));
  return { kind: "read", bytes: Buffer.from(sealEnvelope(payload, [KEY])), validators: {} };
}

describe("a channel of a mirror", () => {
  test("is read with the bytes that were signed", async () => {
    const { envelope, signed } = await readChannel(
      mirrorWith(answerWith("stable")),
      "stable",
      TRUST,
    );
    expect(signed.manifest).toEqual(sampleManifest());
    expect(signed.signedBy).toEqual(["fleet-1"]);
    expect(JSON.parse(Buffer.from(envelope).toString())).toHaveProperty("signatures");
  });

  test("is refused if the manifest is of another channel", async () => {
    const failure = await rejectionOf(
      readChannel(mirrorWith(answerWith("testing")), "stable", TRUST),
    );
    expect(failure.code).toBe("CHANNEL_MISMATCH");
    expect(failure.message).toContain(
      "expected a manifest of channel stable, found one of testing",
    );
  });

  test("is refused if other keys signed it", async () => {
    const trust = { publicKeys: [testKey("fleet-2").publicKey], threshold: 1 };
    const failure = await rejectionOf(
      readChannel(mirrorWith(answerWith("stable")), "stable", trust),
    );
    expect(failure.code).toBe("SIGNATURE_THRESHOLD");
  });

  test("a mirror that says 'not modified' unasked is at fault", async () => {
    const failure = await rejectionOf(
      readChannel(mirrorWith({ kind: "unchanged" }), "stable", TRUST),
    );
    expect(failure.code).toBe("MIRROR_STATUS");
    expect(failure.message).toBe(
      'https://mirror.test: expected a manifest, found "not modified" although it was not asked for',
    );
  });

  test("is read in full, and no longer than the caller waits", async () => {
    const asked: unknown[] = [];
    const { signal } = new AbortController();
    const mirror = {
      address: "https://mirror.test",
      readManifest: async (...question: unknown[]) => {
        asked.push(...question);
        return answerWith("stable");
      },
    };
    await readChannel(mirror, "stable", TRUST, signal);
    expect(asked).toEqual(["stable", { signal }]);
  });
});
