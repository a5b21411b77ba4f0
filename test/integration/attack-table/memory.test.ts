import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { ErrorCode } from "../../../agent/core/errors.ts";
import { sealEnvelope, type Envelope } from "../../../agent/core/formats/envelope.ts";
import { testKey } from "../../support/test-key.ts";
import { inAttackWorld, type AttackWorld, type Outcome } from "../../support/attack-world.ts";
import { startServer } from "../../support/hostile-server.ts";

/** What a host may take beyond one and a half times what it was given. */
const SLACK_BYTES = 30 * 1024 * 1024;

/** No log line, message or state file that comes of it may be longer. */
const MAX_SAID_BYTES = 32 * 1024;

const MANIFEST_BYTES = 31 * 1024 * 1024;

let world: AttackWorld;
/** Peak memory of a look at the genuine release, by how it is read. */
const baseline = { stick: 0, http: 0 };

inAttackWorld((it) => {
  world = it;
});

beforeAll(async () => {
  await world.restore();
  baseline.stick = (await peakOf(["check"])).peak;
  const server = await startServer(world.mirror);
  world.configure({ mirrors: [server.url] });
  baseline.http = (await peakOf(["check"])).peak;
  server.close();
});

/** Runs a command; gives the most memory that it ever had (proc(5), VmHWM), too. */
async function withPeak<T>(
  run: (env: Record<string, string>) => Promise<T>,
): Promise<T & { peak: number }> {
  const [script, result] = ["peak.mjs", "peak"].map((name) => join(world.directory, name));
  if (!script || !result) throw new Error("expected two names");
  await writeFile(
    script,
    `import { readFileSync, writeFileSync } from "node:fs";
    process.on("exit", () => {
      writeFileSync(${JSON.stringify(result)}, readFileSync("/proc/self/status"));
    });`,
  );
  const outcome = await run({ NODE_OPTIONS: `--import=${pathToFileURL(script).href}` });
  const peak = /^VmHWM:\s+(\d+) kB$/m.exec(await readFile(result, "utf8"))?.[1];
  return { ...outcome, peak: Number(peak) * 1024 };
}

/** Runs a host command. */
function peakOf(args: readonly string[]): Promise<Outcome & { peak: number }> {
  return withPeak((env) => world.apply(args, env));
}

/** Refuses with `code`, with little memory and few words. */
async function refusesCheaply(
  code: ErrorCode,
  size: number,
  { command = "check", by = "stick" }: { command?: string; by?: "stick" | "http" } = {},
): Promise<void> {
  const { value, peak, stdout, stderr } = await peakOf([command]);
  expect(value.error?.code, stderr).toBe(code);
  expect(peak - baseline[by], `${peak} bytes, ${baseline[by]} without`).toBeLessThan(
    1.5 * size + SLACK_BYTES,
  );
  expect(stdout.length + stderr.length).toBeLessThan(MAX_SAID_BYTES);
  for (const name of await readdir(world.state)) {
    const found = await stat(join(world.state, name));
    if (found.isFile()) expect(found.size, name).toBeLessThan(MAX_SAID_BYTES);
  }
}

/** A text that is repeated until it has so many bytes. */
function filled(text: string, bytes: number): string {
  return text.repeat(Math.floor(bytes / text.length));
}

const strangers = Array.from({ length: 32 }, (_, at) => testKey(`stranger-${at}`));

const unsigned: [string, ErrorCode, (genuine: Envelope) => string][] = [
  [
    "signatures that are empty objects",
    "ENVELOPE_INVALID",
    ({ payloadType, payload }) =>
      `{"payloadType":"${payloadType}","payload":"${payload}",` +
      `"signatures":[${filled("{},", MANIFEST_BYTES)}{}]}`,
  ],
  [
    "an unknown key of 30 MB",
    "ENVELOPE_INVALID",
    ({ payload }) => `{"${filled("k", MANIFEST_BYTES)}":1,"payload":"${payload}"}`,
  ],
  [
    "a key id of 30 MB",
    "ENVELOPE_INVALID",
    ({ payload }) =>
      `{"payload":"${payload}","signatures":[{"keyid":"${filled("k", MANIFEST_BYTES)}"`,
  ],
  [
    "a payload of 30 MB with 32 signatures by strangers",
    "SIGNATURE_THRESHOLD",
    () => sealEnvelope(Buffer.alloc(Math.floor(MANIFEST_BYTES * 0.74)), strangers),
  ],
  ["lists in lists", "ENVELOPE_INVALID", () => filled("[", MANIFEST_BYTES)],
  ["objects in objects", "ENVELOPE_INVALID", () => filled('{"payload":', MANIFEST_BYTES)],
  ["white space", "ENVELOPE_INVALID", () => filled(" ", MANIFEST_BYTES)],
  ["text of two bytes a character", "ENVELOPE_INVALID", () => filled("ü", MANIFEST_BYTES / 2)],
];

