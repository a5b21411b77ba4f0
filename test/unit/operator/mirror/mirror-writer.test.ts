import { mkdir, readdir, symlink, utimes, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { MirrorWriter } from "../../../../agent/operator/mirror/mirror-writer.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const TMP = "tmp-0123456789ab";

async function put(root: string, ...names: string[]): Promise<void> {
  for (const name of names) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await writeFile(join(root, name), name);
  }
}

/** Opens a mirror for writing and closes it; gives the files that are left, and the warnings. */
async function visit(root: string): Promise<{ files: string[]; warnings: string[] }> {
  const warnings: string[] = [];
  const writer = await MirrorWriter.open(root, (message) => warnings.push(message));
  await writer.close();
  const names = await readdir(root, { recursive: true, withFileTypes: true });
  const files = names
    .filter((it) => !it.isDirectory())
    .map((it) => join(it.parentPath, it.name).slice(root.length + 1))
    .filter((name) => name !== ".publish/lock");
  return { files: files.sort(), warnings };
}

test("what a killed writer left under its temporary names is removed", async () => {
  const root = await temporaryDirectory();
  const draft = `.publish/drafts/stable/${"a".repeat(64)}.json`;
  const kept = ["channels/stable/manifest.json", ".publish/releases/stable/0-1.json", draft];
  await put(root, ...kept, ...kept.map((name) => `${name}.${TMP}`), `stick-contents.json.${TMP}`);
  expect((await visit(root)).files).toEqual(kept.sort());
});

test("a report that is being written stays; one that was left an hour ago goes", async () => {
  const root = await temporaryDirectory();
  const [fresh, old] = [`reports/web1.json.${TMP}`, `reports/web2.json.${TMP}`];
  await put(root, fresh, old);
  const before = new Date(Date.now() - 61 * 60_000);
  await utimes(join(root, old), before, before);
  expect((await visit(root)).files).toEqual([fresh]);
});

test("files of others, links and what they lead to stay", async () => {
  const [root, elsewhere] = [await temporaryDirectory(), await temporaryDirectory()];
  await put(elsewhere, `manifest.json.${TMP}`);
  const others = [
    ...["notes.txt.tmp-0123456789ab", "channels/stable/manifest.json.tmp", "archives/x.tmp-1"],
    ...[`channels/stable/index.html.${TMP}`, `channels/manifest.json.${TMP}`],
  ];
  await put(root, ...others);
  await symlink(elsewhere, join(root, "channels/linked"));
  await symlink(join(elsewhere, "x"), join(root, `channels/stable/manifest.json.${TMP}`));
  await symlink(elsewhere, join(root, "reports"));
  const links = ["channels/linked", `channels/stable/manifest.json.${TMP}`, "reports"];
  expect((await visit(root)).files).toEqual([...others, ...links].sort());
  expect(await readdir(elsewhere)).toEqual([`manifest.json.${TMP}`]);
});

test("a working directory that cannot be removed is a warning", async () => {
  const root = await temporaryDirectory();
  const warnings: string[] = [];
  const writer = await MirrorWriter.open(root, (message) => warnings.push(message));
  // More levels than are removed.
  await mkdir(join(writer.work, "a/".repeat(70)), { recursive: true });
  await writer.close();
  expect(warnings).toEqual([
    expect.stringContaining(`${writer.work} is not cleaned up: UNSAFE_FILE: `),
  ]);
});
