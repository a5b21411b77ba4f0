import { mkdtemp, readFile, readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  hasTrustedSignature,
  narFileName,
  narInfoFileName,
  parseNarInfo,
  pathFingerprint,
  renderNarInfo,
  signPath,
  type NarInfo,
} from "../../../../agent/core/formats/narinfo.ts";
import { storePathName } from "../../../../agent/core/formats/store-path.ts";
import { buildSystem } from "../../../support/closure.ts";
import { failureOf } from "../../../support/failure.ts";
import { nix } from "../../../support/real-nix.ts";
import { sampleDigest, samplePath } from "../../../support/sample-release.ts";
import { removeTree, temporaryDirectory } from "../../../support/temporary.ts";
import { secretKeyText, testKey } from "../../../support/test-key.ts";

const KEY = testKey("fleet-1");

const INFO: NarInfo = {
  storePath: storePathName(samplePath("program-2.0")),
  compression: "zstd",
  fileSha256: sampleDigest("file"),
  fileSize: 1234,
  narHash: `sha256:${"0".repeat(52)}`,
  narSize: 5678,
  references: [samplePath("library-1.0"), samplePath("program-2.0")].map(storePathName).sort(),
  signatures: [],
};

function signed(info: NarInfo, ...keys: readonly (typeof KEY)[]): NarInfo {
  return { ...info, signatures: keys.map((key) => signPath(key, pathFingerprint(info))) };
}

describe("a binary cache that real Nix wrote", () => {
  let directory: string;
  let toplevel: string;
  /** File name → text, as `nix copy` signed and wrote it. */
  const written = new Map<string, string>();

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "nixos-pull-test-"));
    toplevel = await buildSystem();
    const keyFile = join(directory, "secret");
    await writeFile(keyFile, secretKeyText("fleet-1"));
    const cache = join(directory, "cache");
    nix(["copy", "--to", `file://${cache}?compression=zstd&secret-key=${keyFile}`, toplevel]);
    for (const name of await readdir(cache)) {
      if (name.endsWith(".narinfo")) written.set(name, await readFile(join(cache, name), "utf8"));
    }
  });
  afterAll(() => removeTree(directory));

  /** Our own rendering of what Nix wrote, signed by us. */
  function ours(text: string, file: string): NarInfo {
    const { url: _, ...parsed } = parseNarInfo(text, file);
    return signed({ ...parsed, signatures: [] }, KEY);
  }

  test("is read and rendered again to the same text, Nix's signature included", () => {
    expect(written.size).toBeGreaterThanOrEqual(5);
    for (const [file, text] of written) {
      // Nix also writes which derivation made a path; nothing here depends on it.
      const expected = text.replace(/^Deriver: .*\n/m, "");
      expect(renderNarInfo(ours(text, file))).toBe(expected);
    }
  });

  test("has the file names that we derive", () => {
    for (const [file, text] of written) {
      const parsed = parseNarInfo(text, file);
      expect(narInfoFileName(parsed.storePath)).toBe(file);
      expect(narFileName(parsed.fileSha256, parsed.compression)).toBe(parsed.url);
    }
  });

  test("has a path that refers to itself, and one without references", () => {
    const infos = [...written].map(([file, text]) => parseNarInfo(text, file));
    expect(infos.some(({ storePath, references }) => references.includes(storePath))).toBe(true);
    expect(infos.some(({ references }) => references.length === 0)).toBe(true);
  });

  test("has signatures that we find valid, and not under another key of that name", () => {
    for (const [file, text] of written) {
      const { url: _, ...parsed } = parseNarInfo(text, file);
      const signatures = [...text.matchAll(/^Sig: (.*)$/gm)].map(
        ([, signature]) => signature ?? "",
      );
      const info = { ...parsed, signatures };
      expect(hasTrustedSignature(info, [KEY.publicKey])).toBe(true);
      expect(hasTrustedSignature(info, [testKey("fleet-1", "other").publicKey])).toBe(false);
    }
  });

  test("is what `nix store sign` signs", () => {
    const keyFile = join(directory, "secret");
    const cache = `file://${join(directory, "sign")}?compression=none`;
    nix(["copy", "--to", cache, toplevel]);
    nix(["store", "sign", "--store", cache, "--key-file", keyFile, "--recursive", toplevel]);
    const listed = nix(["path-info", "--json", "--recursive", "--store", cache, toplevel]);
    const infos = JSON.parse(listed) as { path: string; signatures: string[] }[];
    expect(infos).toHaveLength(written.size);
    for (const { path, signatures } of infos) {
      const file = narInfoFileName(storePathName(path));
      expect(signatures).toEqual(ours(written.get(file) ?? "", file).signatures);
    }
  });

  test("is imported by real Nix with our narinfos, and refused under another key", async () => {
    const target = await temporaryDirectory();
    for (const [file, text] of written) {
      await writeFile(join(directory, "cache", file), renderNarInfo(ours(text, file)));
    }
    const copy = (key: string): string =>
      nix([
        ...["copy", "--from", `file://${join(directory, "cache")}`, toplevel],
        ...["--store", `local?root=${target}`],
        ...["--option", "trusted-public-keys", key, "--option", "require-sigs", "true"],
      ]);
    expect(() => copy(testKey("fleet-1", "other").publicKey.text)).toThrow("signature");
    copy(KEY.publicKey.text);
    expect(await readFile(join(target, toplevel, "nixos-version"), "utf8")).toBe("1\n");
  });
});

