// What the agent advises against a full disk, followed word by word, with real Nix.
import { execFileSync } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { adviceFor } from "../../agent/core/doctor/advice.ts";
import { nixStoreOf } from "../../agent/effects/nix/nix-store.ts";
import { parseSettings } from "../../agent/core/settings.ts";
import { exists } from "../../agent/effects/files/missing-file.ts";
import { buildSystem } from "../support/closure.ts";
import { testEnvironment } from "../support/nixos-pull.ts";
import { createHost, createOperator, type SandboxHost } from "../support/sandbox.ts";

/** A host that has had four systems; gives them, the oldest first. */
async function hostOfFour(): Promise<{ host: SandboxHost; systems: string[] }> {
  const operator = await createOperator();
  const host = await createHost({
    mirrors: [pathToFileURL(operator.mirror).href],
    publicKeys: [operator.publicKey],
  });
  const systems: string[] = [];
  for (const generation of ["1", "2", "3", "4"]) {
    const system = await buildSystem({ generation });
    await operator.publish({ web1: system });
    const applied = await host.run("apply");
    expect(applied.exitCode, applied.stderr).toBe(0);
    systems.push(system);
  }
  return { host, systems };
}

/** Runs a command as a person on the host would; gives all that it prints. */
function onHost({ root }: SandboxHost, command: string): string {
  const env = { ...testEnvironment(), NIX_REMOTE: `local?root=${root}` };
  return execFileSync("sh", ["-c", `${command} 2>&1`], { env, encoding: "utf8" });
}

test("the advice against a full disk frees what old generations hold, and keeps the way back", async () => {
  const { host, systems } = await hostOfFour();
  const are = () => Promise.all(systems.map((it) => exists(join(host.root, it))));
  const advice = adviceFor("DISK_FULL");
  const commands = [...advice.matchAll(/`([^`]+)`/g)].map(([, command = ""]) => command);
  expect(commands).toHaveLength(2);
  // The document gives the same commands.
  const document = await readFile(
    new URL("../../agent/docs/troubleshooting.md", import.meta.url),
    "utf8",
  );
  for (const command of commands) expect(document).toContain(`\`${command}\``);

  // A collection alone frees no system: each is a generation of the profile.
  onHost(host, "nix-collect-garbage");
  expect(await are()).toEqual([true, true, true, true]);
  for (const command of commands) {
    onHost(host, command.replace("/nix/var/nix/profiles/system", host.profile));
  }
  expect(await are()).toEqual([false, false, true, true]);
  expect(await host.run("rollback")).toMatchObject({ exitCode: 0 });
});

test("a collection that finds nothing says so, although Nix frees its reserve for a while", async () => {
  const { host, systems } = await hostOfFour();
  const settings = parseSettings(JSON.parse(await readFile(host.configFile, "utf8")), "web1");
  const store = nixStoreOf(settings);
  await store.collectGarbage(1e12);
  // Nix makes its reserve again when it next opens the store.
  const reserve = join(host.root, "nix/var/nix/db/reserved");
  onHost(host, `nix-store --query --hash ${systems.at(-1)}`);
  expect((await stat(reserve)).size).toBeGreaterThan(1e6);
  expect(await store.collectGarbage(1e12)).toBe(0);
  expect(await exists(reserve)).toBe(false);
});
