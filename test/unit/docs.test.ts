import { cp, mkdir, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import * as z from "zod";
import { archiveIndexSchema } from "../../agent/core/formats/archive-index.ts";
import { envelopeSchema, sealEnvelope } from "../../agent/core/formats/envelope.ts";
import { ERROR_CODES } from "../../agent/core/errors.ts";
import { DISTRUST_REASONS } from "../../agent/core/fleet/fleet.ts";
import { encodeManifest, manifestSchema } from "../../agent/core/formats/manifest.ts";
import {
  hasTrustedSignature,
  parseNarInfo,
  pathFingerprint,
} from "../../agent/core/formats/narinfo.ts";
import { parseSettings, settingsSchema } from "../../agent/core/settings.ts";
import { parsePublicKey } from "../../agent/core/formats/signing-key.ts";
import { stateSchema } from "../../agent/core/update/states.ts";
import { WAIT_REASONS } from "../../agent/core/schedule/waiting.ts";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { fencedBlocks } from "../support/command-blocks.ts";
import { testEnvironment } from "../support/nixos-pull.ts";
import { samplePath, sampleManifest } from "../support/sample-release.ts";
import { temporaryDirectory } from "../support/temporary.ts";
import { testKey } from "../support/test-key.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const GENERATOR = join(ROOT, "scripts/docs.mjs");
const GENERATOR_TIMEOUT_MS = 60_000;

const DOCUMENTS = [
  "README.md",
  "CHANGELOG.md",
  "nixos-module/README.md",
  "nixos-module/options.md",
  "test/README.md",
  ...(await readdir(join(ROOT, "agent/docs"), { recursive: true }))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `agent/docs/${name}`),
  ".github/CONTRIBUTING.md",
  ".github/SECURITY.md",
];

function read(document: string): Promise<string> {
  return readFile(join(ROOT, document), "utf8");
}

describe("generated documentation", () => {
  const generate = (...args: string[]) =>
    runProcess(process.execPath, [GENERATOR, ...args], {
      env: testEnvironment(),
      timeoutMs: GENERATOR_TIMEOUT_MS,
    });

  test("is what the code says", { timeout: GENERATOR_TIMEOUT_MS }, async () => {
    const { stdout, stderr, exitCode } = await generate("--check");
    expect(exitCode, stdout + stderr).toBe(0);
  });

  test(
    "a file that differs is named and put right",
    { timeout: GENERATOR_TIMEOUT_MS },
    async () => {
      const copy = await temporaryDirectory();
      await mkdir(join(copy, "agent"));
      await cp(join(ROOT, "README.md"), join(copy, "README.md"));
      await cp(join(ROOT, "nixos-module"), join(copy, "nixos-module"), { recursive: true });
      await cp(join(ROOT, "agent/docs"), join(copy, "agent/docs"), { recursive: true });
      const errors = join(copy, "agent/docs/errors.md");
      const right = await readFile(errors, "utf8");
      await writeFile(errors, right.replace("| `MIRROR_STALLED`", "| `MIRROR_SLOW`"));

      const checked = await generate("--check", copy);
      expect(checked.exitCode).toBe(1);
      expect(checked.stdout).toContain("agent/docs/errors.md");
      expect(checked.stdout).not.toContain("README.md");

      expect((await generate(copy)).exitCode).toBe(0);
      expect(await readFile(errors, "utf8")).toBe(right);
    },
  );
});

type JsonSchema = Parameters<typeof z.fromJSONSchema>[0];

/** Leaves out the two keywords that zod cannot read back. */
function withoutConditions(name: string, value: unknown): unknown {
  return name === "not" || name === "dependentRequired" ? undefined : value;
}

