import { expect, test } from "vitest";
import { counted, formatBytes, formatTable } from "../../../agent/cli/display/output.ts";

test.each([
  [0, "0 paths"],
  [1, "1 path"],
  [2, "2 paths"],
])("%i is counted as %j", (count, text) => {
  expect(counted(count, "path")).toBe(text);
});

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1.0 KiB"],
  [1_717_986_918, "1.6 GiB"],
  [5 * 1024 ** 5, "5120.0 TiB"],
])("%i bytes are %j", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test("columns are as wide as their widest cell, and lines end without blanks", () => {
  expect(formatTable([["a", "bb", ""], ["ccc"], ["d", "e", "f"]])).toBe("a    bb\nccc\nd    e   f");
});
