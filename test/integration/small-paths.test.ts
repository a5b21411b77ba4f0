import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { buildSystem } from "../support/closure.ts";
import { nixosPull, type CommandOutput } from "../support/nixos-pull.ts";
import { pathWith } from "../support/program-path.ts";
import { createHost, createOperator, type Operator } from "../support/sandbox.ts";
import { temporaryDirectory } from "../support/temporary.ts";

/** So many small paths, and a large one. */
const PARTS = { parts: 60, partBytes: 700, payloadBytes: 600_000 };

/** Publishes with a `zstd` or `xz` that notes in a file that it was started. */
async function publishCounting(
  { mirror, keyFile }: Operator,
  program: "zstd" | "xz",
  ...args: string[]
): Promise<CommandOutput & { started: number }> {
  const log = join(await temporaryDirectory(), "log");
  await writeFile(log, "");
  const counting = await pathWith([], { [program]: `echo x >> ${log}; exec ${program} "$@"` });
  const output = await nixosPull(
    ["publish", "--mirror", mirror, "--key", keyFile, "--compression", program, ...args],
    { PATH: `${counting}:${process.env["PATH"]}` },
  );
  const started = (await readFile(log, "utf8")).split("\n").length - 1;
  return { ...output, started };
}

test.each(["zstd", "xz"] as const)("one %s compresses many small paths", async (program) => {
  const operator = await createOperator();
  const system = await buildSystem(PARTS);
  const { exitCode, stderr, started } = await publishCounting(
    operator,
    program,
    ...["--host", `web1=${system}`],
  );
  expect(exitCode, stderr).toBe(0);
  // The large path has its own, and all others one.
  expect(started).toBe(2);
  const host = await createHost({
    mirrors: [`file://${operator.mirror}`],
    publicKeys: [operator.publicKey],
  });
  const applied = await host.run("apply");
  expect(applied.exitCode, applied.stderr).toBe(0);
  expect(await host.profileToplevel()).toBe(system);
  expect(await host.stagingIsClean()).toBe(true);
});

test("what was compressed into a cache is not compressed again, and nothing unfinished is left", async () => {
  const operator = await createOperator();
  const cache = join(await temporaryDirectory(), "cache");
  const first = await publishCounting(
    operator,
    "zstd",
    ...["--host", `web1=${await buildSystem(PARTS)}`, "--cache", cache],
  );
  expect(first.exitCode, first.stderr).toBe(0);
  const other = { ...operator, mirror: join(await temporaryDirectory(), "mirror") };
  const again = await publishCounting(
    other,
    "zstd",
    ...["--host", `web1=${await buildSystem(PARTS)}`, "--cache", cache],
    ...["--memory", join(other.mirror, "..", "memory")],
  );
  expect(again.exitCode, again.stderr).toBe(0);
  expect(again.started).toBe(0);
  const narInfos = (await readdir(cache)).filter((name) => name.endsWith(".narinfo"));
  const nars = await readdir(join(cache, "nar"));
  expect(nars.every((name) => /^[0-9a-z]{52}\.nar\.zst$/.test(name))).toBe(true);
  expect(nars.length).toBeGreaterThan(60);
  expect(narInfos.length).toBeGreaterThanOrEqual(nars.length);
  const archives = [operator, other].map(({ mirror }) => readdir(join(mirror, "archives")));
  expect(await archives[0]).toEqual(await archives[1]);
});