describe("JSON Schemas agree with the parsers", () => {
  const key = testKey("fleet-1");
  const manifest = sampleManifest();
  const [host] = Object.values(manifest.hosts);
  const settings = { mirrors: ["https://releases.example.org"], publicKeys: [key.publicKey.text] };
  const path = {
    path: samplePath("library-1.0").slice("/nix/store/".length),
    narHash: `sha256:${"0".repeat(52)}`,
    narSize: 100,
    references: [0],
    signatures: [],
    nar: { offset: 1024, size: 10, sha256: "0".repeat(64) },
  };
  const index = { formatVersion: 1, compression: "zstd", paths: [path] };
  const envelope: unknown = JSON.parse(sealEnvelope(encodeManifest(manifest), [key]));

  const cases: [string, z.ZodType, { right: unknown[]; wrong: unknown[] }][] = [
    [
      "settings",
      settingsSchema,
      {
        right: [
          settings,
          { ...settings, poll: { interval: "1h30m" }, limits: { stallTimeout: "90s" } },
          { ...settings, poll: { cron: "0 3 * * *", timezone: "Europe/Berlin" } },
          { ...settings, mirrors: ["file:///mnt/usb", "http://[::1]:8080/releases"] },
        ],
        wrong: [
          {},
          { ...settings, colour: "blue" },
          { ...settings, mirrors: [] },
          { ...settings, mirrors: ["ftp://releases.example.org"] },
          { ...settings, mirrors: ["https://releases.example.org/?x=1"] },
          { ...settings, publicKeys: ["fleet-1"] },
          { ...settings, poll: { interval: "5 min" } },
          { ...settings, paths: { state: "relative" } },
        ],
      },
    ],
    ["envelope", envelopeSchema, { right: [envelope], wrong: [{}, manifest] }],
    [
      "manifest",
      manifestSchema,
      {
        right: [manifest, { ...manifest, hosts: {} }],
        wrong: [
          { ...manifest, sequence: 0 },
          { ...manifest, createdAt: "yesterday" },
          { ...manifest, hosts: { "no such name": host } },
          { ...manifest, hosts: { web1: { ...host, toplevel: "/etc/passwd" } } },
          { ...manifest, hosts: { web1: { ...host, comment: "" } } },
        ],
      },
    ],
    [
      "archive-index",
      archiveIndexSchema,
      {
        right: [index],
        wrong: [
          { ...index, paths: [] },
          { ...index, compression: "gzip" },
          { ...index, paths: [{ ...path, narHash: "sha256:0" }] },
        ],
      },
    ],
  ];

  test.each(cases)("%s", async (name, parser, { right, wrong }) => {
    const text = await read(`agent/docs/schema/${name}.schema.json`);
    const schema = z.fromJSONSchema(JSON.parse(text, withoutConditions) as JsonSchema);
    for (const value of right) {
      expect(parser.safeParse(value).success, JSON.stringify(value)).toBe(true);
      expect(schema.safeParse(value).success, JSON.stringify(value)).toBe(true);
    }
    for (const value of wrong) {
      expect(parser.safeParse(value).success, JSON.stringify(value)).toBe(false);
      expect(schema.safeParse(value).success, JSON.stringify(value)).toBe(false);
    }
  });
});

/** The names of all keys that a JSON Schema knows, at any depth. */
function keysOf(schema: unknown): string[] {
  if (typeof schema !== "object" || schema === null) return [];
  return Object.entries(schema).flatMap(([name, value]) =>
    name === "properties" && typeof value === "object" && value !== null
      ? [...Object.keys(value), ...Object.values(value).flatMap(keysOf)]
      : keysOf(value),
  );
}

test.each(["manifest", "archive-index", "envelope"])(
  "formats.md describes every key of the %s",
  async (name) => {
    const text = await read("agent/docs/formats.md");
    const keys = new Set(keysOf(JSON.parse(await read(`agent/docs/schema/${name}.schema.json`))));
    expect(keys.size).toBeGreaterThan(2);
    for (const key of keys) {
      const isNamed = new RegExp(`\`[^\`]*\\b${key}\\b[^\`]*\``).test(text);
      expect(isNamed, `formats.md does not describe ${key}`).toBe(true);
    }
  },
);

/** A JSON text in which hashes and signatures that a document cut off are long enough again. */
function completed(text: string): string {
  return text
    .replace(/"([0-9a-f]{16})…"/g, (_, start: string) => `"${start.padEnd(64, "0")}"`)
    .replace(/"(fleet-1:[A-Za-z0-9+/]+)…"/g, (_, start: string) => `"${start.padEnd(94, "A")}=="`)
    .replace(/"([A-Za-z0-9+/]+)…"/g, (_, start: string) => `"${start.padEnd(88, "A")}"`);
}

/** What a configuration has to have. */
const REQUIRED_SETTINGS = {
  mirrors: ["https://releases.example.org"],
  publicKeys: [`fleet-1:${"A".repeat(42)}E=`],
};

