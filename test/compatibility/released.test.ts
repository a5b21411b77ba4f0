import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { brotliDecompressSync } from "node:zlib";
import { describe, expect, inject, test } from "vitest";
import { BUILD } from "../../agent/core/build.ts";
import { runAgent } from "../kill/support/process.ts";
import { createSimulatedHost } from "../kill/support/simulated-host.ts";
import { temporaryDirectory } from "../support/temporary.ts";
import { RELEASED } from "./setup.ts";
import { formats } from "./support/formats.ts";
import { applyUntilDone } from "./support/going-on.ts";

/** Files by their paths, base64. */
type Files = Readonly<Record<string, string>>;

/** What a version wrote when it was frozen. */
interface Written {
  readonly publicKey: string;
  readonly mirror: Files;
  readonly states: Readonly<Record<string, Files>>;
}

async function written(version: string): Promise<Written> {
  const packed = await readFile(join(RELEASED, version, "written.json.br"));
  return JSON.parse(brotliDecompressSync(packed).toString()) as Written;
}

async function unpack(files: Files, directory: string): Promise<void> {
  for (const [path, contents] of Object.entries(files)) {
    await mkdir(dirname(join(directory, path)), { recursive: true, mode: 0o700 });
    await writeFile(join(directory, path), Buffer.from(contents, "base64"), { mode: 0o600 });
  }
}

const { released, later } = inject("compatibility");
const frozen = released.filter(({ name }) => existsSync(join(RELEASED, name)));
const CURRENT = { name: "these sources", bundle: join(RELEASED, "../../../dist/nixos-pull.cjs") };

describe.each(frozen)("what $name wrote", ({ name }) => {
  test("has the formats of these sources, if it is the same version", async () => {
    // A later version may have moved on, by the rules; one version may not.
    if (BUILD.version !== name) return;
    const before = JSON.parse(
      await readFile(join(RELEASED, name, "formats.json"), "utf8"),
    ) as object;
    expect(
      formats(),
      `the formats moved since ${name} was frozen: if it is not released yet, run \`npm run freeze\`; ` +
        "if it is, raise the version in package.json, and keep to agent/docs/formats.md (Versions)",
    ).toEqual(before);
  });

  test("is a mirror that hosts of these sources and of a later version install from", async () => {
    const { mirror, publicKey } = await written(name);
    const directory = await temporaryDirectory();
    const place = join(directory, "mirror");
    await unpack(mirror, place);
    const mirrors = { old: pathToFileURL(place).href, new: pathToFileURL(place).href };
    for (const version of [CURRENT, later]) {
      const world = { ...{ directory, seed: 0, publicKey, mirrors, closure: [] } };
      const unused = { systems: { old: "", new: "" }, templates: { old: "", new: "" } };
      const host = await createSimulatedHost({ ...world, ...unused }, null);
      try {
        const { answer } = await applyUntilDone(host, version);
        expect(answer.decision).toBe("active");
        expect((await host.observe()).record?.committed?.sequence).toBe(2);
      } finally {
        await host.remove();
      }
    }
  });

  test("are state directories that are read without an alarm, in each state", async () => {
    const { states, publicKey } = await written(name);
    expect(Object.keys(states)).toContain("Verifying");
    for (const [state, files] of Object.entries(states)) {
      const directory = await temporaryDirectory();
      await unpack(files, join(directory, "state"));
      const config = join(directory, "config.json");
      await writeFile(
        config,
        JSON.stringify({
          ...{ hostname: "web1", mirrors: ["https://example.org/"], publicKeys: [publicKey] },
          paths: { state: join(directory, "state"), runtime: join(directory, "run") },
        }),
      );
      for (const { bundle } of [CURRENT, later]) {
        const { stdout, stderr } = await runAgent(
          ["status", "--json", "--config", config],
          null,
          bundle,
        );
        expect(stdout, stderr).not.toBe("");
        expect(JSON.parse(stdout), state).toMatchObject({
          ...{ state: { name: state }, alarms: [], hostname: "web1" },
        });
      }
    }
  });
});
