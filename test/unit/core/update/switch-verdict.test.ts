import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ActivationResult, SwitchAction } from "../../../../agent/core/ports.ts";
import { NO_FACTS, SwitchOutput } from "../../../../agent/core/update/switch-output.ts";
import {
  failureOf,
  judgeSwitch,
  type SwitchVerdict,
} from "../../../../agent/core/update/switch-verdict.ts";
import { samplePath } from "../../../support/sample-release.ts";

const OLD = samplePath("nixos-system-web1-old");
const NEW = samplePath("nixos-system-web1-new");

interface Run {
  readonly action?: SwitchAction;
  readonly exitCode?: number | null;
  readonly lines?: readonly string[];
  readonly timedOut?: boolean;
  readonly lockHeld?: boolean;
  /** What runs afterwards; by default the new system, if the activation was begun. */
  readonly after?: string | null;
  readonly before?: string | null;
  readonly known?: readonly string[];
}

const BEGUN = ["stopping the following units: web.service", "activating the configuration..."];

function judge(run: Run): SwitchVerdict {
  const output = new SwitchOutput();
  for (const line of run.lines ?? []) output.take(line);
  const facts = output.facts();
  const { exitCode = 0 } = run;
  const result: ActivationResult = {
    exitCode: run.timedOut ? null : exitCode,
    timedOut: run.timedOut ?? false,
    lockHeld: run.lockHeld ?? false,
    facts,
    lastLines: output.lines(),
  };
  const { before = OLD, after = facts.begun ? NEW : before } = run;
  return judgeSwitch({
    ...{ action: run.action ?? "test", toplevel: NEW, result, running: { before, after } },
    knownSnippets: run.known ?? [],
  });
}

const SECRETS = "Activation script snippet 'setupSecrets' failed (1)";
const SCRIPT = "Failed to run activate script";
const SICK = "warning: the following units failed: sick.service";

describe("an activation script that failed", () => {
  test.each([0, 1, 2, 4, 11, 101])("is a failed activation with exit code %i", (exitCode) => {
    expect(judge({ exitCode, lines: [...BEGUN, SECRETS, SCRIPT, SICK] })).toEqual({
      kind: "activationFailed",
      message: "the activation script failed: snippet setupSecrets (1)",
    });
  });

  test("is one too if it names no snippet", () => {
    expect(judge({ exitCode: 4, lines: [...BEGUN, SCRIPT, SICK] })).toEqual({
      kind: "activationFailed",
      message: "the activation script failed",
    });
  });

  test("is no news if the same snippet is recorded to fail in the running system", () => {
    const lines = [...BEGUN, SECRETS, SCRIPT];
    expect(judge({ exitCode: 2, lines, known: ["setupSecrets (1)"] })).toEqual({
      kind: "activatedWithWarnings",
      message: "failed as in the system before: snippet setupSecrets (1)",
    });
    expect(judge({ exitCode: 4, lines: [...lines, SICK], known: ["setupSecrets (1)"] })).toEqual({
      kind: "unitsFailed",
      message:
        "units failed: sick.service; failed as in the system before: snippet setupSecrets (1)",
      jobs: [],
      isNamed: true,
    });
  });

  test.each([["setupSecrets (2)"], ["users (1)"]])(
    "is news if it is %s that is recorded",
    (known) => {
      const verdict = judge({ exitCode: 2, lines: [...BEGUN, SECRETS, SCRIPT], known: [known] });
      expect(verdict.kind).toBe("activationFailed");
    },
  );

  test("is news if another snippet failed beside the known one", () => {
    const another = "Activation script snippet 'users' failed (9)";
    const lines = [...BEGUN, SECRETS, another, SCRIPT];
    expect(judge({ exitCode: 2, lines, known: ["setupSecrets (1)"] })).toEqual({
      kind: "activationFailed",
      message: "the activation script failed: snippet users (9)",
    });
  });

  test("does not make a switch that died on its way an end, however well known it is", () => {
    const lines = [...BEGUN, SECRETS, SCRIPT];
    const verdict = judge({ exitCode: 11, lines, known: ["setupSecrets (1)"] });
    expect(verdict.kind).toBe("activationFailed");
  });
});