describe("what is not verified costs little memory and few words", () => {
  test.each(unsigned)("on a stick: %s: %s", async (_, code, make) => {
    const manifest = make(await world.envelope());
    await writeFile(world.manifestFile, manifest);
    await refusesCheaply(code, Buffer.byteLength(manifest));
  });

  test.each(unsigned.slice(0, 4))("over HTTP: %s: %s", async (_, code, make) => {
    const manifest = Buffer.from(make(await world.envelope()));
    const server = await startServer(world.mirror, (request, response) => {
      if (!request.url?.endsWith("manifest.json")) return false;
      // In chunks, without its length.
      response.writeHead(200);
      response.end(manifest);
      return true;
    });
    onTestFinished(() => {
      server.close();
    });
    world.configure({ mirrors: [server.url] });
    await refusesCheaply(code, manifest.length, { by: "http" });
  });
});

describe("an index by a thief of the release key costs little memory", () => {
  const rest = '{"formatVersion":1,"compression":"zstd","paths":[';
  const sha = "a".repeat(64);
  const path = (at: number): string =>
    JSON.stringify({
      path: `${at.toString().padStart(32, "0")}-x`,
      narHash: `sha256:${"0".repeat(52)}`,
      ...{ narSize: 1, references: [], signatures: [] },
      nar: { offset: 512 * at, size: 1, sha256: sha },
    });

  const indexes: [string, ErrorCode, () => string][] = [
    ["paths that are empty objects", "INDEX_INVALID", () => `${rest}${filled("{},", 9e6)}{}]}`],
    [
      "one path with empty objects for references",
      "INDEX_INVALID",
      () => `${rest}{"references":[${filled("{},", 9e6)}{}]}]}`,
    ],
    [
      "one path with numbers for signatures",
      "INDEX_INVALID",
      () => `${rest}{"signatures":[${filled("1,", 1e6)}1]}]}`,
    ],
    [
      "archives that are numbers",
      "INDEX_INVALID",
      () => `{"formatVersion":1,"archives":[${filled("1,", 9e6)}1],"paths":[]}`,
    ],
    [
      "30,000 paths that nobody signed",
      "PATH_SIGNATURE",
      () => `${rest}${Array.from({ length: 30_000 }, (_, at) => path(at)).join(",")}]}`,
    ],
  ];

  /** Has the release name this text as its index, with right hashes and sizes. */
  async function nameIndex(text: string, level = 1): Promise<number> {
    const index = gzipSync(text, { level });
    const header = Buffer.alloc(512);
    const archive = Buffer.concat([header, index, Buffer.alloc(2048)]);
    const hash = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
    await writeFile(join(world.mirror, "archives", `${hash(archive)}.tar`), archive);
    await world.resign((manifest) => {
      const entry = manifest.hosts["web1"];
      if (!entry) throw new Error("the release does not name web1");
      entry.archive = {
        ...{ sha256: hash(archive), size: archive.length },
        index: { sha256: hash(index), size: index.length },
      };
    });
    return index.length;
  }

  test.each(indexes)("%s: %s", async (_, code, make) => {
    const text = make();
    await nameIndex(text);
    await refusesCheaply(code, text.length, { command: "apply" });
  });

  test("a bomb of 256 MiB: INDEX_INVALID", async () => {
    const size = await nameIndex(`${rest}${filled(" ", 256 * 1024 * 1024)}`, 9);
    // A megabyte and 64 times its compressed size are unpacked at most.
    await refusesCheaply("INDEX_INVALID", 64 * size, { command: "apply" });
  });
});

