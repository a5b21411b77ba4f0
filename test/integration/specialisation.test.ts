import { rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { buildSystem } from "../support/closure.ts";
import { nixosPull } from "../support/nixos-pull.ts";
import { createHost, createOperator } from "../support/sandbox.ts";

test("a specialisation is published, activated, shown, and activated again after a boot", async () => {
  const operator = await createOperator();
  const first = await buildSystem({ specialisation: "debug" });
  const missing = await nixosPull([
    ...["publish", "-m", operator.mirror, "-k", operator.keyFile],
    ...["--host", `web1=${first}`, "--specialisation", "web1=loud"],
  ]);
  expect(missing.exitCode).toBe(8);
  expect(missing.stderr).toMatch(/SPECIALISATION_MISSING: web1: .*loud.*, found debug/);
  const published = await operator.publish({ web1: first }, "--specialisation", "web1=debug");
  expect(published.stdout).toMatch(/^web1 +\w{7}-web1-\S+, specialisation debug /m);
  const show = ["release", "show", "-m", operator.mirror];
  expect((await nixosPull(show)).stdout).toMatch(/^web1 +\w{7}-web1-\S+, specialisation debug /m);
  const json = JSON.parse((await nixosPull([...show, "--json"])).stdout);
  expect(json).toMatchObject({ hosts: [{ toplevel: first, specialisation: "debug" }] });
  const mirrors = [`file://${operator.mirror}`];
  const host = await createHost({ mirrors, publicKeys: [operator.publicKey] });
  expect((await host.run("check")).stdout).toMatch(
    /would be applied: switch \w{7}-web1-\S+, specialisation debug\n/,
  );
  expect(await host.run("apply")).toMatchObject({
    exitCode: 0,
    stdout: expect.stringMatching(
      /^Applied release 1 of stable: switch \w{7}-web1-\S+, specialisation debug, in \d+ s\n$/,
    ),
  });
  const log = await host.switchLog();
  expect(log).toEqual([expect.stringMatching(/^test .*-1-debug$/), `boot ${first}`]);
  const { value } = await host.json("status");
  expect(value).toMatchObject({ running: first, specialisation: "debug", drift: null });
  expect((await host.run("status")).stdout).toMatch(
    /^system +\w{7}-web1-\S+, specialisation debug, /m,
  );

  // A boot starts the system itself.
  const current = join(host.root, "run/current-system");
  await rm(current);
  await symlink(first, current);
  expect((await host.json("status")).value).toMatchObject({ specialisation: null, drift: null });
  expect(await host.run("apply")).toMatchObject({ exitCode: 0 });
  expect(await host.switchLog()).toEqual([...log, ...log]);
});
