import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { generateKey } from "../../agent/core/formats/signing-key.ts";
import { buildSystem } from "../support/closure.ts";
import { nixosPull } from "../support/nixos-pull.ts";
import { createHost, createOperator, type SandboxHost } from "../support/sandbox.ts";
import { runsOf } from "../support/scripted-system.ts";

/** What the closure of a release does on a NixOS host: it brings another configuration. */
async function reconfigure(host: SandboxHost, settings: Record<string, unknown>): Promise<void> {
  const config = JSON.parse(await readFile(host.configFile, "utf8")) as object;
  await writeFile(host.configFile, JSON.stringify({ ...config, ...settings }));
}

test("hosts that were away for a year follow to new keys, as long as releases carry an old signature", async () => {
  const operator = await createOperator("fleet-2025");
  const pair = generateKey("fleet-2026");
  const newKey = join(operator.directory, "new.secret");
  await writeFile(newKey, pair.secret, { mode: 0o600 });
  const signedByNewAlone = async (toplevel: string): Promise<void> => {
    const keys = ["--key", newKey, "--public-key", operator.publicKey];
    const args = ["publish", "--mirror", operator.mirror, ...keys, "--host", `web1=${toplevel}`];
    expect((await nixosPull(args)).exitCode).toBe(0);
  };
  const systems = await Promise.all(
    ["1", "2", "3", "4", "5"].map((generation) => buildSystem({ generation })),
  );
  const [first = "", second = "", third = "", fourth = "", fifth = ""] = systems;

  await operator.publish({ web1: first });
  const settings = { mirrors: [`file://${operator.mirror}`], publicKeys: [operator.publicKey] };
  const away = await createHost(settings);
  const awayLonger = await createHost(settings);
  for (const host of [away, awayLonger]) expect((await host.run("apply")).exitCode).toBe(0);

  // Meanwhile: a release with both keys in its configuration, then releases signed by both.
  await operator.publish({ web1: second });
  for (const toplevel of [third, fourth]) {
    await operator.publish({ web1: toplevel }, "--key", newKey);
  }
  // Nothing of the time between is left on the mirror.
  const before = await readdir(join(operator.mirror, "archives"));
  const pruned = await nixosPull(["prune", operator.mirror, "--keep", "1"]);
  expect(pruned.exitCode, pruned.stderr).toBe(0);
  const left = await readdir(join(operator.mirror, "archives"));
  expect(left.length).toBeLessThan(before.length);

  const back = await away.run("apply");
  expect(back.exitCode, back.stderr).toBe(0);
  expect(await away.profileToplevel()).toBe(fourth);
  await reconfigure(away, { publicKeys: [pair.public], revokedKeys: [operator.publicKey] });

  // The overlap is over.
  await signedByNewAlone(fifth);
  const moved = await away.run("apply");
  expect(moved.exitCode, moved.stderr).toBe(0);
  expect(await away.profileToplevel()).toBe(fifth);

  // Whoever comes back later is left alone, and says why.
  const late = await awayLonger.json("apply");
  expect(late).toMatchObject({ exitCode: 4, value: { error: { code: "SIGNATURE_THRESHOLD" } } });
  expect(await awayLonger.profileToplevel()).toBe(first);
  // An old signature under the release is not enough: store paths need one too.
  await nixosPull(["sign", operator.mirror, "--key", operator.keyFile]);
  const half = await awayLonger.json("apply");
  expect(half).toMatchObject({ exitCode: 6, value: { error: { code: "PATH_SIGNATURE" } } });
  expect(await awayLonger.switchLog()).toEqual(runsOf(first));
  expect(await awayLonger.stagingIsClean()).toBe(true);
  // One release with both keys brings it back, and changes nothing for the others.
  await operator.publish({ web1: fifth }, "--key", newKey);
  expect((await awayLonger.run("apply")).exitCode).toBe(0);
  expect(await awayLonger.profileToplevel()).toBe(fifth);
  expect((await away.json("apply")).value).toMatchObject({ decision: "adopt", updated: false });
  expect(await away.switchLog()).toEqual(runsOf(first, fourth, fifth));
});
