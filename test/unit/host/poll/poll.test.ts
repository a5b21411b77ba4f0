import { expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import { sealEnvelope } from "../../../../agent/core/formats/envelope.ts";
import { encodeManifest } from "../../../../agent/core/formats/manifest.ts";
import type { CachedManifest, ManifestCache, Mirror } from "../../../../agent/core/ports.ts";
import { parseSettings } from "../../../../agent/core/settings.ts";
import { MirrorStandings } from "../../../../agent/host/poll/mirror-standings.ts";
import { VerifiedOffers } from "../../../../agent/host/poll/verified-offers.ts";
import { poll } from "../../../../agent/host/poll/poll.ts";
import { sampleManifest } from "../../../support/sample-release.ts";
import { testKey } from "../../../support/test-key.ts";

const [FIRST, SECOND] = [testKey("first-1"), testKey("second-1")];
const SETTINGS = parseSettings(
  {
    mirrors: ["https://one.example"],
    publicKeys: [FIRST.publicKey.text, SECOND.publicKey.text],
  },
  "web1",
);
const PAYLOAD = encodeManifest(sampleManifest());
const BY_FIRST = Buffer.from(sealEnvelope(PAYLOAD, [FIRST]));
const BY_SECOND = Buffer.from(sealEnvelope(PAYLOAD, [SECOND]));

/** A mirror with this manifest, whose version is its bytes; notes what it was asked. */
function mirrorOf(address: string, bytes: Buffer, asked: string[] = []): Mirror {
  const etag = bytes.toString("base64").slice(-20);
  return {
    address,
    ranges: true,
    async readManifest(_, { validators }) {
      asked.push(validators?.etag === etag ? "unchanged" : "read");
      if (validators?.etag === etag) return { kind: "unchanged" };
      return { kind: "read", bytes, validators: { etag } };
    },
    readArchive: () => {
      throw new Error("a poll reads no archive");
    },
    readRelease: () => {
      throw new Error("a poll reads no older release");
    },
  };
}

function memoryCache(): ManifestCache & { readonly kept: Map<string, CachedManifest> } {
  const kept = new Map<string, CachedManifest>();
  return {
    kept,
    get: async (mirror, channel) => kept.get(`${mirror} ${channel}`) ?? null,
    put: async (mirror, channel, manifest) => void kept.set(`${mirror} ${channel}`, manifest),
    drop: async (mirror, channel) => void kept.delete(`${mirror} ${channel}`),
    save: () => Promise.resolve(),
  };
}

function polled(
  mirrors: readonly Mirror[],
  cache = memoryCache(),
  offers = new VerifiedOffers(),
  now = new Date("2026-02-01T12:00:00Z"),
) {
  return poll(
    {
      ...{ settings: SETTINGS, mirrors, cache, standings: new MirrorStandings() },
      offers,
      features: [],
      clock: { now: () => now },
      timers: { steadyMs: () => 0, sleep: () => new Promise(() => undefined) },
    },
    [],
  );
}

test("among mirrors with the same release the first one's counts", async () => {
  const one = mirrorOf("one", BY_FIRST);
  const two = mirrorOf("two", BY_SECOND);
  expect((await polled([one, two])).accepted?.offered.signed.signedBy).toEqual(["first-1"]);
  expect((await polled([two, one])).accepted?.offered.signed.signedBy).toEqual(["second-1"]);
});

test("a kept answer that is refused is dropped, so that the next poll reads it whole", async () => {
  const asked: string[] = [];
  const mirror = mirrorOf("one", BY_FIRST, asked);
  const cache = memoryCache();
  await polled([mirror], cache);
  const [[key, { validators }] = ["", { validators: {} }]] = cache.kept;
  cache.kept.set(key, { bytes: Buffer.from("torn"), validators });
  expect((await polled([mirror], cache)).error?.code).toBe("ENVELOPE_INVALID");
  expect(cache.kept.size).toBe(0);
  expect((await polled([mirror], cache)).accepted).not.toBeNull();
  expect(asked).toEqual(["read", "unchanged", "read"]);
});

test("a kept answer outlives a mirror that is out of reach", async () => {
  const cache = memoryCache();
  await polled([mirrorOf("one", BY_FIRST)], cache);
  const away: Mirror = {
    ...mirrorOf("one", BY_FIRST),
    readManifest: () => Promise.reject(new PullError("MIRROR_UNREACHABLE", "away")),
  };
  expect((await polled([away], cache)).error?.code).toBe("MIRROR_UNREACHABLE");
  expect(cache.kept.size).toBe(1);
});

test("what did not change is not verified again in the same run, but judged again", async () => {
  const asked: string[] = [];
  const mirror = mirrorOf("one", BY_FIRST, asked);
  const cache = memoryCache();
  const offers = new VerifiedOffers();
  const first = await polled([mirror], cache, offers);
  // What lies in the cache is not looked at.
  for (const [key, { validators }] of cache.kept) {
    cache.kept.set(key, { bytes: Buffer.from("torn"), validators });
  }
  const second = await polled([mirror], cache, offers);
  expect(asked).toEqual(["read", "unchanged"]);
  expect(second.accepted?.offered).toBe(first.accepted?.offered);
  expect(second.verdicts).toMatchObject([{ unchanged: true }]);

  const late = await polled([mirror], cache, offers, new Date("2036-01-01T00:00:00Z"));
  expect(late.error).toMatchObject({ code: "MANIFEST_EXPIRED" });
  // Another run verifies it again.
  const other = await polled([mirror], cache);
  expect(other.error).toMatchObject({ code: "ENVELOPE_INVALID" });
});
