import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { escapeJson, sanitize, sanitizeLines } from "../../../../agent/core/text/sanitize.ts";

describe("sanitize", () => {
  it("leaves what people write as it is", () => {
    const text = "× Größe 1,6 GiB — „gut“ 日本 🙂";
    expect(sanitize(text)).toBe(text);
  });

  it("lets nothing through that moves a cursor, hides or turns text", () => {
    expect(sanitize("\u001b[31mred\u0007\r\nx\u202egnp\u200b\u2028")).toBe(
      "\ufffd[31mred\ufffd\ufffd\ufffdx\ufffdgnp\ufffd\ufffd",
    );
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.nat(50), (text, max) => {
        const shown = sanitize(text, max + 1);
        expect(shown.length).toBeLessThanOrEqual(max + 1);
        expect(shown).not.toMatch(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]|\p{Surrogate}/u);
      }),
    );
  });

  it("gives a tab as a space", () => {
    expect(sanitize("a\tb\t")).toBe("a b ");
  });

  it("cuts after so many characters and says so", () => {
    expect(sanitize("abcdef", 4)).toBe("abc…");
    expect(sanitize("abcd", 4)).toBe("abcd");
    // Not in the middle of a character: of 🙂, which is two long, nothing is left.
    expect(sanitize("ab🙂cdef", 4)).toBe("ab…");
    expect(sanitize("x".repeat(2_001))).toBe(`${"x".repeat(1_999)}…`);
  });
});

const HOSTILE = "\u001b]0;owned\u0007 \u009b2J \u202etxt.exe\u2066 \u061c \u007f";

describe("text of several lines", () => {
  it("keeps its lines and tabs, and nothing else that a terminal obeys", () => {
    expect(sanitizeLines("one\n\ttwo\r\n")).toBe("one\n\ttwo\ufffd\n");
    expect(sanitizeLines(HOSTILE)).toBe(
      "\ufffd]0;owned\ufffd \ufffd2J \ufffdtxt.exe\ufffd \ufffd \ufffd",
    );
    expect(sanitizeLines("x".repeat(5_000))).toHaveLength(5_000);
  });
});

describe("JSON for a terminal", () => {
  it("has the same value, and no character that a terminal obeys", () => {
    expect(escapeJson(JSON.stringify({ a: HOSTILE }))).toBe(
      String.raw`{"a":"\u001b]0;owned\u0007 \u009b2J \u202etxt.exe\u2066 \u061c \u007f"}`,
    );
    fc.assert(
      fc.property(fc.jsonValue(), fc.string({ unit: "binary" }), (value, text) => {
        const json = escapeJson(JSON.stringify({ value, text, HOSTILE }, null, 2));
        expect(JSON.parse(json)).toEqual(JSON.parse(JSON.stringify({ value, text, HOSTILE })));
        expect(json).not.toMatch(/[^\P{Cc}\n]|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/u);
      }),
    );
  });
});
