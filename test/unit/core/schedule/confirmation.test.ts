import { expect, test } from "vitest";
import {
  confirmationSchema,
  confirms,
  identifies,
  type Confirmation,
} from "../../../../agent/core/schedule/confirmation.ts";
import { sampleDigest, samplePath, sampleRelease } from "../../../support/sample-release.ts";

function confirmationOf(changes: Partial<Confirmation> = {}): Confirmation {
  const { sequence, digest, toplevel, mode } = sampleRelease();
  return { at: "2026-02-01T12:00:00.000Z", sequence, digest, toplevel, mode, ...changes };
}

test("a confirmation holds for its system in its mode, however often that is published", () => {
  const release = sampleRelease();
  expect(confirms(confirmationOf(), release)).toBe(true);
  expect(confirms(confirmationOf({ sequence: 6, digest: sampleDigest("6") }), release)).toBe(true);
  expect(confirms(confirmationOf({ toplevel: samplePath("another") }), release)).toBe(false);
  expect(confirms(confirmationOf({ mode: "boot" }), release)).toBe(false);
  expect(confirms(null, release)).toBe(false);
});

test("its form knows no other fields", () => {
  expect(confirmationSchema.safeParse(confirmationOf()).success).toBe(true);
  expect(confirmationSchema.safeParse({ ...confirmationOf(), extra: 1 }).success).toBe(false);
});

test("a release is identified by its sequence or the beginning of its digest", () => {
  const release = sampleRelease();
  expect(identifies(String(release.sequence), release)).toBe(true);
  expect(identifies(release.digest, release)).toBe(true);
  expect(identifies(release.digest.slice(0, 8), release)).toBe(true);
  expect(identifies(release.digest.slice(0, 7), release)).toBe(false);
  expect(identifies(release.digest.slice(1), release)).toBe(false);
  expect(identifies(release.digest.slice(-8), release)).toBe(false);
  expect(identifies("", release)).toBe(false);
  expect(identifies(`${release.sequence}0`, release)).toBe(false);
});
