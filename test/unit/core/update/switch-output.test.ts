import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  NO_FACTS,
  SwitchOutput,
  isReasonLine,
  tellingLines,
  type SwitchFacts,
} from "../../../../agent/core/update/switch-output.ts";

function outputOf(lines: readonly string[]): SwitchOutput {
  const output = new SwitchOutput();
  for (const line of lines) output.take(line);
  return output;
}
const factsOf = (...lines: string[]): SwitchFacts => outputOf(lines).facts();
const range = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, at) => `line ${from + at}`);

const AB: Partial<SwitchFacts> = { failedUnits: ["a.service", "b.service"] };

describe("the facts in a switch's output", () => {
  test("of one that printed nothing are none", () => {
    const facts = factsOf("", "  ");
    expect(facts).toMatchObject({ lineCount: 0, begun: false, activationScriptFailed: false });
    expect(facts.failedSnippets).toEqual([]);
  });

  test.each<[string, Partial<SwitchFacts>]>([
    ["stopping the following units: web.service", { begun: true }],
    ["activating the configuration...", { begun: true }],
    ["Failed to run activate script", { activationScriptFailed: true }],
    ["Pre-switch checks failed", { checksRefused: true }],
    [
      "Pre-switch check 'disk' failed",
      { checksRefused: true, failedChecks: ["disk"], inhibited: false },
    ],
    [
      "Pre-switch check 'switchInhibitors' failed",
      { inhibited: true, checksRefused: true, failedChecks: ["switchInhibitors"] },
    ],
    ["There are changes to critical components of the system:", { inhibited: true }],
    ["Failed to install bootloader", { bootLoaderFailed: true }],
    ["won't take effect until you reboot the system.", { rebootDemanded: true }],
    [
      "warning: the following units failed: a.service, b@1.service",
      {
        failedUnits: ["a.service", "b@1.service"],
      },
    ],
    ["warning: the following units failed: a.service, , b.service.", AB],
    ["warning: user activation for guest failed", { failedUsers: ["guest"] }],
    ["warning: the following user units failed: web.service", {}],
    ["Failed to start user unit web.service", {}],
    ["Failed to start web.service at once", {}],
    ["Failed to start web.service2", {}],
    ["Failed to stop a.socket", { failedJobs: ["a.socket"] }],
    ["Job for a.service canceled.", { failedJobs: ["a.service"] }],
    ["Job for a.service done.", {}],
    ["thread '<unnamed>' panicked at a", { panicked: true }],
    ["Error: no", {}],
    ["Activation script snippet 'users' failed (1000)", {}],
    [
      "Activation script snippet users failed (127)",
      { activationScriptFailed: true, failedSnippets: [{ name: "users", code: 127 }] },
    ],
    ["Failed to start web.service", { failedJobs: ["web.service"] }],
    [
      "Failed to restart dev-disk-by\\x2dlabel-a.mount",
      {
        failedJobs: ["dev-disk-by\\x2dlabel-a.mount"],
      },
    ],
    ["Failed to reload web@3.service: Unit is masked.", { failedJobs: ["web@3.service"] }],
    [
      "A dependency job for web.service failed. See 'journalctl -xe' for details.",
      {
        failedJobs: ["web.service"],
      },
    ],
    [
      "Job for web.service failed because the control process exited with error code.",
      {
        failedJobs: ["web.service"],
      },
    ],
    ["thread 'main' panicked at src/main.rs:1040:5:", { panicked: true }],
    ["thread 'main' (711) panicked at src/main.rs:1040:5:", { panicked: true }],
    [
      "Activation script snippet 'setupSecrets' failed (1)",
      {
        activationScriptFailed: true,
        failedSnippets: [{ name: "setupSecrets", code: 1 }],
      },
    ],
  ])("%s", (line, facts) => {
    expect(factsOf(line)).toEqual({ ...NO_FACTS, lineCount: 1, ...facts });
    expect(factsOf(`${line}  `)).toEqual(factsOf(line));
  });

  test("are none if there is no output, or none that could be read", () => {
    expect(factsOf()).toEqual({ ...NO_FACTS, lineCount: 0 });
    expect(NO_FACTS.lineCount).toBeNull();
  });

  test("are taken from the first 64 KiB of a line", () => {
    const begin = "warning: the following units failed: ";
    const first = "x".repeat(65_536 - begin.length - ", b".length);
    expect(factsOf(`${begin}${first}, b, c`).failedUnits.slice(1)).toEqual(["b"]);
  });

  test("have names that can be shown, of at most 400 characters", () => {
    const name = `a\u001b[31m${"b".repeat(500)}`;
    const { failedUsers } = factsOf(`warning: user activation for ${name} failed`);
    const { failedSnippets } = factsOf(`Activation script snippet '${name}' failed (1)`);
    for (const shown of [...failedUsers, ...failedSnippets.map((it) => it.name)]) {
      expect(shown).not.toContain("\u001b");
      expect(shown.length).toBeLessThanOrEqual(400);
    }
    expect([failedUsers.length, failedSnippets.length]).toEqual([1, 1]);
  });

  test("are not taken from the middle of a line, such as a failed unit's own log", () => {
    const facts = factsOf(
      "warning: the following units failed: web.service",
      "Nov 30 16:00:00 web1 sh[7]: Failed to run activate script",
      "  Activation script snippet 'users' failed (1)",
      "     echo Pre-switch checks failed",
    );
    expect(facts).toMatchObject({ activationScriptFailed: false, checksRefused: false });
  });

  test("of snippets are found behind a text without an end of line", () => {
    const facts = factsOf(
      "decrypting secrets... Activation script snippet 'setupSecrets' failed (1)",
      "100%\rActivation script snippet 'users' failed (2)",
    );
    expect(facts.failedSnippets).toEqual([
      { name: "setupSecrets", code: 1 },
      { name: "users", code: 2 },
    ]);
    expect(facts.activationScriptFailed).toBe(true);
  });

  test("name a user's units apart from the system's", () => {
    expect(factsOf("Failed to start user unit web.service").failedJobs).toEqual([]);
    expect(factsOf("warning: the following user units failed: web.service").failedUnits).toEqual(
      [],
    );
  });

  test("have each name once, and a bounded number of them", () => {
    expect(factsOf("Failed to start a.service", "Failed to start a.service").failedJobs).toEqual([
      "a.service",
    ]);
    const many = Array.from({ length: 5000 }, (_, at) => `Failed to start a${at}.service`);
    expect(factsOf(...many).failedJobs).toHaveLength(200);
    const snippets = many.map((_, at) => `Activation script snippet 's${at}' failed (1)`);
    expect(factsOf(...snippets).failedSnippets).toHaveLength(200);
  });

  test("say that the lock was refused only if that was the last word", () => {
    expect(factsOf("Could not acquire lock").lockRefused).toBe(true);
    expect(factsOf("Could not acquire lock", "and more").lockRefused).toBe(false);
    expect(factsOf("a warning of the shell", "Could not acquire lock").lockRefused).toBe(true);
  });
});

