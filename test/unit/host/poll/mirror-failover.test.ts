import { describe, expect, test } from "vitest";
import { ERROR_KINDS, PullError, type ErrorCode } from "../../../../agent/core/errors.ts";
import type { Mirror } from "../../../../agent/core/ports.ts";
import { MirrorStandings } from "../../../../agent/host/poll/mirror-standings.ts";
import { withFailover } from "../../../../agent/host/poll/mirror-failover.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { ArchiveMirror } from "../../../support/archive-mirror.ts";
import { recordingLog } from "../../../support/recording-log.ts";

const MIRRORS = ["one", "two", "three"].map(
  (address) => new ArchiveMirror(address, { archives: new Map() }),
);

/** Tries the mirrors, which fail with these codes, or serve. */
async function tried(...outcomes: (ErrorCode | "ok")[]) {
  const asked: string[] = [];
  const heard: string[] = [];
  const log = recordingLog();
  const result = withFailover(
    {
      mirrors: MIRRORS.slice(0, outcomes.length),
      log,
      onArchiveRead: (mirror, error) => heard.push(`${mirror}: ${error?.code ?? "ok"}`),
    },
    async ({ address }) => {
      const outcome = outcomes[asked.length] ?? "ok";
      asked.push(address);
      if (outcome === "ok") return `from ${address}`;
      throw new PullError(outcome, `no (${outcome})`);
    },
  );
  await result.catch(() => undefined);
  return { result, asked, heard, lines: log.lines };
}

/** The codes for which another mirror is asked. */
const MIRRORS_FAULT: ErrorCode[] = [
  ...(["MIRROR_UNREACHABLE", "MIRROR_ABSENT", "MIRROR_NOT_FOUND", "MIRROR_STATUS"] as const),
  ...(["MIRROR_STALLED", "MIRROR_SLOW", "MIRROR_TLS", "MIRROR_REDIRECT"] as const),
  ...(["MIRROR_OVERSIZE", "ARCHIVE_TRUNCATED", "ARCHIVE_PARTIAL", "ARCHIVE_CORRUPT"] as const),
  ...(["ARCHIVE_MEMBER", "NARINFO_MISMATCH", "IO_FAILED", "PERMISSION_DENIED"] as const),
];

test("nobody has to listen", async () => {
  const tools = { mirrors: MIRRORS.slice(0, 2), log: recordingLog() };
  const from = await withFailover(tools, async ({ address }) => {
    if (address === "one") throw new PullError("MIRROR_TLS", "no");
    return address;
  });
  expect(from).toBe("two");
});

test("the first mirror that serves is the last one asked", async () => {
  const { result, asked, heard, lines } = await tried("MIRROR_TLS", "ok", "ok");
  expect(await result).toBe("from two");
  expect(asked).toEqual(["one", "two"]);
  expect(heard).toEqual(["one: MIRROR_TLS", "two: ok"]);
  expect(lines).toEqual([
    {
      level: "warn",
      message: "one: no (MIRROR_TLS); the next mirror is tried",
      fields: { code: "MIRROR_TLS" },
    },
  ]);
});

test.each(Object.keys(ERROR_KINDS) as ErrorCode[])("%s asks the next, or ends it", async (code) => {
  const { result, asked, heard } = await tried(code, "ok");
  if (MIRRORS_FAULT.includes(code)) {
    expect(await result).toBe("from two");
    expect(heard).toEqual([`one: ${code}`, "two: ok"]);
  } else {
    expect((await rejectionOf(result)).message).toBe(`no (${code})`);
    expect(asked).toEqual(["one"]);
    // It says nothing about the mirror.
    expect(heard).toEqual([]);
  }
});

describe("what is known of mirrors", () => {
  const nobody = async (): Promise<never> => {
    throw new PullError("MIRROR_UNREACHABLE", "no");
  };
  const addressesOf = (mirrors: readonly Mirror[]): string[] =>
    mirrors.map(({ address }) => address);

  test("puts those that failed last, and gives them their place back", () => {
    const standings = new MirrorStandings();
    expect(addressesOf(standings.order(MIRRORS))).toEqual(["one", "two", "three"]);
    standings.heard("one", new PullError("MIRROR_STALLED", "no"));
    standings.heard("two", null);
    expect(addressesOf(standings.order(MIRRORS))).toEqual(["two", "three", "one"]);
    standings.heard("one", null);
    expect(addressesOf(standings.order(MIRRORS))).toEqual(["one", "two", "three"]);
  });

  test("is used and learned", async () => {
    const standings = new MirrorStandings();
    const tools = { mirrors: MIRRORS, standings, log: recordingLog() };
    const asked: string[] = [];
    const read = async ({ address }: Mirror): Promise<string> => {
      asked.push(address);
      return address === "one" ? nobody() : address;
    };
    expect(await withFailover(tools, read)).toBe("two");
    expect(await withFailover(tools, read)).toBe("two");
    expect(asked).toEqual(["one", "two", "two"]);
    await expect(withFailover(tools, nobody)).rejects.toThrow("two: no; three: no; one: no");
  });
});

describe("when all have failed", () => {
  test("the error says what each of them did, with the last one's code and cause", async () => {
    const { result, heard, lines } = await tried("MIRROR_TLS", "MIRROR_SLOW", "ARCHIVE_CORRUPT");
    const failure = await rejectionOf(result);
    expect(failure.code).toBe("ARCHIVE_CORRUPT");
    expect(failure.message).toBe(
      "one: no (MIRROR_TLS); two: no (MIRROR_SLOW); three: no (ARCHIVE_CORRUPT)",
    );
    expect(failure.cause).toMatchObject({ message: "no (ARCHIVE_CORRUPT)" });
    expect(heard).toHaveLength(3);
    // Nobody is told of a next mirror after the last.
    expect(lines).toHaveLength(2);
  });

  test("a single one's error is thrown as it is", async () => {
    const { result, lines } = await tried("MIRROR_ABSENT");
    expect((await rejectionOf(result)).message).toBe("no (MIRROR_ABSENT)");
    expect(lines).toEqual([]);
  });

  test("without any there is an error too", async () => {
    const failure = await rejectionOf((await tried()).result);
    expect(failure).toMatchObject({
      code: "MIRROR_UNREACHABLE",
      message: "no mirror is configured",
    });
  });
});
