import { expect, test } from "vitest";
import { formatTable } from "../../../agent/cli/display/output.ts";

test("columns are as wide as their widest cell, and lines end without blanks", () => {
  expect(formatTable([["a", "bb", ""], ["ccc"], ["d", "e", "f"]])).toBe("a    bb\nccc\nd    e   f");
});
