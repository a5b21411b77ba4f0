import { describe, expect, test } from "vitest";
import {
  checkWaves,
  parseAssignment,
  parseGroups,
  parseWaves,
  rolloutFor,
  wavesOf,
} from "../../../../agent/operator/channel/rollout-request.ts";
import { failureOf } from "../../../support/failure.ts";

const RELEASE = { channel: "stable", sequence: 7, createdAt: "2026-02-01T00:00:00.000Z" };

describe("waves on the command line", () => {
  test.each<[string, ReturnType<typeof parseWaves>]>([
    ["10%=2h", [{ share: 0.1, after: "2h" }]],
    ["100%=2h+1d12h", [{ share: 1, after: "2h", over: "1d12h" }]],
    [
      "web1+web2+@staging+2.5%=0s",
      [{ hosts: ["web1", "web2"], groups: ["staging"], share: 0.025, after: "0s" }],
    ],
    [
      "@a=1h, 50%=2h,100%=3h",
      [
        { groups: ["a"], after: "1h" },
        { share: 0.5, after: "2h" },
        { share: 1, after: "3h" },
      ],
    ],
  ])("%s", (text, waves) => {
    expect(parseWaves(text)).toEqual(waves);
  });

  test.each([
    ["", "expected WHO=AFTER"],
    ["10%", "expected WHO=AFTER"],
    ["=2h", "expected WHO=AFTER"],
    ["10%=2h,", "expected WHO=AFTER"],
    ["@=2h", "expected a hostname, @GROUP"],
    ["a b=2h", "expected a hostname, @GROUP"],
    ["-5%=2h", "expected a hostname, @GROUP"],
  ])("%j is refused", (text, words) => {
    const { code, message } = failureOf(() => parseWaves(text));
    expect(code).toBe("USAGE");
    expect(message).toContain(words);
  });
});

describe("the options together", () => {
  test("canaries go at the start, and `over` takes all that are left", () => {
    expect(wavesOf({ canary: ["web1", "@canary"], waves: "10%=2h", over: "1d" })).toEqual([
      { hosts: ["web1"], groups: ["canary"], after: "0s" },
      { share: 0.1, after: "2h" },
      { share: 1, after: "2h", over: "1d" },
    ]);
    expect(wavesOf({ canary: [], over: "1d" })).toEqual([{ share: 1, after: "0s", over: "1d" }]);
    expect(wavesOf({ canary: [] })).toBeUndefined();
  });

  test.each([
    [{ canary: ["web1"] }, "when the other hosts go"],
    [{ canary: ["@"], over: "1d" }, "--canary: expected a hostname"],
    [{ canary: [], waves: "100%=1h", over: "1d" }, "each with a greater share"],
    [{ canary: [], waves: "10%=2h,20%=1h" }, "in the order of `after`"],
    [{ canary: [], waves: "150%=1h" }, 'found "150%"'],
    [{ canary: [], waves: "10%=tomorrow" }, "such as 90s"],
  ])("%j is refused", (options, words) => {
    const { code, message } = failureOf(() => wavesOf(options));
    expect(code).toBe("USAGE");
    expect(message).toContain(words);
  });
});

describe("the rollout of a release", () => {
  const waves = [{ share: 1, after: "2h" }];

  test("is none where nobody asks for one", () => {
    expect(rolloutFor({}, RELEASE)).toBeUndefined();
  });

  test("starts when it is published, or not before a time", () => {
    expect(rolloutFor({ waves }, RELEASE)).toEqual({
      ...{ start: RELEASE.createdAt, salt: "stable 7", waves },
    });
    const notBefore = "2026-03-01T00:00:00.000Z";
    expect(rolloutFor({ notBefore }, RELEASE)).toEqual({ start: notBefore, salt: "stable 7" });
  });

  test("of the same systems keeps its order and start, and what is not changed", () => {
    const before = { start: "2026-01-01T00:00:00.000Z", salt: "stable 5", waves };
    expect(rolloutFor({}, RELEASE, before)).toEqual(before);
    const slower = [{ share: 1, after: "2h", over: "7d" }];
    expect(rolloutFor({ waves: slower }, RELEASE, before)).toEqual({ ...before, waves: slower });
    const paused = rolloutFor({ paused: "looking" }, RELEASE, before);
    expect(paused).toEqual({ ...before, paused: { reason: "looking", since: RELEASE.createdAt } });
    const later = { ...RELEASE, sequence: 8, createdAt: "2026-02-02T00:00:00.000Z" };
    expect(rolloutFor({ paused: "found it" }, later, paused)?.paused).toEqual({
      ...{ reason: "found it", since: RELEASE.createdAt },
    });
    expect(rolloutFor({ waves: slower }, later, paused)?.paused).toEqual(paused?.paused);
  });

  test("names hosts and groups that the release has", () => {
    const hosts = { web1: { groups: ["canary"] }, web2: {} };
    const problem = (wave: object): string =>
      failureOf(() => {
        checkWaves([{ ...wave, after: "0s" }], hosts);
      }).message;
    checkWaves([{ hosts: ["web2"], groups: ["canary"], after: "0s" }], hosts);
    expect(problem({ hosts: ["constructor"] })).toBe(
      "rollout: the release names no host constructor",
    );
    expect(problem({ groups: ["canarry"] })).toBe(
      "rollout: no host of the release is in group canarry",
    );
  });
});

test("groups and assignments name a host", () => {
  expect([...parseGroups(["web1=a,b", "web2=a", "web1=b,c"])]).toEqual([
    ["web1", ["a", "b", "c"]],
    ["web2", ["a"]],
  ]);
  expect(parseAssignment("web1=a=b", "--hold", "REASON")).toEqual({
    hostname: "web1",
    value: "a=b",
  });
  for (const text of ["web1", "web1=", "=a", "a b=c"]) {
    expect(failureOf(() => parseAssignment(text, "--hold", "REASON")).code).toBe("USAGE");
  }
  expect(failureOf(() => parseGroups(["web1=A"])).message).toContain('found "A"');
});
