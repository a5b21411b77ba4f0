import { expect, test } from "vitest";
import {
  DEFAULT_SUPPORT_MS,
  supportedBy,
  type SupportRequest,
} from "../../../../agent/core/release/supported-releases.ts";
import { sampleDigest } from "../../../support/sample-release.ts";

const createdAt = "2026-01-31T12:00:00.000Z";
const later = (ms: number): string => new Date(Date.parse(createdAt) + ms).toISOString();

function release(sequence: number, ...requires: string[]) {
  const digest = sampleDigest(`release ${sequence}`);
  return { manifest: { sequence, ...(requires.length > 0 && { requires }) }, digest };
}

function supported(requires: string[], changes: Partial<SupportRequest> = {}) {
  const request = { earlier: [], carried: [], createdAt, supportMs: undefined, ...changes };
  return supportedBy({ requires, ...request });
}

test("the newest release for each lesser set of features is named", () => {
  const earlier = [
    ...[release(9, "a", "b"), release(8, "a"), release(7, "a"), release(6, "b"), release(5)],
    ...[release(4), release(3, "c")],
  ];
  const found = supported(["a", "b"], { earlier });
  expect(found).toEqual([
    {
      sequence: 8,
      digest: sampleDigest("release 8"),
      requires: ["a"],
      until: later(DEFAULT_SUPPORT_MS),
    },
    {
      sequence: 6,
      digest: sampleDigest("release 6"),
      requires: ["b"],
      until: later(DEFAULT_SUPPORT_MS),
    },
    { sequence: 5, digest: sampleDigest("release 5"), until: later(DEFAULT_SUPPORT_MS) },
  ]);
});

test("a release that needs more than the new one may serve other agents", () => {
  const found = supported(["a"], { earlier: [release(8, "b"), release(7, "a", "b"), release(6)] });
  expect(found.map(({ sequence }) => sequence)).toEqual([8, 6]);
});

test("what was named keeps its time, unless the operator says another one", () => {
  const { digest } = release(5);
  const carried = [{ sequence: 5, digest, until: later(1000) }];
  const earlier = [release(5)];
  expect(supported(["a"], { earlier, carried })[0]?.until).toBe(later(1000));
  expect(supported(["a"], { earlier, carried, supportMs: 5000 })[0]?.until).toBe(later(5000));
  expect(supported(["a"], { earlier, carried, supportMs: 0 })).toEqual([]);
});

test("support that has ended is not begun again with an older release", () => {
  const { digest } = release(5);
  const carried = [{ sequence: 5, digest, until: createdAt }];
  expect(supported(["a"], { earlier: [release(5), release(4)], carried })).toEqual([]);
});

test("an epoch is named with its number", () => {
  const { manifest, digest } = release(5);
  const earlier = [{ manifest: { ...manifest, epoch: { number: 2, reason: "r" } }, digest }];
  expect(supported(["a"], { earlier })).toMatchObject([{ epoch: 2, sequence: 5 }]);
});
