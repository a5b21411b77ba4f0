import { CommanderError } from "@commander-js/extra-typings";
import { errorDocumentSchema, errorJson, printJson } from "./cli/display/json.ts";
import { describeError } from "./cli/display/output.ts";
import { createProgram } from "./cli/program.ts";
import { EXIT, toPullError } from "./core/errors.ts";

/** Whether `--json` is given; also of a command line that could not be parsed. */
function asksForJson(argv: readonly string[]): boolean {
  const end = argv.indexOf("--");
  return (end < 0 ? argv : argv.slice(0, end)).includes("--json");
}

/** Runs one command line; gives the process exit code. */
async function main(argv: readonly string[]): Promise<number> {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    // A second signal has its usual effect and ends the process at once.
    process.once(signal, () => {
      stop.abort();
    });
  }
  let result: Promise<number> = Promise.resolve(EXIT.ok);
  const program = createProgram({
    signal: stop.signal,
    finish: (promise) => {
      result = promise;
    },
  });
  try {
    program.parse(argv);
    return await result;
  } catch (thrown) {
    if (thrown instanceof CommanderError) {
      // Help that was asked for, or that answers a command line without a command.
      return thrown.exitCode === 0 ? EXIT.ok : EXIT.usage;
    }
    const error = toPullError(thrown);
    if (asksForJson(argv)) printJson(errorDocumentSchema, { error: errorJson(error) });
    process.stderr.write(`${describeError(error)}\n`);
    if (error.code === "INTERNAL") process.stderr.write(`${error.stack ?? ""}\n`);
    return error.exitCode;
  }
}

void main(process.argv).then((code) => {
  // Kept-alive connections would hold the process up; what was printed must be out first.
  process.stdout.write("", () => process.exit(code));
});
