import { describe, expect, test } from "vitest";
import {
  BoundedOutput,
  LineSplitter,
  lastLines,
} from "../../../../agent/effects/process/bounded-output.ts";

describe("bounded output", () => {
  const kept = (keep: "keepStart" | "keepEnd", limit: number, ...texts: string[]): string => {
    const output = new BoundedOutput(limit);
    for (const text of texts) output[keep](Buffer.from(text));
    return output.text();
  };

  test("keeps its start, or its end", () => {
    expect(kept("keepStart", 4, "abc", "def", "ghi")).toBe("abcd");
    expect(kept("keepEnd", 4, "abc", "def", "ghi")).toBe("fghi");
    expect(kept("keepStart", 9, "abc", "def")).toBe("abcdef");
    expect(kept("keepEnd", 9, "abc", "def")).toBe("abcdef");
  });

  test("leaves out a character that the limit cuts in two", () => {
    expect(kept("keepStart", 4, "aüü")).toBe("aü");
    expect(kept("keepEnd", 4, "üüa")).toBe("üa");
  });
});

test("lines come whole, however the bytes are cut; one that is too long comes in pieces", () => {
  const lines: string[] = [];
  const splitter = new LineSplitter((line) => lines.push(line), 5);
  for (const byte of Buffer.from("ab\n\nücd\n0123456789ab\nlast")) splitter.take(Buffer.of(byte));
  splitter.end();
  expect(lines).toEqual(["ab", "", "ücd", "01234", "56789", "ab", "last"]);
});

test("the last lines are those that are not empty", () => {
  expect(lastLines("a\n\nb  \r\n   \nc", 2)).toEqual(["b", "c"]);
  expect(lastLines("", 2)).toEqual([]);
  expect(lastLines("a", 5)).toEqual(["a"]);
});
