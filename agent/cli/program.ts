import { Command, CommanderError, type CommandUnknownOpts } from "@commander-js/extra-typings";
import { PullError } from "../core/errors.ts";
import type { CommandContext, CommandMaker } from "./command.ts";
import { VERSION } from "./version.ts";

/** Loads what makes a command. */
type CommandLoader = () => Promise<CommandMaker>;

/** All commands, in the order of the help. */
const COMMANDS: Readonly<Record<string, CommandLoader>> = {
  run: async () => (await import("./run.ts")).runCommand,
  check: async () => (await import("./check.ts")).checkCommand,
  apply: async () => (await import("./apply.ts")).applyCommand,
  status: async () => (await import("./status.ts")).statusCommand,
  report: async () => (await import("./report.ts")).reportCommand,
  history: async () => (await import("./history.ts")).historyCommand,
  doctor: async () => (await import("./doctor.ts")).doctorCommand,
  config: async () => (await import("./config.ts")).configCommand,
  rollback: async () => (await import("./rollback.ts")).rollbackCommand,
  repair: async () => (await import("./repair.ts")).repairCommand,
  hold: async () => (await import("./hold.ts")).holdCommand,
  unhold: async () => (await import("./unhold.ts")).unholdCommand,
  confirm: async () => (await import("./confirm.ts")).confirmCommand,
  keygen: async () => (await import("./keygen.ts")).keygenCommand,
  init: async () => (await import("./init.ts")).initCommand,
  option: async () => (await import("./option.ts")).optionCommand,
  bootstrap: async () => (await import("./bootstrap.ts")).bootstrapCommand,
  publish: async () => (await import("./publish.ts")).publishCommand,
  sign: async () => (await import("./sign.ts")).signCommand,
  release: async () => (await import("./release/release.ts")).releaseCommands,
  prune: async () => (await import("./prune.ts")).pruneCommand,
  mirror: async () => (await import("./mirror.ts")).mirrorCommand,
  verify: async () => (await import("./verify.ts")).verifyCommand,
  fleet: async () => (await import("./fleet.ts")).fleetCommand,
  completion: async () => (await import("./completion.ts")).completionCommand,
};

/** Commands that units run, not people: no help, manual or completion names them. */
const HIDDEN_COMMANDS: Readonly<Record<string, CommandLoader>> = {
  deadline: async () => (await import("./deadline.ts")).deadlineCommand,
  "boot-complete": async () => (await import("./boot-complete.ts")).bootCompleteCommand,
};

/**
 * The command line. Parsing it gives `context.finish` what the chosen command does, throws
 * USAGE if the command line is wrong, and a CommanderError once help or the version is
 * printed; it never ends the process. Of a command line that begins with a command, only that one
 * is loaded: a host's service has no use for what operators do, and it stays in memory for months.
 */
export async function createProgram(
  context: CommandContext,
  words: readonly string[] = [],
): Promise<CommandUnknownOpts> {
  const program = new Command("nixos-pull")
    .description("Pull-based release agent for NixOS hosts that nobody can SSH into.")
    .version(VERSION)
    .configureHelp({ showGlobalOptions: true });
  let chosen: CommandUnknownOpts = program;
  program.hook("preAction", (_, command) => {
    chosen = command;
  });
  const finish: CommandContext["finish"] = (result) => {
    const title = titleOf(chosen);
    context.finish(
      result.catch((error: unknown) => {
        throw isUsage(error) ? withHint(error, title) : error;
      }),
    );
  };
  for (const [name, load] of Object.entries(chosenOf(words))) {
    const make = await load();
    const isHidden = Object.hasOwn(HIDDEN_COMMANDS, name);
    program.addCommand(make({ ...context, finish }), { hidden: isHidden });
  }
  setUp(program, "nixos-pull", program);
  return program;
}

/** The command that the words begin with; all of them if that may be another or needs the others. */
function chosenOf([name = ""]: readonly string[]): Readonly<Record<string, CommandLoader>> {
  const all = { ...COMMANDS, ...HIDDEN_COMMANDS };
  const load = Object.hasOwn(all, name) && name !== "completion" ? all[name] : undefined;
  return load ? { [name]: load } : all;
}

/** Gives `command` and all below it the program's settings, and lets them throw usage errors. */
function setUp(command: CommandUnknownOpts, title: string, program: CommandUnknownOpts): void {
  if (command !== program) command.copyInheritedSettings(program);
  command.configureOutput({ outputError: () => undefined }).exitOverride((error) => {
    throw isUsageError(error) ? usageError(error, title) : error;
  });
  for (const below of command.commands) setUp(below, `${title} ${below.name()}`, program);
}

/** Whether the command line was wrong; if not, commander printed the help or the version. */
function isUsageError({ code, exitCode }: CommanderError): boolean {
  return exitCode !== 0 && code !== "commander.help";
}

function usageError({ message }: CommanderError, title: string): PullError {
  const what = message
    .replace(/^error: /, "")
    .replaceAll("\n", " ")
    .replace(/\.$/, "");
  return withHint(new PullError("USAGE", valueError(what) ?? what), title);
}

/** What commander says of a value that an option or argument does not take. */
const VALUE_ERROR =
  /^option '(?:-\w, )?(?<name>--[\w-]+)[^']*' argument '(?<found>.*)' is invalid\. (?<why>.+)$/s;
const ARGUMENT_ERROR =
  /^command-argument value '(?<found>.*)' is invalid for argument '(?<name>.*)'\. (?<why>.+)$/s;

/** The same in the words of all other messages: the option, what was expected, what was found. */
function valueError(message: string): string | null {
  const parts = (VALUE_ERROR.exec(message) ?? ARGUMENT_ERROR.exec(message))?.groups;
  if (!parts) return null;
  const { name = "", found = "", why = "" } = parts;
  const expected = why
    .replace(/^Allowed choices are (.*), (.*)$/s, "expected $1 or $2")
    .replace(/^Allowed choices are /, "expected ");
  return `${name}: ${expected}, found ${JSON.stringify(found)}`;
}

/** The same of an error that the command itself found. */
function withHint(error: PullError, title: string): PullError {
  const hint = `\`${title} --help\` shows what is possible`;
  return new PullError("USAGE", `${error.message}; ${hint}`, { cause: error });
}

function isUsage(error: unknown): error is PullError {
  return error instanceof PullError && error.code === "USAGE";
}

/** What a person types for a command, such as "nixos-pull release show". */
function titleOf(command: CommandUnknownOpts): string {
  const above = command.parent;
  return above ? `${titleOf(above)} ${command.name()}` : command.name();
}
