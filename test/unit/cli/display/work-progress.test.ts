import { expect, test } from "vitest";
import { WorkProgress } from "../../../../agent/cli/display/work-progress.ts";

const MIB = 1024 ** 2;

function world(isTerminal: boolean) {
  const shown: string[] = [];
  const said: string[] = [];
  const clock = { ms: 0 };
  const line = { show: (text: string) => shown.push(text), clear: () => shown.push("") };
  const progress = new WorkProgress({
    ...{ isTerminal, line, now: () => clock.ms },
    say: (text) => said.push(text),
  });
  const hear = (at: number, mib: number): void => {
    clock.ms = at;
    progress.hear("copy", { what: "copying 3 archives", done: mib * MIB, of: 100 * MIB });
  };
  return { progress, hear, shown, said };
}

test("a terminal sees bytes, rate and time left in one line", () => {
  const { progress, hear, shown, said } = world(true);
  hear(0, 0);
  hear(2_000, 20);
  progress.aside("building '/nix/store/…'");
  progress.clear();
  expect(shown).toEqual([
    "copying 3 archives: 0 of 100 MiB",
    "copying 3 archives: 20 of 100 MiB, 10.0 MiB/s, 8 s left",
    "building '/nix/store/…'",
    "",
  ]);
  expect(said).toEqual([]);
});

test("elsewhere a plain line comes now and then, and nothing of other programs", () => {
  const { progress, hear, shown, said } = world(false);
  hear(0, 0);
  hear(20_000, 20);
  hear(31_000, 31);
  progress.aside("building '/nix/store/…'");
  hear(45_000, 45);
  hear(62_000, 62);
  expect(said).toEqual([
    "copying 3 archives: 31 of 100 MiB, 1.0 MiB/s, 69 s left",
    "copying 3 archives: 62 of 100 MiB, 1.0 MiB/s, 38 s left",
  ]);
  expect(shown).toEqual([]);
});

test("the rate of one part is not that of the next", () => {
  const { progress, hear, shown } = world(true);
  hear(0, 0);
  hear(2_000, 90);
  progress.hear("pack", { what: "packing web1", done: 1, of: MIB, count: "1 of 2 paths" });
  expect(shown.at(-1)).toBe("packing web1: 1 of 2 paths, 0.0 of 1.0 MiB");
});
