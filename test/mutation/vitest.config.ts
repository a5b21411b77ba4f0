import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/**
 * The unit tests as Stryker runs them: one project without the build of the bundle, and only the
 * tests in MUTATION_TESTS (folders or files below the root, separated by commas). Unless
 * MUTATION_ISOLATES is set and not empty, these files share what they load; the worker is a new
 * one for each mutant all the same.
 */
export default defineConfig({
  root: ROOT,
  test: {
    root: ROOT,
    include: (process.env["MUTATION_TESTS"] ?? "test/unit")
      .split(",")
      .map((path) => (path.endsWith(".test.ts") ? path : `${path}/**/*.test.ts`)),
    setupFiles: [`${ROOT}test/mutation/no-shrinking.ts`],
    isolate: Boolean(process.env["MUTATION_ISOLATES"]),
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});