describe("exit code 4", () => {
  test("names the failed units, jobs and users, for the state of units to judge", () => {
    expect(
      judge({
        exitCode: 4,
        lines: [
          ...BEGUN,
          "warning: user activation for guest failed",
          "Failed to start web.service",
          SICK,
        ],
      }),
    ).toEqual({
      kind: "unitsFailed",
      message:
        "units failed: sick.service; jobs failed: web.service; user managers could not be switched: guest",
      jobs: ["web.service"],
      isNamed: true,
    });
  });

  test("without a word is failed units too", () => {
    expect(judge({ exitCode: 4, lines: BEGUN })).toEqual({
      kind: "unitsFailed",
      message: "a unit failed to start, stop or reload",
      jobs: [],
      isNamed: false,
    });
  });

  test("of a program that did not get to the new system is half done: it is EINTR", () => {
    expect(judge({ exitCode: 4, lines: BEGUN, after: OLD }).kind).toBe("halfDone");
  });
});

describe("exit code 11", () => {
  test("is the lock if the lock was the only word", () => {
    expect(judge({ exitCode: 11, lines: ["Could not acquire lock"] })).toMatchObject({
      ...{ kind: "notBegun", why: "locked" },
    });
  });

  test("is the lock even if the one who held it moved the running system", () => {
    const verdict = judge({ exitCode: 11, lines: ["Could not acquire lock"], after: NEW });
    expect(verdict).toMatchObject({ kind: "notBegun", why: "locked" });
  });

  test.each<[string, string[]]>([
    ["after units were stopped", ["stopping the following units: web.service"]],
    ["after the activation", [...BEGUN, "Unable to list users with logind: timed out"]],
    ["with nothing said", []],
  ])("is a half done switch %s", (_, lines) => {
    expect(judge({ exitCode: 11, lines })).toMatchObject({ kind: "halfDone", why: "unavailable" });
  });
});

describe("a refusal before anything was touched", () => {
  test("by a check is not begun, and names it", () => {
    const lines = ["Pre-switch check 'disk' failed", "Pre-switch checks failed"];
    for (const action of ["check", "test", "switch", "boot"] as const) {
      expect(judge({ action, exitCode: 1, lines })).toEqual({
        ...{ kind: "notBegun", why: "refused", message: "the pre-switch check disk refused" },
      });
    }
  });

  test("is known by the check's own line, where the program's last one is lost", () => {
    expect(judge({ exitCode: 1, lines: ["Pre-switch check 'disk' failed"] })).toMatchObject({
      ...{ kind: "notBegun", why: "refused" },
    });
  });

  test("by an unnamed check is not begun", () => {
    expect(judge({ exitCode: 1, lines: ["Pre-switch checks failed"] })).toMatchObject({
      ...{ kind: "notBegun", why: "refused", message: "the pre-switch checks refused" },
    });
  });

  test("by a switch inhibitor takes a boot", () => {
    const lines = [
      "Checking switch inhibitors...",
      "There are changes to critical components of the system:",
      "dbus-implementation : dbus -> broker",
      "Pre-switch check 'switchInhibitors' failed",
      "Pre-switch checks failed",
    ];
    expect(judge({ exitCode: 1, lines })).toMatchObject({ kind: "notBegun", why: "inhibited" });
  });

  test("does not count if a switch was begun all the same", () => {
    const lines = ["Pre-switch checks failed", ...BEGUN];
    expect(judge({ exitCode: 1, lines }).kind).toBe("halfDone");
  });
});

