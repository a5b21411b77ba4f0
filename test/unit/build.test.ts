import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { buildAgent } from "../../scripts/build.mjs";
import { temporaryDirectory } from "../support/temporary.ts";

const before = process.env["SOURCE_DATE_EPOCH"];
afterEach(() => {
  if (before === undefined) delete process.env["SOURCE_DATE_EPOCH"];
  else process.env["SOURCE_DATE_EPOCH"] = before;
});

async function built(epoch: string): Promise<string> {
  process.env["SOURCE_DATE_EPOCH"] = epoch;
  const file = await buildAgent(join(await temporaryDirectory(), "nixos-pull.cjs"));
  return readFile(file, "utf8");
}

test("the same sources and source time give the same bundle, which knows that time", async () => {
  const bundle = await built("1767225600");
  expect(bundle).toContain('"2026-01-01T00:00:00.000Z"');
  expect(await built("1767225600")).toBe(bundle);
});

test("an empty source time is an unknown one, and never now", async () => {
  const bundle = await built("");
  expect(bundle).not.toContain(`"${new Date().toISOString().slice(0, 10)}`);
});

test("the bundle has no part of its packages that the agent never uses", async () => {
  const bundle = await built("1767225600");
  expect(bundle).toContain("node_modules/undici/lib/dispatcher/client.js");
  for (const part of ["undici/lib/web/websocket", "undici/lib/mock", "zod/v4/locales/de"]) {
    expect(bundle).not.toContain(part);
  }
});
