import { mkdir, readFile, readdir, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as z from "zod";
import { readChecked, writeChecked } from "../../../../agent/effects/files/checked-file.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const schema = z.strictObject({ sequence: z.int(), name: z.string() });
const VALUE = { sequence: 7, name: "größe" };

async function written(value: unknown = VALUE): Promise<string> {
  const path = join(await temporaryDirectory(), "file.json");
  await writeChecked(path, value);
  return path;
}

test("what was written is read back", async () => {
  const path = await written();
  expect(await readChecked(path, schema)).toEqual({ kind: "read", value: VALUE });
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect((await readFile(path, "utf8")).endsWith("}\n")).toBe(true);
});

test("any JSON value is read back", async () => {
  const path = await written();
  await fc.assert(
    fc.asyncProperty(fc.jsonValue(), async (json) => {
      // What JSON itself loses (-0) is not this file's to keep.
      const value = JSON.parse(JSON.stringify(json)) as unknown;
      await writeChecked(path, json);
      expect(await readChecked(path, z.unknown())).toEqual({ kind: "read", value });
    }),
    { numRuns: 30 },
  );
});

test("a file that is not there is missing, one in a missing directory too", async () => {
  const directory = await temporaryDirectory();
  expect(await readChecked(join(directory, "file"), schema)).toEqual({ kind: "missing" });
  expect(await readChecked(join(directory, "a", "file"), schema)).toEqual({ kind: "missing" });
});

test("a directory in its place is damage, and is renamed when the file is written", async () => {
  const parent = await temporaryDirectory();
  const path = join(parent, "file.json");
  await mkdir(path);
  await writeFile(join(path, "somebody's"), "");
  expect(await readChecked(path, schema)).toEqual({
    kind: "damaged",
    why: `${path}: expected a regular file, found a directory`,
  });
  await writeChecked(path, VALUE);
  expect(await readChecked(path, schema)).toEqual({ kind: "read", value: VALUE });
  const [aside = ""] = (await readdir(parent)).filter((name) => name !== "file.json");
  expect(await readdir(join(parent, aside))).toEqual(["somebody's"]);
});

test("a bad sector is damage, and any other trouble is the operating system's error", async () => {
  const directory = await temporaryDirectory();
  const path = join(directory, "file.json");
  // Nothing is mapped at its beginning, so that reading it gives EIO (proc_pid_mem(5)).
  await symlink("/proc/self/mem", path);
  expect(await readChecked(path, schema)).toEqual({
    kind: "damaged",
    why: `${path} cannot be read: EIO: i/o error, read`,
  });
  await writeChecked(path, VALUE);
  expect(await readChecked(path, schema)).toEqual({ kind: "read", value: VALUE });
  const long = readChecked(join(directory, "x".repeat(300)), schema);
  await expect(long).rejects.toMatchObject({ code: "ENAMETOOLONG" });
});

describe("a damaged file", () => {
  test("torn anywhere is told from a whole one", async () => {
    const path = await written();
    const whole = await readFile(path);
    for (let length = 0; length < whole.length - 1; length += 7) {
      await writeFile(path, whole.subarray(0, length));
      const read = await readChecked(path, schema);
      expect(read).toEqual({
        kind: "damaged",
        why: expect.stringContaining("is not JSON") as string,
      });
    }
  });

  test("of zeros, as some file systems leave after a power cut, is damaged", async () => {
    const path = await written();
    await writeFile(path, Buffer.alloc((await stat(path)).size));
    expect(await readChecked(path, schema)).toMatchObject({ kind: "damaged" });
  });

  test("with any one byte altered is damaged, or still says the same", async () => {
    const path = await written();
    const whole = await readFile(path);
    await fc.assert(
      fc.asyncProperty(
        fc.nat({ max: whole.length - 1 }),
        fc.integer({ min: 1, max: 255 }),
        async (at, by) => {
          const altered = Buffer.from(whole);
          altered[at] = (altered[at] ?? 0) ^ by;
          await writeFile(path, altered);
          const read = await readChecked(path, schema);
          if (read.kind === "read") expect(read.value).toEqual(VALUE);
          else expect(read.kind).toBe("damaged");
        },
      ),
      { numRuns: 60 },
    );
  });

  test("by an altered value says that its checksum is wrong", async () => {
    const path = await written();
    await writeFile(path, (await readFile(path, "utf8")).replace("7", "6"));
    expect(await readChecked(path, schema)).toEqual({
      kind: "damaged",
      why: `${path} does not have its checksum`,
    });
  });

  test.each(["null", "7", "[]", "{}", '{"sha256":"x"}', '{"sha256":1,"value":1}'])(
    "that holds %s has no checksum, or not its own",
    async (text) => {
      const path = await written();
      await writeFile(path, text);
      expect(await readChecked(path, schema)).toMatchObject({ kind: "damaged" });
    },
  );

  test("with something beside value and checksum is damaged", async () => {
    const path = await written();
    const text = await readFile(path, "utf8");
    await writeFile(path, text.replace("{", '{"more":1,'));
    expect(await readChecked(path, schema)).toMatchObject({ kind: "damaged" });
  });

  test("of another form, though whole, is damaged", async () => {
    const path = await written({ sequence: "7", name: "x" });
    expect(await readChecked(path, schema)).toEqual({
      kind: "damaged",
      why: `${path} does not have the form that this version knows`,
    });
  });
});

test("what is nested too deeply for any version is damaged", async () => {
  const path = join(await temporaryDirectory(), "file.json");
  const deep = `${"[".repeat(20_000)}${"]".repeat(20_000)}`;
  await writeFile(path, `{"sha256":"${"0".repeat(64)}","value":{"sequence":7,"later":${deep}}}`);
  expect(await readChecked(path, schema)).toMatchObject({ kind: "damaged" });
});