describe("a time limit", () => {
  test("that passed while the lock was waited for touched nothing", () => {
    for (const action of ["test", "switch", "boot"] as const) {
      expect(judge({ action, timedOut: true, lockHeld: true })).toMatchObject({
        ...{ kind: "notBegun", why: "locked" },
      });
    }
    expect(judge({ timedOut: true })).toMatchObject({ kind: "notBegun", why: "locked" });
  });

  test.each<[string, Run]>([
    ["after something was said", { lines: ["Checking switch inhibitors... done"] }],
    ["in the boot loader, for all that is known", { action: "switch" }],
    ["with another system running", { after: NEW }],
    ["once units were stopped, whoever holds the lock", { lines: BEGUN, lockHeld: true }],
  ])("that passed %s leaves it half done", (_, run) => {
    expect(judge({ ...run, timedOut: true })).toEqual({
      ...{ kind: "halfDone", message: "it did not finish in its time limit", why: "timeout" },
    });
  });

  test("of a run whose output cannot be read leaves it half done", () => {
    const result = {
      exitCode: null,
      timedOut: true,
      lockHeld: false,
      facts: NO_FACTS,
      lastLines: [],
    };
    const running = { before: OLD, after: OLD };
    expect(
      judgeSwitch({ action: "test", toplevel: NEW, result, running, knownSnippets: [] }).kind,
    ).toBe("halfDone");
  });
});

describe("other ends", () => {
  test("0 is activated, if the system runs", () => {
    expect(judge({ lines: BEGUN })).toEqual({ kind: "activated" });
    expect(judge({ lines: BEGUN, before: null, after: null })).toEqual({ kind: "activated" });
    expect(judge({ lines: BEGUN, after: OLD })).toEqual({
      ...{ kind: "halfDone", why: "fault" },
      message: `it ended with exit code 0, but ${OLD} runs`,
    });
  });

  test.each(["boot", "check", "dry-activate"] as const)("0 of %s is done", (action) => {
    expect(judge({ action })).toEqual({ kind: "activated" });
  });

  test("100 needs a reboot, as does the word without the number", () => {
    expect(judge({ exitCode: 100 })).toEqual({ kind: "rebootNeeded" });
    const lines = ["won't take effect until you reboot the system."];
    expect(judge({ exitCode: 1, lines })).toEqual({ kind: "rebootNeeded" });
    expect(judge({ exitCode: 100, lines: BEGUN }).kind).toBe("halfDone");
  });

  test("a signal is an interruption", () => {
    expect(judge({ exitCode: null, lines: BEGUN })).toEqual({
      ...{ kind: "interrupted", message: "a signal ended it" },
    });
  });

  test.each<[string, Run, string]>([
    ["1 in the middle", { exitCode: 1, lines: BEGUN }, "exit code 1 (a check"],
    ["an errno", { exitCode: 17, lines: BEGUN }, "exit code 17"],
    ["2 without a failed script", { exitCode: 2, lines: BEGUN }, "exit code 2"],
    ["101", { exitCode: 101, lines: BEGUN }, "(it crashed)"],
    ["a panic", { exitCode: 1, lines: ["thread 'main' panicked at src"] }, "it crashed"],
    [
      "a boot loader that failed",
      { action: "boot", exitCode: 17, lines: ["Failed to install bootloader"] },
      "the boot loader could not be installed",
    ],
  ])("%s is half done", (_, run, words) => {
    const verdict = judge(run);
    expect(verdict).toMatchObject({ kind: "halfDone", why: "fault" });
    expect(failureOf(verdict)).toContain(words);
  });

  test.each<[Run, string]>([
    [
      { exitCode: 1, lines: BEGUN },
      "exit code 1 (a check, the boot loader or any other step failed)",
    ],
    [
      { exitCode: 2, lines: BEGUN },
      "exit code 2 (the activation script failed, or a file was missing)",
    ],
    [
      { exitCode: 11, lines: BEGUN },
      "exit code 11 (the lock or another resource was not to be had)",
    ],
    [{ exitCode: 101, lines: BEGUN }, "exit code 101 (it crashed)"],
    [{ exitCode: 17, lines: BEGUN }, "exit code 17"],
    [
      { exitCode: 4, lines: BEGUN, after: OLD },
      `exit code 4 (a unit or a user's manager failed to start, stop or reload), but ${OLD} runs`,
    ],
    [{ action: "boot", exitCode: 17 }, "exit code 17"],
  ])("%j is said in words", (run, words) => {
    expect(failureOf(judge(run))).toBe(`it ended with ${words}`);
  });

  test.each<[Run, string]>([
    [
      { exitCode: 11, lines: ["Could not acquire lock"] },
      "another switch-to-configuration holds the lock",
    ],
    [{ timedOut: true }, "another switch-to-configuration holds the lock, all the time"],
    [
      {
        exitCode: 1,
        lines: ["There are changes to critical components", "Pre-switch checks failed"],
      },
      "a switch inhibitor changed, so that it takes a boot",
    ],
    [
      {
        exitCode: 1,
        lines: [
          ...["Pre-switch check 'disk' failed", "Pre-switch check 'net' failed"],
          "Pre-switch checks failed",
        ],
      },
      "the pre-switch check disk, net refused",
    ],
    [
      { exitCode: 2, lines: [...BEGUN, SECRETS, SECRETS.replace("setupSecrets", "users")] },
      "the activation script failed: snippets setupSecrets (1), users (1)",
    ],
    [{ exitCode: 1, lines: ["thread 'main' panicked at src"] }, "it crashed"],
  ])("%j is said as %s", (run, words) => {
    expect(failureOf(judge(run))).toBe(words);
  });

  test("the check and the dry run of a switch that end badly are half done", () => {
    for (const action of ["boot", "check", "dry-activate"] as const) {
      expect(judge({ action, exitCode: 11 })).toMatchObject({
        ...{ kind: "halfDone", why: "unavailable" },
      });
      // What runs afterwards says nothing about them, nor does the activation script.
      expect(judge({ action, lines: [SCRIPT], after: OLD }).kind).toBe("activated");
    }
  });

  test("100 after another system began to run is no mere need of a reboot", () => {
    expect(judge({ exitCode: 100, after: NEW }).kind).toBe("halfDone");
    expect(judge({ exitCode: 100, before: null, after: NEW })).toEqual({ kind: "rebootNeeded" });
  });

  test("failures have words, successes none", () => {
    expect(failureOf(judge({ lines: BEGUN }))).toBeNull();
    expect(failureOf(judge({ exitCode: 4, lines: BEGUN }))).toBeNull();
    expect(failureOf(judge({ exitCode: 100 }))).toBeNull();
    expect(failureOf(judge({ exitCode: null, lines: BEGUN }))).toBe("a signal ended it");
  });
});

