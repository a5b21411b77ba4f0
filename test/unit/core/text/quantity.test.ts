import { expect, test } from "vitest";
import {
  counted,
  formatBytes,
  formatPart,
  formatRate,
} from "../../../../agent/core/text/quantity.ts";

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

test.each([
  [0, 0, "0 of 0 B"],
  [12, 900, "12 of 900 B"],
  [340 * 1024 ** 2, 812 * 1024 ** 2, "340 of 812 MiB"],
  [300 * 1024 ** 2, 1_717_986_918, "0.3 of 1.6 GiB"],
])("%i of %i bytes are %j: both in the unit of the whole", (done, total, text) => {
  expect(formatPart(done, total)).toBe(text);
});

test("a rate is whole bytes a second", () => {
  expect([formatRate(0.4), formatRate(12.5 * 1024 ** 2)]).toEqual(["0 B/s", "12.5 MiB/s"]);
});
