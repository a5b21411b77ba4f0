import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** One project for each speed; each has an npm script of its own. */
function suite(name: string, options: { testTimeout: number; parallel: boolean }) {
  return {
    test: {
      name,
      root: ROOT,
      include: [`test/${name}/**/*.test.ts`],
      globalSetup: [`${ROOT}test/support/build-once.ts`],
      testTimeout: options.testTimeout,
      // CI's machine is shared: a test that depends on real time may meet a busy moment.
      retry: process.env["CI"] === undefined ? 0 : 2,
      hookTimeout: options.testTimeout,
      fileParallelism: options.parallel,
    },
  };
}

/** What a crash leaves behind is not a matter of a busy moment: nothing is tried twice. */
function killSuite() {
  const { test } = suite("kill", { testTimeout: 120_000, parallel: true });
  const globalSetup = [...test.globalSetup, `${ROOT}test/kill/setup.ts`];
  return { test: { ...test, globalSetup, retry: 0, maxWorkers: 2, maxConcurrency: 2 } };
}

export default defineConfig({
  root: ROOT,
  test: {
    projects: [
      suite("unit", { testTimeout: 10_000, parallel: true }),
      suite("nixos-module", { testTimeout: 60_000, parallel: true }),
      suite("integration", { testTimeout: 60_000, parallel: true }),
      suite("hosts", { testTimeout: 10 * 60_000, parallel: false }),
      killSuite(),
      suite("slow", { testTimeout: 20 * 60_000, parallel: false }),
    ],
  },
});
