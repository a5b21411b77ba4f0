import { afterEach, expect, test, vi } from "vitest";
import { ProgressLine, formatTable, note } from "../../../agent/cli/display/output.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

test("columns are as wide as their widest cell, and lines end without blanks", () => {
  expect(formatTable([["a", "bb", ""], ["ccc"], ["d", "e", "f"]])).toBe("a    bb\nccc\nd    e   f");
});

test("a line never stands in the line of progress that nobody cleared", () => {
  const isTerminal = Object.getOwnPropertyDescriptor(process.stderr, "isTTY");
  Object.defineProperty(process.stderr, "isTTY", { value: true, configurable: true });
  const written: unknown[] = [];
  vi.spyOn(process.stderr, "write").mockImplementation((text) => written.push(text) > 0);
  try {
    const line = new ProgressLine();
    line.show("building");
    note("nixos-pull: BUILD_FAILED");
    note("and more");
    line.clear();
    line.show("again");
    line.clear();
    note("done");
  } finally {
    if (isTerminal) Object.defineProperty(process.stderr, "isTTY", isTerminal);
    else Reflect.deleteProperty(process.stderr, "isTTY");
  }
  const erase = "\r\u001b[K";
  expect(written.join("")).toBe(
    `${erase}building\nnixos-pull: BUILD_FAILED\nand more\n${erase}again${erase}done\n`,
  );
});
