import fc from "fast-check";
import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import type { Log } from "../../../../agent/core/ports.ts";
import type { Settings } from "../../../../agent/core/settings.ts";
import { createLog, logStyle, silentLog } from "../../../../agent/effects/host/log.ts";

/** Text with many control characters; fast-check's own "binary" takes seconds to set up. */
const anyText = fc.string({
  unit: fc.nat({ max: 0x17f }).map((code) => String.fromCharCode(code)),
});

/** Sets whether systemd connected standard error to its journal. */
function setJournal(stream: string | undefined): void {
  vi.stubEnv("JOURNAL_STREAM", stream);
  onTestFinished(() => void vi.unstubAllEnvs());
}

function recorded(settings: Partial<Settings["log"]> = {}): { log: Log; lines: () => string[] } {
  let text = "";
  const log = createLog(
    { level: "debug", format: "auto", ...settings },
    { write: (part) => (text += part) },
  );
  // Every entry ends its own line.
  return { log, lines: () => text.split("\n").slice(0, -1) };
}

beforeEach(() => {
  setJournal(undefined);
});

describe("the style", () => {
  test.each<[Settings["log"]["format"], boolean, string | undefined, string]>([
    ["auto", true, undefined, "terminal"],
    ["auto", true, "8:1", "terminal"],
    ["auto", false, "8:1", "journal"],
    ["auto", false, undefined, "json"],
    ["text", true, undefined, "terminal"],
    ["text", false, "8:1", "journal"],
    ["text", false, undefined, "terminal"],
    ["json", true, undefined, "json"],
    ["json", false, "8:1", "json"],
  ])("for format %s, terminal %s, journal %s is %s", (format, isTerminal, journal, style) => {
    setJournal(journal);
    expect(logStyle(format, isTerminal)).toBe(style);
  });
});

describe("JSON lines", () => {
  const logged = (work: (log: Log) => void): Record<string, unknown>[] => {
    const { log, lines } = recorded({ format: "json" });
    work(log);
    return lines().map((line) => JSON.parse(line) as Record<string, unknown>);
  };

  test("have level, time, fields and message, and nothing about the machine", () => {
    const before = Date.now();
    const [entry] = logged((log) => {
      log.warn("careful", { code: "DISK_FULL", free: 12, nested: { a: [1] } });
    });
    const time = entry?.["time"];
    expect(Date.parse(String(time))).toBeGreaterThanOrEqual(before);
    expect(entry).toEqual({
      ...{ level: "warn", time, code: "DISK_FULL", free: 12, nested: { a: [1] }, msg: "careful" },
    });
  });

  test("are one line each, whatever is in them, and give everything back", () => {
    fc.assert(
      fc.property(anyText, fc.string(), (message, value) => {
        const entries = logged((log) => {
          log.info(message, { value });
        });
        expect(entries).toHaveLength(1);
        expect(entries[0]).toMatchObject({ level: "info", msg: message, value });
      }),
      { numRuns: 50 },
    );
  });

  test("take percent signs for what they are", () => {
    const [entry] = logged((log) => {
      log.info("100%d %s %o");
    });
    expect(entry?.["msg"]).toBe("100%d %s %o");
  });
});

describe("journal lines", () => {
  beforeEach(() => {
    setJournal("8:1");
  });

  test("have a priority and no time, which the journal adds itself", () => {
    const { log, lines } = recorded();
    log.debug("one");
    log.info("two");
    log.warn("three");
    log.error("four");
    expect(lines()).toEqual(["<7>one", "<6>two", "<4>three", "<3>four"]);
  });

  test("show code and component, and no other fields", () => {
    const { log, lines } = recorded();
    log.error("it failed", { code: "DISK_FULL", stack: "at x", component: "nix" });
    log.info("plain", { code: 7 });
    expect(lines()).toEqual(["<3>[nix] [DISK_FULL] it failed", "<6>plain"]);
  });

  test("cannot be made to look like others: one entry is one line without control characters", () => {
    fc.assert(
      fc.property(anyText, (message) => {
        const { log, lines } = recorded();
        log.info(message);
        expect(lines()).toHaveLength(1);
        expect(lines()[0]).toMatch(/^<6>[^\u0000-\u001f\u007f-\u009f]*$/);
      }),
    );
    const { log, lines } = recorded();
    log.info("\u001b[31mred\u001b[0m\r\n<0>forged\u009b2J\u0000");
    expect(lines()).toEqual(["<6> [31mred [0m <0>forged 2J "]);
  });

  test("keep letters of all languages", () => {
    const { log, lines } = recorded();
    log.info("größe 日本語 🎉");
    expect(lines()).toEqual(["<6>größe 日本語 🎉"]);
  });
});

describe("terminal lines", () => {
  test("have a time of day and the level", () => {
    const { log, lines } = recorded({ format: "text" });
    log.info("hello");
    log.error("it failed", { code: "DISK_FULL" });
    expect(lines()[0]).toMatch(/^\d\d:\d\d:\d\d info {2}hello$/);
    expect(lines()[1]).toMatch(/^\d\d:\d\d:\d\d error \[DISK_FULL\] it failed$/);
  });

  test("carry no escape sequences of what they report", () => {
    const { log, lines } = recorded({ format: "text" });
    log.warn("\u001b]0;title\u0007\u001b[2J");
    expect(lines()).toHaveLength(1);
    expect(lines()[0]).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
  });
});

describe("the level", () => {
  test.each<[Settings["log"]["level"], string[]]>([
    ["debug", ["debug", "info", "warn", "error"]],
    ["info", ["info", "warn", "error"]],
    ["warn", ["warn", "error"]],
    ["error", ["error"]],
  ])("%s lets %j through", (level, expected) => {
    const { log, lines } = recorded({ format: "json", level });
    for (const name of ["debug", "info", "warn", "error"] as const) log[name](name);
    expect(lines().map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual(expected);
  });
});

test("the silent log can be called and says nothing", () => {
  const spy = vi.spyOn(process.stderr, "write").mockImplementation(() => true);
  onTestFinished(() => {
    spy.mockRestore();
  });
  for (const name of ["debug", "info", "warn", "error"] as const) silentLog[name]("x", {});
  expect(spy).not.toHaveBeenCalled();
});