describe("what is not verified costs operators little memory", () => {
  const PAYLOAD_BYTES = 24_000_000;
  const counted = (part: (at: number) => string, bytes: number): string =>
    Array.from({ length: Math.floor(bytes / 12) }, (_, at) => part(at)).join(",");

  const payloads: [string, () => string][] = [
    ["hosts that are a list", () => `{"hosts":[${filled("{},", PAYLOAD_BYTES)}{}]}`],
    [
      "hosts that are empty",
      () =>
        `{"formatVersion":1,"channel":"stable","hosts":{${counted((at) => `"h${at}":{}`, PAYLOAD_BYTES)}}}`,
    ],
    ["lists in lists", () => filled("[", PAYLOAD_BYTES)],
    ["keys that no manifest has", () => `{${counted((at) => `"k${at}":0`, PAYLOAD_BYTES)}}`],
    [
      "one host's groups",
      () => `{"formatVersion":1,"hosts":{"web1":{"groups":[${filled("{},", PAYLOAD_BYTES)}{}]}}}`,
    ],
    ["checks", () => `{"defaults":{"activation":{"checks":[${filled("{},", PAYLOAD_BYTES)}{}]}}}`],
  ];

  /** An operator's command; gives its peak of memory. */
  async function peakOfCommand(
    args: readonly string[],
  ): Promise<{ peak: number; stderr: string; exitCode: number | null }> {
    return withPeak((env) => world.command(args, env));
  }

  /** The stick, the draft and the commands that read them, with what they say to a bad one. */
  function commands(): { stick: string; file: string; rows: [string[], RegExp | null][] } {
    const [stick = "", file = "", memory = ""] = ["stick", "draft.json", "signer.memory"].map(
      (name) => join(world.directory, name),
    );
    const trusted = ["--public-key", world.key.publicKey];
    return {
      ...{ stick, file },
      rows: [
        [["mirror", world.mirror, stick, ...trusted, "--dry-run"], null],
        [["sign", file, "--key", world.key.secretFile, "--memory", memory], /MANIFEST_INVALID/],
        [["verify", file, ...trusted], /SIGNATURE_THRESHOLD/],
      ],
    };
  }

  /** Writes an envelope where each of the commands reads one. */
  async function place(envelope: string | Buffer): Promise<void> {
    const { stick, file } = commands();
    await mkdir(join(stick, "channels", "stable"), { recursive: true });
    await writeFile(join(stick, "channels", "stable", "manifest.json"), envelope);
    await writeFile(file, envelope);
  }

  test.each(payloads)("mirror --dry-run, sign and verify: %s", async (_, make) => {
    await place(await readFile(world.manifestFile));
    const baselines: number[] = [];
    for (const [args] of commands().rows) {
      const { peak, exitCode, stderr } = await peakOfCommand(args);
      expect(exitCode, stderr).toBe(0);
      baselines.push(peak);
    }
    const envelope = sealEnvelope(Buffer.from(make()), []);
    await place(envelope);
    for (const [at, [args, refused]] of commands().rows.entries()) {
      const { peak, exitCode, stderr } = await peakOfCommand(args);
      if (refused) expect(stderr).toMatch(refused);
      else expect(exitCode, stderr).toBe(0);
      const before = baselines[at] ?? 0;
      expect(peak - before, `${args[0]}: ${peak} bytes, ${before} without`).toBeLessThan(
        1.5 * envelope.length + SLACK_BYTES,
      );
      expect(stderr.length).toBeLessThan(MAX_SAID_BYTES);
    }
  });

  test("releases that a stick retains are read one after the other, and none that is too long", async () => {
    const { stick } = commands();
    const copy = ["mirror", world.mirror, stick, "--public-key", world.key.publicKey];
    const before = await peakOfCommand(copy);
    expect(before.exitCode, before.stderr).toBe(0);
    const size = 60_000_000;
    for (const at of Array(6).keys()) {
      const file = join(stick, ".publish", "releases", "stable", `0-${at + 10}.json`);
      await writeFile(file, "");
      await truncate(file, at === 5 ? 10 * size : size);
    }
    const { peak, exitCode, stderr } = await peakOfCommand([...copy, "--keep", "3"]);
    expect(exitCode, stderr).toBe(0);
    expect(peak - before.peak).toBeLessThan(1.5 * size + SLACK_BYTES);
  });
});