describe("whatever a program prints and however it ends", () => {
  const line = fc.constantFrom(
    ...BEGUN,
    ...[SECRETS, SCRIPT, SICK, "Could not acquire lock", "Pre-switch checks failed"],
    ...["Failed to start web.service", "thread 'main' panicked at x", "anything"],
  );
  const run = fc.record({
    action: fc.constantFrom<SwitchAction>("test", "switch"),
    exitCode: fc.constantFrom(0, 1, 2, 4, 11, 17, 100, 101, null),
    lines: fc.array(line, { maxLength: 8 }),
    timedOut: fc.boolean(),
    lockHeld: fc.boolean(),
    after: fc.constantFrom(OLD, NEW),
  });

  test("a begun switch is never called not begun, and a failed script never a success", () => {
    fc.assert(
      fc.property(run, (it) => {
        const { kind } = judge(it);
        if (BEGUN.some((begun) => it.lines.includes(begun))) {
          expect(["notBegun", "rebootNeeded"]).not.toContain(kind);
        }
        // What follows the list of failed units is their status.
        const isStatus = it.lines.indexOf(SICK);
        const said = isStatus < 0 ? it.lines : it.lines.slice(0, isStatus);
        if ((said.includes(SECRETS) || said.includes(SCRIPT)) && !it.timedOut) {
          expect(["activated", "activatedWithWarnings", "unitsFailed"]).not.toContain(kind);
        }
      }),
    );
  });

  test("a system that does not run is never a success", () => {
    fc.assert(
      fc.property(run, (it) => {
        const { kind } = judge({ ...it, after: OLD });
        expect(["activated", "activatedWithWarnings", "unitsFailed"]).not.toContain(kind);
      }),
    );
  });
});