describe("the lines that are kept", () => {
  test("are all of a short output", () => {
    expect(outputOf(range(1, 20)).lines()).toEqual(range(1, 20));
  });

  test("are the first, the last and those with reasons, and say what is left out", () => {
    const lines = [...range(1, 100), "Failed to start web.service", ...range(102, 200)];
    expect(outputOf(lines).lines()).toEqual([
      ...range(1, 8),
      "(92 lines left out)",
      "Failed to start web.service",
      "(83 lines left out)",
      ...range(185, 200),
    ]);
  });

  test("are cut to 400 characters", () => {
    const [fits, cut] = outputOf(["x".repeat(400), "y".repeat(401)]).lines();
    expect(fits).toBe("x".repeat(400));
    expect(cut).toBe(`${"y".repeat(399)}…`);
  });

  test("have at most 24 with reasons between the first and the last", () => {
    const reasons = Array.from({ length: 30 }, (_, at) => `Error: ${at}`);
    const lines = outputOf([...range(1, 8), ...reasons, ...range(39, 100)]).lines();
    expect(lines).toEqual([
      ...range(1, 8),
      ...reasons.slice(0, 24),
      "(52 lines left out)",
      ...range(85, 100),
    ]);
  });

  test("hold the reason of a failure before a flood of old failures' states", () => {
    const flood = Array.from({ length: 100_000 }, (_, at) => `     Active: failed ${at}`);
    const output = outputOf(["Activation script snippet 'a' failed (1)", ...flood]);
    expect(output.lines()[0]).toBe("Activation script snippet 'a' failed (1)");
    expect(output.lines().length).toBeLessThan(60);
    expect(output.facts().lineCount).toBe(100_001);
  });

  test("are bounded whatever comes", () => {
    const line = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constantFrom("Failed to start a.service", "x".repeat(5000), "Error: no"),
    );
    fc.assert(
      fc.property(fc.array(line, { maxLength: 300 }), (lines) => {
        const output = outputOf(lines);
        expect(output.lines().length).toBeLessThanOrEqual(8 + 24 + 16 + 26);
        expect(Math.max(0, ...output.lines().map((kept) => kept.length))).toBeLessThanOrEqual(400);
      }),
    );
  });
});

describe("the lines that say most", () => {
  test("have reasons before last lines, in their order", () => {
    const lines = ["a", "Failed to run activate script", "b", "Error: no", "c", "d"];
    expect(tellingLines(lines, 3)).toEqual(["Failed to run activate script", "Error: no", "d"]);
    expect(tellingLines(lines, 1)).toEqual(["Failed to run activate script"]);
    expect(tellingLines(lines, 100)).toEqual(lines);
    expect(tellingLines([], 3)).toEqual([]);
  });

  test.each([
    ["Could not acquire lock", true],
    ["Could not open lock", true],
    ["Failed to run activate script", true],
    ["Pre-switch check 'disk' failed", true],
    ["Pre-switch checks failed", true],
    ["There are changes to critical components of the system:", true],
    ["Failed to install bootloader", true],
    ["won't take effect until you reboot the system.", true],
    ["warning: the following units failed: a.service", true],
    ["warning: user activation for guest failed", true],
    ["warning: the following user units failed: a.service", true],
    ["Failed to start user unit a.service", true],
    ["Failed to restart user unit a.service", true],
    ["Failed to reload user unit a.service", true],
    ["Failed to stop user unit a.service", true],
    ["Failed to restart a.service", true],
    ["A dependency job for a.service failed.", true],
    ["Job for a.service failed because of it", true],
    ["Job for a.service canceled.", true],
    ["thread 'main' panicked at src/main.rs:1", true],
    ["thread 'main' (12) panicked at src/main.rs:1", true],
    ["Error: no", true],
    ["Unable to list users with logind", true],
    ["stopping the following units: a.service", false],
    ["Activation script snippet 'a' failed (1)", true],
    ["activating the configuration...", false],
    ["● web.service", false],
  ])("%s: %s", (line, isReason) => {
    expect(isReasonLine(line)).toBe(isReason);
    expect(isReasonLine(`sh[7]: ${line}`)).toBe(false);
  });
});
