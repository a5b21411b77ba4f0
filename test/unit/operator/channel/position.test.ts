import { describe, expect, test } from "vitest";
import { nextPosition } from "../../../../agent/operator/channel/position.ts";
import { failureOf } from "../../../support/failure.ts";
import { sampleManifest } from "../../../support/sample-release.ts";

describe("the position of the next release", () => {
  test("is 1 in a new channel, else one more", () => {
    expect(nextPosition(null)).toEqual({ sequence: 1 });
    expect(nextPosition(sampleManifest())).toEqual({ sequence: 8 });
  });

  test("keeps the epoch, with its reason", () => {
    const epoch = { number: 2, reason: "lost key" };
    expect(nextPosition(sampleManifest({ epoch }))).toEqual({ epoch, sequence: 8 });
  });

  test("starts at 1 again in a new epoch", () => {
    const reason = "new publisher";
    expect(nextPosition(sampleManifest(), { newEpoch: { reason } })).toEqual({
      epoch: { number: 1, reason },
      sequence: 1,
    });
    expect(nextPosition(null, { newEpoch: { reason, number: 4 }, sequence: 9 })).toEqual({
      epoch: { number: 4, reason },
      sequence: 9,
    });
  });

  const place = (sequence: number, epoch = 0) => ({ epoch, sequence });

  test("comes after the numbers that drafts have", () => {
    expect(nextPosition(sampleManifest(), {}, [place(8), place(9)])).toEqual({ sequence: 10 });
    expect(nextPosition(sampleManifest(), {}, [place(3)])).toEqual({ sequence: 8 });
    expect(nextPosition(null, {}, [place(1)])).toEqual({ sequence: 2 });
    const failure = failureOf(() => nextPosition(sampleManifest(), { sequence: 9 }, [place(9)]));
    expect(failure.message).toContain("expected more than 9, which a draft may have, found 9");
  });

  test("skips no number of its epoch for a draft of another epoch, but skips that epoch", () => {
    expect(nextPosition(sampleManifest(), {}, [place(30, 1)])).toEqual({ sequence: 8 });
    const reason = "again";
    expect(nextPosition(sampleManifest(), { newEpoch: { reason } }, [place(30, 1)])).toEqual({
      ...{ epoch: { number: 2, reason }, sequence: 1 },
    });
  });

  test.each([
    [{ sequence: 7 }, "expected more than the current release's 7, found 7"],
    [{ sequence: 3 }, "found 3"],
    [{ sequence: Number.MAX_SAFE_INTEGER }, "`publish --new-epoch REASON` begins at 1 again"],
    [{ newEpoch: { reason: "x", number: 0 }, sequence: 7 }, "found 7"],
  ])("is refused if hosts would refuse it: %j", (request, message) => {
    const failure = failureOf(() => nextPosition(sampleManifest(), request));
    expect(failure.code).toBe("PUBLISH_FAILED");
    expect(failure.message).toContain(message);
  });
});
