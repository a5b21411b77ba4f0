import { expect, test } from "vitest";
import { errorTextIn } from "../../../../agent/operator/publish/nix-builder.ts";

const OPTION = "error: The option `services.nope' does not exist. Definition values:";

test("the error of Nix 2.8 is at the start of a line, and goes on indented", () => {
  const stderr = `warning: unclean\n${OPTION}\n       - In \`/etc/db1.nix': 1\n(use '--show-trace' to show detailed location information)\n`;
  expect(errorTextIn(stderr)).toBe(`${OPTION} | - In \`/etc/db1.nix': 1`);
});

test("the error of Nix 2.26 comes after the trace, indented as a whole", () => {
  const stderr = [
    "warning: the group 'nixbld' does not exist",
    "error:",
    "       … while evaluating the attribute 'deep'",
    "",
    "       … while calling the 'throw' builtin",
    "         at /root/m.nix:3:25:",
    "            2|   set = 1;",
    "             |   ^",
    "",
    `       ${OPTION}`,
    "       - In `/etc/db1.nix': 1",
    "",
  ].join("\n");
  expect(errorTextIn(stderr)).toBe(`${OPTION} | - In \`/etc/db1.nix': 1`);
});

test("of a build the first error is the reason, with the last lines of its log", () => {
  const builder = "error: builder for '/nix/store/a.drv' failed with exit code 1;";
  const stderr = [
    builder,
    "       last 1 log lines:",
    "       > oops",
    "       For full logs, run 'nix log /nix/store/a.drv'.",
    "error: 1 dependencies of derivation '/nix/store/b.drv' failed to build",
  ].join("\n");
  expect(errorTextIn(stderr)).toBe(`${builder} | last 1 log lines: | > oops`);
});

test("of a long log the last lines are told", () => {
  const log = Array.from({ length: 10 }, (_, at) => `       > line ${at}`);
  const stderr = ["error: builder for 'a' failed", "       last 10 log lines:", ...log].join("\n");
  expect(errorTextIn(stderr)).toBe(
    "error: builder for 'a' failed | last 10 log lines: | … | > line 4 | > line 5 | > line 6 | > line 7 | > line 8 | > line 9",
  );
});

test("a long error is cut, and there may be none", () => {
  const lines = Array.from({ length: 30 }, (_, at) => `       line ${at}`);
  expect(errorTextIn(["error: long", ...lines].join("\n"))).toMatch(
    /^error: long \| .*line 6 \| …$/,
  );
  expect(errorTextIn("killed\n")).toBeNull();
});
