import { CommanderError } from "@commander-js/extra-typings";
import { errorDocumentSchema, errorJson, printJson } from "./cli/display/json.ts";
import { describeError, note } from "./cli/display/output.ts";
import { createProgram } from "./cli/program.ts";
import { EXIT, PullError, toPullError } from "./core/errors.ts";
import { processStrayErrors } from "./effects/process/stray-errors.ts";

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
  // A command ends at its next safe point; the service has a listener of its own.
  processStrayErrors.listen((error) => {
    stop.abort(error);
    // What would have gone on was lost with the error, and nothing is left that could end us.
    process.once("beforeExit", () => process.exit(tell(error, argv)));
  });
  let result: Promise<number> = Promise.resolve(EXIT.ok);
  try {
    const context = {
      signal: stop.signal,
      finish: (promise: Promise<number>) => {
        result = promise;
      },
    };
    const program = await createProgram(context, argv.slice(2));
    program.parse(argv);
    return await result;
  } catch (thrown) {
    if (thrown instanceof CommanderError) {
      // Help that was asked for, or that answers a command line without a command.
      return thrown.exitCode === 0 ? EXIT.ok : EXIT.usage;
    }
    const stray: unknown = stop.signal.reason;
    return tell(stray instanceof PullError ? stray : toPullError(thrown), argv);
  }
}

/** Prints an error; gives its exit code. */
function tell(error: PullError, argv: readonly string[]): number {
  if (asksForJson(argv)) printJson(errorDocumentSchema, { error: errorJson(error) });
  note(describeError(error));
  if (error.code === "INTERNAL") note(error.stack ?? "");
  return error.exitCode;
}

void main(process.argv).then((code) => {
  // Kept-alive connections would hold the process up; what was printed must be out first.
  process.stdout.write("", () => process.exit(code));
});
