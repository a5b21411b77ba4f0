import { expect, test } from "vitest";
import { freedIn } from "../../../../agent/effects/nix/nix-programs.ts";

test("what a collection freed is read from Nix's last line", () => {
  expect(freedIn("deleting '/nix/store/a'\n3 store paths deleted, 1.50 MiB freed\n")).toBe(
    1_572_864,
  );
  expect(freedIn("0 store paths deleted, 0.00 MiB freed\n")).toBe(0);
  expect(freedIn("finding garbage collector roots...\n")).toBeNull();
});