describe("examples are true", () => {
  test("the configurations in configuration.md are accepted", async () => {
    const text = await read("agent/docs/configuration.md");
    const examples = [...text.matchAll(/```json\n([\s\S]*?)```/g)];
    expect(examples.length).toBeGreaterThan(1);
    for (const [, example = ""] of examples) parseSettings(JSON.parse(example), "web1");
  });

  test("JSON in the documents is JSON, and what has a schema is as its schema says", async () => {
    const kinds: readonly (readonly [RegExp, z.ZodType])[] = [
      [/"payloadType"/, envelopeSchema],
      [/"hosts"[^]*"toplevel"/, manifestSchema],
      [/"compression"/, archiveIndexSchema],
      [/"mirrors"|"maintenance"/, settingsSchema],
    ];
    const met = new Set<z.ZodType>();
    for (const document of DOCUMENTS) {
      for (const { language, line, text } of fencedBlocks(await read(document))) {
        if (language !== "json") continue;
        const value = JSON.parse(completed(text)) as object;
        const schema = kinds.find(([sign]) => sign.test(text))?.[1];
        if (!schema) continue;
        met.add(schema);
        const needed = schema === settingsSchema ? REQUIRED_SETTINGS : {};
        const found = schema.safeParse({ ...needed, ...value });
        expect(found.error, `${document}:${String(line)}`).toBeUndefined();
      }
    }
    expect(met.size).toBe(kinds.length);
  });

  test("the narinfo in formats.md has the fingerprint and the signature beside it", async () => {
    const text = await read("agent/docs/formats.md");
    const narInfo = /```text\n(StorePath: [\s\S]*?)```/.exec(text)?.[1] ?? "";
    const fingerprint = /```text\n(1;[^\n]*)\n```/.exec(text)?.[1];
    const key = parsePublicKey(/```text\n(fleet-1:[^\n]*)\n```/.exec(text)?.[1] ?? "");
    const parsed = parseNarInfo(narInfo, "formats.md");
    const signatures = [/^Sig: (.*)$/m.exec(narInfo)?.[1] ?? ""];
    expect(pathFingerprint(parsed).toString()).toBe(fingerprint);
    expect(hasTrustedSignature({ ...parsed, signatures }, [key])).toBe(true);
  });
});

/** The anchor that a heading gets, as forges make it. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
}

test.each(DOCUMENTS)("%s: every link leads somewhere", async (document) => {
  const text = (await read(document)).replace(/```[\s\S]*?```/g, "");
  for (const [, target = ""] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^https?:/.test(target)) continue;
    const [file = "", anchor] = target.split("#");
    const path = file === "" ? join(ROOT, document) : resolve(ROOT, dirname(document), file);
    const found = await stat(path).catch(() => null);
    expect(found, `${document} → ${target}`).not.toBeNull();
    if (anchor === undefined) continue;
    const headings = [...(await readFile(path, "utf8")).matchAll(/^#+ (.*)$/gm)];
    expect(headings.map(([, heading = ""]) => anchorOf(heading))).toContain(anchor);
  }
});

test("state-machine.md has a row for every state", async () => {
  const text = await read("agent/docs/state-machine.md");
  for (const { shape } of stateSchema.options) expect(text).toContain(`| \`${shape.name.value}\` `);
});

test("every reason to wait has a row in host-rules.md or rollout.md", async () => {
  const text = (await read("agent/docs/host-rules.md")) + (await read("agent/docs/rollout.md"));
  for (const reason of WAIT_REASONS) expect(text).toContain(`| \`${reason}\` `);
});

test("troubleshooting.md quotes words that the program prints", async () => {
  const text = await read("agent/docs/troubleshooting.md");
  const seen = [...text.matchAll(/^\| (.*?) +\|/gm)].map(([, cell = ""]) => cell);
  const quoted = seen.flatMap((cell) => [...cell.matchAll(/"([^"]+)"/g)].map(([, it = ""]) => it));
  expect(quoted.length).toBeGreaterThan(3);
  const files = await readdir(join(ROOT, "agent"), { recursive: true });
  const sources = files.filter((name) => name.endsWith(".ts")).map((name) => read(`agent/${name}`));
  const COMMENT = /\/\*[\s\S]*?\*\/|\/\/.*$/gm;
  const program = (await Promise.all(sources)).join("\n").replace(COMMENT, "");
  for (const words of quoted) expect(program, "in no message").toContain(words);
});

test("every document stands in the index", async () => {
  const index = await read("agent/docs/README.md");
  const documents = await readdir(join(ROOT, "agent/docs"));
  for (const name of documents.filter((it) => it.endsWith(".md") && it !== "README.md")) {
    expect(index).toContain(`](${name})`);
  }
});

test("every decision stands in the list of decisions", async () => {
  const index = await read("agent/docs/decisions/README.md");
  const documents = await readdir(join(ROOT, "agent/docs/decisions"));
  for (const name of documents.filter((it) => it !== "README.md")) {
    expect(index).toContain(`](${name})`);
  }
});

test.each(DOCUMENTS)("%s: every code that it names exists", async (document) => {
  const others = new Set(["NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "CREDENTIALS_DIRECTORY"]);
  const codes: readonly string[] = [...ERROR_CODES, ...WAIT_REASONS, ...DISTRUST_REASONS];
  const foreign = /^(AWS|NIX|NIXOS|NODE|MAX)_/;
  for (const [, name = ""] of (await read(document)).matchAll(/`([A-Z]+_[A-Z_]+)`/g)) {
    if (others.has(name) || foreign.test(name)) continue;
    expect(codes, document).toContain(name);
  }
});
