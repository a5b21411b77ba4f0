import { expect, test } from "vitest";
import { describeProgress } from "../../../../agent/cli/display/progress.ts";

const MIB = 1024 ** 2;

test.each([
  [null, "340 of 812 MiB"],
  [12 * MIB, "340 of 812 MiB, 12.0 MiB/s, 39 s left"],
  [0, "340 of 812 MiB, 0 B/s"],
])("at %s bytes a second", (rate, text) => {
  expect(describeProgress({ received: 340 * MIB, total: 812 * MIB }, rate)).toBe(text);
});
