import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

const MINUTE_MS = 60_000;

/**
 * One project for each speed; each has an npm script of its own. Nothing is tried twice: a test
 * that fails now and then is a fault of the test or of the code.
 *
 * The time limits only end what hangs. They leave a slow machine, or one with a load of 30, about
 * thirty times what a test takes on a quiet one.
 */
function suite(name: string, options: { testTimeout: number; parallel: boolean }) {
  return {
    test: {
      name,
      root: ROOT,
      include: [`test/${name}/**/*.test.ts`],
      globalSetup: [`${ROOT}test/support/build-once.ts`],
      testTimeout: options.testTimeout,
      hookTimeout: options.testTimeout,
      fileParallelism: options.parallel,
    },
  };
}

function killSuite() {
  const { test } = suite("kill", { testTimeout: 10 * MINUTE_MS, parallel: true });
  const globalSetup = [...test.globalSetup, `${ROOT}test/kill/setup.ts`];
  return { test: { ...test, globalSetup, maxWorkers: 2, maxConcurrency: 2 } };
}

function compatibilitySuite() {
  const { test } = suite("compatibility", { testTimeout: 5 * MINUTE_MS, parallel: true });
  const globalSetup = [...test.globalSetup, `${ROOT}test/compatibility/setup.ts`];
  return { test: { ...test, globalSetup, maxWorkers: 2, maxConcurrency: 2 } };
}

function faultsSuite() {
  const { test } = suite("faults", { testTimeout: 60 * MINUTE_MS, parallel: true });
  return { test: { ...test, maxWorkers: 2 } };
}

export default defineConfig({
  root: ROOT,
  test: {
    projects: [
      suite("unit", { testTimeout: 2 * MINUTE_MS, parallel: true }),
      suite("nixos-module", { testTimeout: 5 * MINUTE_MS, parallel: true }),
      suite("integration", { testTimeout: 5 * MINUTE_MS, parallel: true }),
      suite("hosts", { testTimeout: 30 * MINUTE_MS, parallel: false }),
      killSuite(),
      compatibilitySuite(),
      faultsSuite(),
      suite("slow", { testTimeout: 60 * MINUTE_MS, parallel: false }),
    ],
  },
});
