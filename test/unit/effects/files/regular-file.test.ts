import { constants, link, mkdir, symlink, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { openRegularFile, readRegularFile } from "../../../../agent/effects/files/regular-file.ts";
import { runProcess } from "../../../../agent/effects/process/subprocess.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const OPTIONS = { code: "MIRROR_STATUS", maxBytes: 10 } as const;

/** What is said about something that is not the expected file. */
async function refusal(
  path: string,
  options: Partial<Parameters<typeof readRegularFile>[1]> = {},
): Promise<string> {
  const error = await rejectionOf(readRegularFile(path, { ...OPTIONS, ...options }));
  expect(error.code).toBe("MIRROR_STATUS");
  return error.message.replace(`${path}: `, "");
}

describe("a file that somebody else may have put there", () => {
  test("is read up to its limit", async () => {
    const path = join(await temporaryDirectory(), "file");
    await writeFile(path, "0123456789");
    expect((await readRegularFile(path, OPTIONS)).toString()).toBe("0123456789");
    await writeFile(path, "0123456789a");
    expect(await refusal(path)).toBe("expected at most 10 bytes, found 11");
  });

  test("is bounded also if it does not tell its size", async () => {
    const path = "/proc/self/status";
    expect(await refusal(path)).toBe("expected at most 10 bytes, found more");
    const all = await readRegularFile(path, { ...OPTIONS, maxBytes: 1_000_000 });
    expect(all.toString()).toMatch(/^Name:/);
  });

  test("of many pieces comes whole", async () => {
    const path = join(await temporaryDirectory(), "file");
    await writeFile(path, "x");
    await truncate(path, 1_000_000);
    expect(await readRegularFile(path, { ...OPTIONS, maxBytes: 1_000_000 })).toHaveLength(
      1_000_000,
    );
  });

  test("that does not exist is the operating system's error", async () => {
    const path = join(await temporaryDirectory(), "file");
    await expect(readRegularFile(path, OPTIONS)).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("behind a link is read only if that is wanted", async () => {
    const path = join(await temporaryDirectory(), "link");
    await writeFile(`${path}.target`, "text");
    await symlink(`${path}.target`, path);
    expect(await refusal(path)).toBe("expected a regular file and no link, found a symbolic link");
    const read = await readRegularFile(path, { ...OPTIONS, followLink: true });
    expect(read.toString()).toBe("text");
  });

  test("with another name is refused only if that is wanted", async () => {
    const path = join(await temporaryDirectory(), "file");
    await writeFile(path, "text");
    await link(path, `${path}.other`);
    expect((await readRegularFile(path, OPTIONS)).toString()).toBe("text");
    expect(await refusal(path, { onlyName: true })).toBe(
      "expected a regular file with only this name, found one with 2 names",
    );
  });

  test("that is none is refused, and never waited for", async () => {
    const directory = await temporaryDirectory();
    const [fifo, socket] = [join(directory, "fifo"), join(directory, "socket")];
    await runProcess("mkfifo", [fifo], {
      env: { PATH: process.env["PATH"] ?? "" },
      timeoutMs: 100_000,
    });
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    onTestFinished(() => void server.close());
    await mkdir(join(directory, "directory"));
    expect(await refusal(join(directory, "directory"))).toContain("found a directory");
    expect(await refusal(fifo)).toContain("found a FIFO");
    expect(await refusal("/dev/zero")).toContain("found a device");
    expect(await refusal(socket)).toContain("found something else");
    // Nobody reads the FIFO: a writer would wait, too.
    const write = openRegularFile(fifo, { code: "MIRROR_STATUS", flags: constants.O_WRONLY });
    expect((await rejectionOf(write)).message).toContain("found something else");
  });
});
