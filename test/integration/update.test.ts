import { readlink } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { buildSystem } from "../support/closure.ts";
import { serveMirror } from "../support/mirror-server.ts";
import { createHost, createOperator } from "../support/sandbox.ts";
import { runsOf } from "../support/scripted-system.ts";

test("a host installs a release, is left alone, and downloads only what an update changes", async () => {
  const operator = await createOperator();
  const server = await serveMirror(operator.mirror);
  const host = await createHost({ mirrors: [server.url], publicKeys: [operator.publicKey] });
  const first = await buildSystem({ generation: "1", payloadBytes: 200_000 });
  const second = await buildSystem({ generation: "2", payloadBytes: 200_000 });

  await operator.publish({ web1: first });
  const installed = await host.json("apply");
  expect(installed).toMatchObject({ exitCode: 0, value: { updated: true } });
  expect(await host.profileToplevel()).toBe(first);
  expect(await host.switchLog()).toEqual(runsOf(first));
  expect(await host.stagingIsClean()).toBe(true);
  expect(await readlink(join(host.root, "nix/var/nix/gcroots/nixos-pull/current"))).toBe(first);

  const again = await host.json("apply");
  expect(again).toMatchObject({ exitCode: 0, value: { updated: false, decision: "active" } });
  expect(server.requests.at(-1)).toMatchObject({ status: 304 });
  expect(await host.switchLog()).toEqual(runsOf(first));

  await operator.publish({ web1: second });
  const { value: checked } = await host.json("check");
  // The toplevel and its etc are new; program, library, odd names and payload are not.
  expect(checked).toMatchObject({ decision: "update", preview: { paths: 6, newPaths: 2 } });
  expect(checked.preview.downloadBytes).toBeLessThan(10_000);
  const updated = await host.run("apply");
  expect(updated.exitCode, updated.stderr).toBe(0);
  expect(await host.profileToplevel()).toBe(second);
  expect(await host.switchLog()).toEqual(runsOf(first, second));
  expect(await readlink(join(host.root, "nix/var/nix/gcroots/nixos-pull/previous"))).toBe(first);
});
