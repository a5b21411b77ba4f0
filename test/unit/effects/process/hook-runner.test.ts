import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { systemHookRunner } from "../../../../agent/effects/process/hook-runner.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { expectEnd } from "../../../support/process-state.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const shell = (script: string, timeoutMs = 100_000, signal?: AbortSignal): Promise<void> =>
  systemHookRunner(
    { command: ["/bin/sh", "-c", script], variables: { WORD: "so" }, timeoutMs },
    signal,
  );

describe("a hook", () => {
  test("that succeeds sees what it is told, and nothing of the caller's own", async () => {
    process.env["OF_THE_CALLER"] = "secret";
    try {
      await shell('test "$WORD" = so && test -z "$OF_THE_CALLER"');
    } finally {
      delete process.env["OF_THE_CALLER"];
    }
  });

  test("that fails is told of with its last words, of either stream", async () => {
    const { code, message } = await rejectionOf(shell("echo first; echo last >&2; exit 7"));
    expect(code).toBe("HOOK_FAILED");
    expect(message).toMatch(/exit code 7: first \| last$/);
  });

  test("that does not end in time is ended, its children too", async () => {
    const file = join(await temporaryDirectory(), "children");
    // One child listens to the first signal and one ignores it; the hook itself listens.
    const script = `
      sleep 600 & echo $! >> ${file}
      sh -c 'trap "" TERM; echo $$ >> ${file}; exec sleep 600' &
      sleep 600`;
    const { code, message } = await rejectionOf(shell(script, 2_000));
    expect(code).toBe("HOOK_FAILED");
    expect(message).toContain("did not finish within");
    const children = (await readFile(file, "utf8")).trim().split("\n").map(Number);
    expect(children).toHaveLength(2);
    for (const child of children) await expectEnd(child);
  });

  test("that cannot be started fails", async () => {
    const run = { variables: {}, timeoutMs: 100_000 };
    const missing = await rejectionOf(systemHookRunner({ command: ["/no/such"], ...run }));
    expect(missing.code).toBe("HOOK_FAILED");
    const forbidden = await rejectionOf(systemHookRunner({ command: ["/etc/passwd"], ...run }));
    expect(forbidden.code).toBe("HOOK_FAILED");
  });

  test("is not waited for by an agent that has to stop", async () => {
    const stop = new AbortController();
    const stopped = rejectionOf(shell("sleep 300", 300_000, stop.signal));
    stop.abort();
    expect((await stopped).code).toBe("INTERRUPTED");
  });
});