describe("a narinfo", () => {
  const text = renderNarInfo(signed(INFO, KEY));

  test("has its fields in Nix's order, ended by a newline", () => {
    expect(text.split("\n").map((line) => line.split(":")[0])).toEqual([
      "StorePath",
      "URL",
      "Compression",
      "FileHash",
      "FileSize",
      "NarHash",
      "NarSize",
      "References",
      "Sig",
      "",
    ]);
  });

  test.each(["zstd", "xz", "none"] as const)("is read back as it was, compressed by %s", (by) => {
    const { signatures: _, ...facts } = { ...INFO, compression: by };
    const parsed = parseNarInfo(renderNarInfo({ ...facts, signatures: [] }), "x.narinfo");
    expect(parsed).toEqual({ ...facts, url: narFileName(facts.fileSha256, by) });
  });

  test("keeps its content address", () => {
    const ca = `fixed:r:sha256:${"0".repeat(52)}`;
    expect(parseNarInfo(renderNarInfo({ ...INFO, ca }), "x.narinfo").ca).toBe(ca);
  });

  test("without references is read as one without references", () => {
    const alone = renderNarInfo({ ...INFO, references: [] });
    expect(alone).toContain("\nReferences: \n");
    expect(parseNarInfo(alone, "x.narinfo").references).toEqual([]);
    expect(parseNarInfo(alone.replace("References: \n", ""), "x.narinfo").references).toEqual([]);
  });

  test.each([
    ["no StorePath", /^StorePath: .*\n/m, "", "field StorePath"],
    ["a store elsewhere", "/nix/store/", "/gnu/store/", "field StorePath"],
    ["a path below a store path", "program-2.0\nURL", "program-2.0/bin\nURL", "not a store path"],
    ["a reference with a slash", "References: ", "References: ../x ", "not a store path"],
    ["a URL that leads upwards", "URL: nar/", "URL: nar/../", "field URL"],
    ["a URL on another server", "URL: nar/", "URL: https://x/nar/", "field URL"],
    ["an absolute URL", "URL: nar/", "URL: /nar/", "field URL"],
    ["an unknown compression", "Compression: zstd", "Compression: brotli", "field Compression"],
    ["no FileHash", /^FileHash: .*\n/m, "", "field FileHash"],
    [
      "a FileHash in hex",
      /^FileHash: .*$/m,
      `FileHash: sha256:${"a".repeat(64)}`,
      "field FileHash",
    ],
    [
      "a FileHash with stray bits",
      /^FileHash: .*$/m,
      `FileHash: sha256:z${"0".repeat(51)}`,
      "FileHash",
    ],
    ["a negative FileSize", "FileSize: ", "FileSize: -", "field FileSize"],
    ["a FileSize of zero", /^FileSize: .*$/m, "FileSize: 0", "field FileSize"],
    ["a FileSize in hex", "FileSize: ", "FileSize: 0x", "field FileSize"],
    ["a FileSize that is no exact number", "FileSize: ", `FileSize: ${"9".repeat(16)}`, "FileSize"],
    ["another kind of NarHash", "NarHash: sha256:", "NarHash: md5:", "field NarHash"],
    ["no NarSize", /^NarSize: .*\n/m, "", "field NarSize"],
    ["a NarSize with a fraction", /^NarSize: .*$/m, "NarSize: 1.5", "field NarSize"],
    ["a bad content address", /$/, "CA: sha256:abc\n", "field CA"],
  ])("is refused with %s, naming file and field", (_, from, to, words) => {
    const failure = failureOf(() => parseNarInfo(text.replace(from, to), "abc.narinfo"));
    expect(failure.code).toBe("PUBLISH_FAILED");
    expect(failure.message).toContain("abc.narinfo: ");
    expect(failure.message).toContain(words);
  });

  test.each(["", "\n", "<html></html>", "StorePath"])("is refused as %j", (input) => {
    expect(failureOf(() => parseNarInfo(input, "x")).code).toBe("PUBLISH_FAILED");
  });
});

