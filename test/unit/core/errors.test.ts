import { mkdir, readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import {
  ERROR_CODES,
  ERROR_KINDS,
  EXIT,
  PullError,
  toPullError,
} from "../../../agent/core/errors.ts";

describe("a code", () => {
  test("has an exit code that is listed, and never that of success or of a usage by another", () => {
    const listed: number[] = Object.values(EXIT);
    for (const code of ERROR_CODES) {
      expect(listed).toContain(ERROR_KINDS[code].exit);
      expect(ERROR_KINDS[code].exit).not.toBe(EXIT.ok);
      expect(ERROR_KINDS[code].exit).not.toBe(EXIT.updateAvailable);
    }
  });

  test("has a meaning of its own in one line", () => {
    const meanings = ERROR_CODES.map((code) => ERROR_KINDS[code].meaning);
    expect(new Set(meanings).size).toBe(meanings.length);
    for (const meaning of meanings) expect(meaning).toMatch(/^\S[^\n]{5,90}\S$/);
  });

  test("gives its errors their exit code and whether trying again can help", () => {
    const error = new PullError("DISK_FULL", "expected 5 bytes, found 4");
    expect(error).toMatchObject({
      ...{ name: "PullError", code: "DISK_FULL", exitCode: EXIT.host, transient: true },
    });
    expect(new PullError("KEY_INVALID", "x").transient).toBe(false);
  });
});

describe("an agent that fails", () => {
  /** These may go away by themselves: the agent tries again. All others need a person. */
  const TRANSIENT = [
    ...["CREDENTIAL_UNREADABLE", "MANIFEST_EXPIRED", "CLOCK_BEHIND", "CLOCK_IMPLAUSIBLE"],
    ...["MIRROR_STALE", "MIRROR_UNREACHABLE", "MIRROR_ABSENT", "MIRROR_NOT_FOUND"],
    ...["MIRROR_STATUS", "MIRROR_STALLED", "MIRROR_SLOW", "MIRROR_TLS", "MIRROR_REDIRECT"],
    ...["MIRROR_OVERSIZE", "ARCHIVE_TRUNCATED", "ARCHIVE_PARTIAL", "ARCHIVE_CORRUPT"],
    ...["ARCHIVE_MEMBER", "NARINFO_MISMATCH", "IMPORT_FAILED", "DISK_FULL"],
    ...["PERMISSION_DENIED", "IO_FAILED", "TOOL_MISSING", "TOOL_TIMEOUT", "PROFILE_FAILED"],
    ...["ACTIVATION_TIMEOUT", "DEADLINE_PASSED", "RESTART_LOOP"],
    "STORE_DAMAGED",
    ...["ACTIVATION_INTERRUPTED", "SWITCH_LOCKED", "HEALTH_MIRROR", "ROLLBACK_FAILED"],
    ...["BOOT_LOADER_FAILED", "BOOT_NOT_TRIED", "REBOOT_BLOCKED", "HEALTH_UNBLAMED"],
    ...[
      "HOOK_FAILED",
      "REBOOT_REFUSED",
      "AGENT_RUNNING",
      "AGENT_BUSY",
      "AGENT_HUNG",
      "PUBLISH_LOCKED",
    ],
    "INTERRUPTED",
  ];

  test("tries again for these reasons, and for no other", () => {
    const found = ERROR_CODES.filter((code) => new PullError(code, "").transient);
    expect(found.toSorted()).toEqual(TRANSIENT.toSorted());
  });

  test("ends with the exit codes that the documents name", () => {
    expect(EXIT).toEqual({
      ...{ ok: 0, internal: 1, usage: 2, configuration: 3, trust: 4, mirror: 5, archive: 6 },
      ...{
        host: 7,
        activation: 8,
        busy: 9,
        publish: 10,
        waiting: 11,
        keptGoing: 12,
        updateAvailable: 20,
      },
      ...{ fleetTroubled: 21, unwell: 22, untried: 23, interrupted: 130 },
    });
  });
});

describe("anything that is thrown becomes a PullError", () => {
  async function thrownBy(work: () => Promise<unknown>): Promise<unknown> {
    try {
      await work();
    } catch (thrown) {
      return thrown;
    }
    throw new Error("nothing was thrown");
  }

  test("which stays itself where it is one", () => {
    const error = new PullError("DISK_FULL", "x");
    expect(toPullError(error)).toBe(error);
  });

  test("of the operating system, by its number, with the cause kept", async () => {
    const cause = await thrownBy(() => readFile("/nowhere/at/all"));
    const error = toPullError(cause);
    expect(error).toMatchObject({ code: "IO_FAILED", cause });
    expect(error.message).toContain("/nowhere/at/all");
    expect(toPullError(await thrownBy(() => mkdir("/proc/x"))).code).toMatch(
      /^IO_FAILED$|^PERMISSION/,
    );
  });

  test.each([
    ["ENOSPC", "DISK_FULL"],
    ["EDQUOT", "DISK_FULL"],
    ["EACCES", "PERMISSION_DENIED"],
    ["EPERM", "PERMISSION_DENIED"],
    ["EROFS", "PERMISSION_DENIED"],
    ["EIO", "IO_FAILED"],
  ])("of the operating system: %s is %s", (errno, code) => {
    const error = Object.assign(new Error(`${errno}: write`), { code: errno, syscall: "write" });
    expect(toPullError(error).code).toBe(code);
  });

  test("by an abort is INTERRUPTED", () => {
    const abort = new AbortController();
    abort.abort();
    const error = toPullError(abort.signal.reason);
    expect(error).toMatchObject({ code: "INTERRUPTED", cause: abort.signal.reason });
    expect(error.message).toBe("stopped before it was finished");
  });

  test("of our own making, or no error at all, is INTERNAL", () => {
    const cause = new TypeError("x is not a function");
    expect(toPullError(cause)).toMatchObject({ code: "INTERNAL", message: cause.message, cause });
    expect(toPullError(Object.assign(new Error("y"), { code: "ERR_X" })).code).toBe("INTERNAL");
    // A system call without a number, as some libraries throw.
    const odd = Object.assign(new Error("z"), { syscall: "read" });
    expect(toPullError(odd)).toMatchObject({ code: "INTERNAL", message: "z", cause: odd });
    expect(toPullError("text")).toMatchObject({ code: "INTERNAL", message: "text" });
    expect(toPullError(undefined).code).toBe("INTERNAL");
  });
});
