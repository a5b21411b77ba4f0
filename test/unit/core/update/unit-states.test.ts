import { describe, expect, test } from "vitest";
import {
  lastingUnits,
  missingUnits,
  withoutIgnored,
  type UnitState,
} from "../../../../agent/core/update/unit-states.ts";

/** A service that was stopped and is not started again. */
function stopped(unit: string, more: Partial<UnitState> = {}): UnitState {
  const state = { unit, load: "loaded", active: "inactive", type: "simple", result: "success" };
  return { ...state, remains: false, conditionMet: true, onDemand: false, ...more };
}

const missing = (state: UnitState, { job = false } = {}): string[] =>
  missingUnits(
    job ? { wereActive: [], jobs: ["a.service"] } : { wereActive: ["a.service"], jobs: [] },
    [state],
  );

describe("a unit that was active and is not", () => {
  test("is missing", () => {
    expect(missing(stopped("a.service"))).toEqual(["a.service"]);
    expect(missing(stopped("a.service", { active: "failed", result: "exit-code" }))).toEqual([
      "a.service",
    ]);
  });

  test.each<[string, Partial<UnitState>]>([
    ["runs", { active: "active" }],
    ["is being started", { active: "activating" }],
    ["is reloading", { active: "reloading" }],
    ["is refreshed", { active: "refreshing" }],
    ["is gone with the new system", { load: "not-found" }],
    ["is masked there", { load: "masked" }],
    ["is a finished oneshot", { type: "oneshot" }],
    ["has a condition that is not met", { conditionMet: false }],
    ["is started when it is wanted", { onDemand: true }],
  ])("is as it should be if it %s", (_, more) => {
    expect(missing(stopped("a.service", more))).toEqual([]);
  });

  test("is missing if it is a oneshot that would still be active if it had finished", () => {
    expect(missing(stopped("a.service", { type: "oneshot", remains: true }))).toEqual([
      "a.service",
    ]);
  });

  test("is missing if it is a oneshot that failed", () => {
    const failed = stopped("a.service", { type: "oneshot", active: "failed", result: "exit-code" });
    expect(missing(failed)).toEqual(["a.service"]);
  });
});

describe("a unit that a failed job names", () => {
  test("is missing, though it was not active before, and though it is a oneshot", () => {
    expect(missing(stopped("a.service"), { job: true })).toEqual(["a.service"]);
    expect(missing(stopped("a.service", { type: "oneshot" }), { job: true })).toEqual([
      "a.service",
    ]);
  });

  test.each<[string, Partial<UnitState>]>([
    ["runs by now", { active: "active" }],
    ["has a condition that is not met", { conditionMet: false }],
    ["is not there at all", { load: "not-found" }],
  ])("is as it should be if it %s", (_, more) => {
    expect(missing(stopped("a.service", more), { job: true })).toEqual([]);
  });
});

test("several units are named in the order of their names", () => {
  const states = ["b.service", "a.service"].map((unit) => stopped(unit));
  expect(missingUnits({ wereActive: ["b.service"], jobs: ["a.service"] }, states)).toEqual([
    ...["a.service", "b.service"],
  ]);
});

test("units that nobody expects are not looked at", () => {
  expect(missingUnits({ wereActive: [], jobs: [] }, [stopped("a.service")])).toEqual([]);
});

test("of active units those are lasting that a host has for itself", () => {
  expect(
    lastingUnits([
      ...["worker@3.service", "web.socket", "data.mount", "multi-user.target", "backup.timer"],
      ...["session-3.scope", "user@0.service", "run-u7.service", "dev-sda.device", "-.slice"],
      ...["systemd-logind.service", "nixos-pull.service", "nixos-pull-switch.service"],
      ...["a.service.d", "my-run-x.service", "my-nixos-pull.service"],
    ]),
  ).toEqual([
    ...["backup.timer", "data.mount", "multi-user.target", "my-nixos-pull.service"],
    ...["my-run-x.service", "web.socket", "worker@3.service"],
  ]);
});

describe("ignored units", () => {
  test.each<[string[], string[]]>([
    [[], ["a.service", "b@1.service", "axservice"]],
    [["a.service"], ["b@1.service", "axservice"]],
    [["b@*.service"], ["a.service", "axservice"]],
    [["?.service"], ["b@1.service", "axservice"]],
    [["*"], []],
    [
      ["[ab].service", "(", "a+"],
      ["a.service", "b@1.service", "axservice"],
    ],
  ])("by %j leave %j", (globs, left) => {
    expect(withoutIgnored(["a.service", "b@1.service", "axservice"], globs)).toEqual(left);
  });
});