describe("a path's signature", () => {
  test("covers path, NAR hash, NAR size and references", () => {
    expect(pathFingerprint(INFO).toString()).toBe(
      `1;/nix/store/${INFO.storePath};${INFO.narHash};5678;` +
        INFO.references.map((name) => `/nix/store/${name}`).join(","),
    );
    const good = signed(INFO, KEY);
    expect(hasTrustedSignature(good, [KEY.publicKey])).toBe(true);
    const { signatures } = good;
    for (const change of [
      { storePath: storePathName(samplePath("program-2.1")) },
      { narHash: `sha256:${"1".repeat(52)}` },
      { narSize: 5679 },
      { references: INFO.references.slice(1) },
      { references: [] },
    ]) {
      expect(hasTrustedSignature({ ...INFO, ...change, signatures }, [KEY.publicKey])).toBe(false);
    }
  });

  test("does not cover how the NAR is compressed", () => {
    const { signatures } = signed(INFO, KEY);
    const recompressed = { ...INFO, compression: "xz" as const, fileSize: 1, signatures };
    expect(hasTrustedSignature(recompressed, [KEY.publicKey])).toBe(true);
  });

  test("counts where any one of several is by any one of the trusted keys", () => {
    const info = signed(INFO, testKey("stranger"), KEY);
    expect(hasTrustedSignature(info, [testKey("x").publicKey, KEY.publicKey])).toBe(true);
    expect(hasTrustedSignature(info, [testKey("x").publicKey])).toBe(false);
    expect(hasTrustedSignature(info, [])).toBe(false);
  });

  test("counts only under its own key's name, as Nix looks keys up by name", () => {
    const info = signed(INFO, testKey("renamed", "fleet-1"));
    expect(hasTrustedSignature(info, [KEY.publicKey])).toBe(false);
  });

  test.each(["", "fleet-1", "fleet-1:", "fleet-1:AAAA", `fleet-1:${"A".repeat(86)}==`, ":"])(
    "that reads %j is not valid",
    (signature) => {
      expect(hasTrustedSignature({ ...INFO, signatures: [signature] }, [KEY.publicKey])).toBe(
        false,
      );
    },
  );

  test("is needed if the path is content-addressed, too", () => {
    const info = { ...INFO, ca: `text:sha256:${"0".repeat(52)}` };
    expect(hasTrustedSignature(info, [KEY.publicKey])).toBe(false);
  });
});
