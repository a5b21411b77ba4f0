// Two plugins of Stryker.
//
// The first is Stryker's own runner for Vitest with one gap closed: it looks at single tests only.
// If a file of tests fails while it is loaded, or in a beforeAll of the whole file, none of its
// tests has a result, and Stryker would count the mutant as survived. Here it is killed.
//
// The second leaves out mutants of code that the compiler proves to be unreachable.
import { strykerPlugins, strykerValidationSchema } from "@stryker-mutator/vitest-runner";

const [vitest] = strykerPlugins;

/** A result of a test, in Stryker's numbers. */
const FAILED = 1;

function createRunner(injector) {
  const runner = vitest.factory(injector);
  const { dryRun, mutantRun } = runner;

  /** What is said of a file of tests that failed in the last run, or null. */
  function failedFile() {
    const file = runner.ctx.state.getFiles().find(({ result }) => result?.state === "fail");
    return file ? `${file.name} failed: ${file.result.errors?.[0]?.message ?? "no reason"}` : null;
  }

  return Object.assign(runner, {
    async dryRun(options) {
      const result = await dryRun.call(runner, options);
      const errorMessage = failedFile();
      // If single tests failed, Stryker names them.
      if (result.tests?.some(({ status }) => status === FAILED)) return result;
      return errorMessage === null ? result : { status: "error", errorMessage };
    },
    async mutantRun(options) {
      const result = await mutantRun.call(runner, options);
      const failureMessage = failedFile();
      if (result.status !== "survived" || failureMessage === null) return result;
      return { status: "killed", killedBy: [], failureMessage, nrOfTests: result.nrOfTests };
    },
  });
}
createRunner.inject = vitest.factory.inject;

/** Leaves out `default: return x satisfies never;`. */
const unreachable = {
  shouldIgnore({ node }) {
    const [first] = node.type === "SwitchCase" && node.test === null ? node.consequent : [];
    const { type, typeAnnotation } = first?.argument ?? {};
    if (type !== "TSSatisfiesExpression" || typeAnnotation.type !== "TSNeverKeyword") return;
    return "The compiler proves that no value gets here.";
  },
};

/** Stryker finds them by these names. */
const plugins = [
  { ...vitest, name: "vitest-with-files", factory: createRunner },
  { kind: "Ignore", name: "unreachable", value: unreachable },
];
export { strykerValidationSchema, plugins as strykerPlugins };
