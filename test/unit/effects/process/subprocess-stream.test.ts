import { expect, test } from "vitest";
import { ProcessFailure, streamProcess } from "../../../../agent/effects/process/subprocess.ts";

const OPTIONS = { env: { PATH: process.env["PATH"] ?? "" }, timeoutMs: 100_000 };

async function collect(output: AsyncIterable<Buffer>): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of output) pieces.push(piece);
  return Buffer.concat(pieces).toString("utf8");
}

async function* pieces(count: number, size = 64 * 1024): AsyncGenerator<Buffer> {
  for (let at = 0; at < count; at++) yield Buffer.alloc(size, "x");
}

test("output is given as it comes, and the result is the consumer's", async () => {
  expect(await streamProcess("echo", ["hello"], OPTIONS, collect)).toBe("hello\n");
});

test("nothing is lost where the program has ended before anybody reads", async () => {
  const late = await streamProcess("echo", ["hello"], OPTIONS, async (output) => {
    await new Promise((resolve) => setTimeout(resolve, 300));
    return collect(output);
  });
  expect(late).toBe("hello\n");
});

test("input of any length goes through, however slowly it is taken", async () => {
  const options = { ...OPTIONS, input: pieces(100) };
  const length = await streamProcess("cat", [], options, async (output) => {
    let bytes = 0;
    for await (const piece of output) {
      bytes += piece.length;
      await new Promise((resolve) => setImmediate(resolve));
    }
    return bytes;
  });
  expect(length).toBe(100 * 64 * 1024);
});

test("a program that stops reading is no trouble", async () => {
  const options = { ...OPTIONS, input: pieces(1_000) };
  expect(await streamProcess("head", ["-c", "3"], options, collect)).toBe("xxx");
});

test("a program that fails is told with its last words", async () => {
  const running = streamProcess("sh", ["-c", "echo no luck >&2; exit 3"], OPTIONS, collect);
  await expect(running).rejects.toThrow(ProcessFailure);
  await expect(running).rejects.toThrow("sh ended with exit code 3: no luck");
});

test("a consumer that has seen enough ends the program, and its error is the result", async () => {
  const running = streamProcess("cat", ["/dev/zero"], OPTIONS, async (output) => {
    for await (const piece of output) if (piece.length > 0) throw new Error("too much");
  });
  await expect(running).rejects.toThrow("too much");
});

test("an input that breaks off ends the program", async () => {
  const input = (async function* () {
    yield Buffer.from("a");
    throw new Error("torn");
  })();
  await expect(streamProcess("cat", [], { ...OPTIONS, input }, collect)).rejects.toThrow("torn");
});

test("a program that is not there, too slow or interrupted has its code", async () => {
  await expect(streamProcess("no-such-program", [], OPTIONS, collect)).rejects.toMatchObject({
    code: "TOOL_MISSING",
  });
  const slow = streamProcess("sleep", ["60"], { ...OPTIONS, timeoutMs: 50 }, collect);
  await expect(slow).rejects.toMatchObject({ code: "TOOL_TIMEOUT" });
  const stop = new AbortController();
  const stopped = streamProcess("sleep", ["60"], { ...OPTIONS, signal: stop.signal }, collect);
  stop.abort();
  await expect(stopped).rejects.toMatchObject({ code: "INTERRUPTED" });
});

test("a consumer that stops early does not hold the program up", async () => {
  const first = await streamProcess("head", ["-c", "3000000", "/dev/zero"], OPTIONS, async (it) => {
    for await (const piece of it) return piece.length;
    return 0;
  });
  expect(first).toBeGreaterThan(0);
});

test("a daemon that keeps the output open is not waited for after the time limit", async () => {
  const options = { ...OPTIONS, timeoutMs: 2_000 };
  let daemon = 0;
  const running = streamProcess("sh", ["-c", "setsid sleep 60 & echo $!"], options, async (it) => {
    for await (const piece of it) daemon = Number(piece.toString());
  });
  await expect(running).rejects.toMatchObject({ code: "TOOL_TIMEOUT" });
  process.kill(daemon, "SIGKILL");
});
