import { appendFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { CommandOutput } from "../../support/nixos-pull.ts";
import { inAttackWorld, type AttackWorld } from "../../support/attack-world.ts";

/**
 * What makes a terminal do something: an escape sequence that sets its title, C1 controls in
 * place of it, and characters that turn the direction of writing.
 */
const HOSTILE = "\u001b]0;owned\u0007\u009b2J\u202etxt.exe\u2066\u061c\u200fend";
const OBEYED = /[^\P{Cc}\n\t]|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/u;

let world: AttackWorld;

inAttackWorld((it) => {
  world = it;
});

function expectHarmless({ stdout, stderr }: CommandOutput): void {
  expect(stdout).not.toMatch(OBEYED);
  expect(stderr).not.toMatch(OBEYED);
}

/** What a switch that failed leaves in the history, whose output was hostile. */
async function rememberSwitchOutput(): Promise<void> {
  const entry = {
    ...{ at: "2026-11-30T12:00:00.000Z", event: "ActivationFailed", state: "RollingBack" },
    ...{ sequence: 2, code: "ACTIVATION_FAILED", message: HOSTILE, lastLines: [HOSTILE] },
  };
  await appendFile(join(world.state, "history.jsonl"), `${JSON.stringify(entry)}\n`);
}

describe("a terminal shows text and does not obey it", () => {
  test.each([[["history"]], [["history", "--json"]], [["status"]], [["status", "--json"]]])(
    "of a switch: %j",
    async (args) => {
      await rememberSwitchOutput();
      const output = await world.host(args);
      expect(output.exitCode).toBe(0);
      expectHarmless(output);
      if (args[0] === "history") expect(output.stdout).toContain("owned");
    },
  );

  test("of a switch, in JSON: a reader gets every character", async () => {
    await rememberSwitchOutput();
    const { value } = await world.apply(["history"]);
    expect(JSON.stringify(value["entries"])).toContain(JSON.stringify(HOSTILE).slice(1, -1));
  });

  test.each(["text", "json"])("of a manifest, in %s", async (format) => {
    await world.resign((manifest) => ({
      ...manifest,
      expiresAt: HOSTILE,
      hosts: { ...manifest.hosts, [HOSTILE]: { [HOSTILE]: HOSTILE } },
    }));
    world.configure({ log: { format } });
    for (const args of [["apply"], ["apply", "--json"], ["check"], ["status"]]) {
      expectHarmless(await world.host(args));
    }
  });

  test("of a mirror's answer", async () => {
    await world.forge(() => `{"${HOSTILE}":1}`);
    for (const args of [["apply"], ["apply", "--json"]]) {
      expectHarmless(await world.host(args));
    }
  });

  test("of a name on a stick, which makes no line of its own either", async () => {
    const stick = join(world.directory, "named-stick");
    const forged = "nixos-pull: all archives verified";
    const names = [`x\n${forged} in .publish`, `${HOSTILE}\n${forged}`];
    await mkdir(join(stick, ".publish", "incoming"), { recursive: true });
    for (const name of names) {
      await writeFile(join(stick, ".publish", name), "");
      await writeFile(join(stick, ".publish", "incoming", name), "");
    }
    const output = await world.command([
      ...["mirror", world.mirror, stick, "--public-key", world.key.publicKey],
    ]);
    expect(output.exitCode, output.stderr).toBe(0);
    expectHarmless(output);
    expect(output.stderr).toContain(forged);
    expect(output.stderr).not.toMatch(new RegExp(`^${forged}`, "m"));
  });

  test("of a command line", async () => {
    expectHarmless(await world.command(["keygen", `a ${HOSTILE}`, "--out", world.directory]));
  });
});
