import { expect, test } from "vitest";
import { describeEntry } from "../../../../agent/cli/display/history.ts";

const AT = "2026-11-24T12:00:00.000Z";

test("a rollback is shown as leading away from the system that it left", () => {
  const entry = { at: AT, state: "RolledBack", sequence: 2, toplevel: "/nix/store/a-two" };
  expect(describeEntry({ ...entry, event: "RollbackSucceeded" })).toEqual([
    expect.stringMatching(/ 2 {2}RollbackSucceeded +away from \/nix\/store\/a-two$/),
  ]);
  expect(describeEntry({ ...entry, event: "ReleaseCommitted", lastLines: ["a"] })).toEqual([
    expect.stringMatching(/ReleaseCommitted +\/nix\/store\/a-two$/),
    "      | a",
  ]);
});
