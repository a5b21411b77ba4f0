// A real Nix daemon that does not trust this host's user: `check` foresees what an import would say.
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { generateKey } from "../../agent/core/formats/signing-key.ts";
import { buildSystem } from "../support/closure.ts";
import { startNixDaemon } from "../support/nix-daemon.ts";
import { nixosPull, type CommandOutput } from "../support/nixos-pull.ts";
import { createHost, createOperator } from "../support/sandbox.ts";

test("a daemon that would refuse the release's paths is foreseen", async () => {
  const operator = await createOperator();
  await operator.publish({ web1: await buildSystem() });
  const other = generateKey("other-1").public;
  const nobody = ["trusted-users = nobody", `trusted-public-keys = ${other}`];
  const daemon = await startNixDaemon(nobody);
  const { configFile } = await createHost({
    mirrors: [pathToFileURL(operator.mirror).href],
    publicKeys: [operator.publicKey],
    store: daemon.store,
  });
  const run = (command: string): Promise<CommandOutput> =>
    nixosPull([command, "--config", configFile], daemon.env);

  const foreseen = await run("check");
  expect(foreseen.exitCode).toBe(6);
  expect(foreseen.stdout).toContain(
    "It would fail now: IMPORT_FAILED: the Nix daemon does not trust user root: expected a key of " +
      "storeKeys (test-1) in its trusted-public-keys, found other-1",
  );
  // It is what really happens.
  const applied = await run("apply");
  expect(applied.exitCode).toBe(6);
  expect(applied.stderr).toContain("IMPORT_FAILED");
  expect(applied.stderr).toMatch(/signature|trusted/);

  // Either remedy helps.
  await daemon.configure(["trusted-users = nobody", `trusted-public-keys = ${operator.publicKey}`]);
  expect(await run("check")).toMatchObject({ exitCode: 0 });
  await daemon.configure(["trusted-users = root", `trusted-public-keys = ${other}`]);
  expect(await run("check")).toMatchObject({ exitCode: 0 });
});
