import { spawn, spawnSync } from "node:child_process";
import { appendFile, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { startingFiles } from "../../agent/operator/repository/starting-repository.ts";
import { buildSystem } from "../support/closure.ts";
import { nixosPull, testEnvironment } from "../support/nixos-pull.ts";
import { createOperator, type Operator } from "../support/sandbox.ts";
import { temporaryDirectory } from "../support/temporary.ts";

/** The script `upload` of a starting repository, as a file. */
async function uploadScript(): Promise<string> {
  const files = startingFiles({ hosts: ["web1"], mirrors: ["https://x"], flake: false });
  const path = join(await temporaryDirectory(), "upload");
  const text = files.find((file) => file.path === "upload")?.text ?? "";
  await writeFile(path, text, { mode: 0o755 });
  return path;
}

/** Runs the script; before and after each step of it, `onStep` in shell. */
async function upload(
  tool: string,
  operator: Operator,
  destination: string,
  onStep = "",
): Promise<{ exitCode: number | null; stderr: string }> {
  const bin = await temporaryDirectory();
  const real = spawnSync("sh", ["-c", `command -v ${tool}`], { encoding: "utf8" }).stdout.trim();
  const wrapper = `#!/bin/sh\n${onStep}\n'${real}' "$@"; status=$?\n${onStep}\nexit $status\n`;
  await writeFile(join(bin, tool), wrapper, { mode: 0o755 });
  const child = spawn(await uploadScript(), [tool, destination], {
    env: {
      ...testEnvironment(),
      PATH: `${bin}:${process.env["PATH"] ?? ""}`,
      MIRROR: operator.mirror,
      RCLONE_CONFIG: join(bin, "rclone.conf"),
    },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const exitCode = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { exitCode, stderr };
}

/** What `verify` says of the destination, as a host would find it. */
async function verified(operator: Operator, destination: string): Promise<string> {
  const args = ["verify", destination, "--public-key", operator.publicKey];
  const { stdout, stderr, exitCode } = await nixosPull(args);
  expect(exitCode, stderr).toBe(0);
  return stdout;
}

async function archivesOf(mirror: string): Promise<string[]> {
  return (await readdir(join(mirror, "archives"))).sort();
}

describe.each(["rsync", "rclone"])("upload by %s", (tool) => {
  describe.skipIf(spawnSync(tool, ["--version"]).error !== undefined)(
    "where it is installed",
    () => {
      test("leaves a whole release in force at every moment, then removes what was pruned", async () => {
        const operator = await createOperator();
        const destination = join(await temporaryDirectory(), "served");
        await mkdir(destination);
        await operator.publish({ web1: await buildSystem({ generation: "1" }) }, "--whole");
        const first = await upload(tool, operator, `${destination}/`);
        expect(first.exitCode, first.stderr).toBe(0);
        expect(await verified(operator, destination)).toContain("Release 1");
        expect((await readdir(destination)).sort()).toEqual(["archives", "channels"]);

        await operator.publish({ web1: await buildSystem({ generation: "2" }) }, "--whole");
        await nixosPull(["prune", operator.mirror, "--keep", "1"]);
        const log = join(operator.directory, "steps");
        // What a reader would see around each step: the archives and the manifest in force.
        const look =
          `{ ls '${destination}/archives' | wc -l; ` +
          `cmp -s '${destination}/channels/stable/manifest.json' ` +
          `'${operator.mirror}/channels/stable/manifest.json' && echo new || echo old; } >> '${log}'`;
        const second = await upload(tool, operator, destination, look);
        expect(second.exitCode, second.stderr).toBe(0);
        const steps = (await readFile(log, "utf8")).trim().split(/\s+/);
        const seen = Array.from({ length: steps.length / 2 }, (_, at) =>
          steps.slice(2 * at, 2 * at + 2),
        );
        expect(seen).toEqual([
          ["1", "old"],
          // The system's and that of its index patch.
          ["3", "old"],
          ["3", "old"],
          ["3", "new"],
          ["3", "new"],
          ["2", "new"],
        ]);
        expect(await verified(operator, destination)).toContain("Release 2");
        expect(await archivesOf(destination)).toEqual(await archivesOf(operator.mirror));
      });

      test("that is cut off leaves the old release, and is finished by the next", async () => {
        const operator = await createOperator();
        const destination = await temporaryDirectory();
        await operator.publish({ web1: await buildSystem({ generation: "1" }) });
        expect((await upload(tool, operator, destination)).exitCode).toBe(0);
        await operator.publish({ web1: await buildSystem({ generation: "2" }) });
        // The second step, the one that brings the manifest, finds no connection.
        const marker = join(operator.directory, "marker");
        const cut = `echo >> '${marker}'; [ "$(wc -l < '${marker}')" -lt 3 ] || exit 12`;
        expect((await upload(tool, operator, destination, cut)).exitCode).toBe(12);
        expect(await verified(operator, destination)).toContain("Release 1");
        expect((await upload(tool, operator, destination)).exitCode).toBe(0);
        expect(await verified(operator, destination)).toContain("Release 2");
      });

      test("puts right an archive that was cut short there", async () => {
        const operator = await createOperator();
        const destination = await temporaryDirectory();
        await operator.publish({ web1: await buildSystem({ generation: "1" }) });
        await upload(tool, operator, destination);
        const [archive = ""] = await archivesOf(destination);
        await appendFile(join(destination, "archives", archive), "more");
        expect((await upload(tool, operator, destination)).exitCode).toBe(0);
        expect(await verified(operator, destination)).toContain("Release 1");
      });

      test("of something that is no mirror removes nothing", async () => {
        const operator = await createOperator();
        const destination = await temporaryDirectory();
        await mkdir(join(destination, "archives"));
        await writeFile(join(destination, "archives/kept.tar"), "");
        const refused = await upload(tool, operator, destination);
        expect(refused).toMatchObject({
          exitCode: 1,
          stderr: expect.stringContaining("archives/"),
        });
        expect(await archivesOf(destination)).toEqual(["kept.tar"]);
      });
    },
  );
});
