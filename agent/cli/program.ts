import { Command, CommanderError, type CommandUnknownOpts } from "@commander-js/extra-typings";
import { PullError } from "../core/errors.ts";
import { applyCommand } from "./apply.ts";
import { bootCompleteCommand } from "./boot-complete.ts";
import { bootstrapCommand } from "./bootstrap.ts";
import { checkCommand } from "./check.ts";
import type { CommandContext, CommandMaker } from "./command.ts";
import { completionCommand } from "./completion.ts";
import { configCommand } from "./config.ts";
import { confirmCommand } from "./confirm.ts";
import { deadlineCommand } from "./deadline.ts";
import { fleetCommand } from "./fleet.ts";
import { historyCommand } from "./history.ts";
import { holdCommand } from "./hold.ts";
import { initCommand } from "./init.ts";
import { keygenCommand } from "./keygen.ts";
import { mirrorCommand } from "./mirror.ts";
import { optionCommand } from "./option.ts";
import { pruneCommand } from "./prune.ts";
import { publishCommand } from "./publish.ts";
import { releaseCommands } from "./release/release.ts";
import { repairCommand } from "./repair.ts";
import { reportCommand } from "./report.ts";
import { rollbackCommand } from "./rollback.ts";
import { runCommand } from "./run.ts";
import { signCommand } from "./sign.ts";
import { statusCommand } from "./status.ts";
import { unholdCommand } from "./unhold.ts";
import { verifyCommand } from "./verify.ts";
import { VERSION } from "./version.ts";

/** All commands, in the order of the help. */
const COMMANDS: readonly CommandMaker[] = [
  ...[runCommand, checkCommand, applyCommand, statusCommand, reportCommand, historyCommand],
  ...[configCommand, rollbackCommand, repairCommand, holdCommand, unholdCommand, confirmCommand],
  ...[keygenCommand, initCommand, optionCommand, bootstrapCommand, publishCommand, signCommand],
  ...[releaseCommands, pruneCommand, mirrorCommand, verifyCommand, fleetCommand],
  completionCommand,
];

/** Commands that units run, not people: no help, manual or completion names them. */
const HIDDEN_COMMANDS: readonly CommandMaker[] = [deadlineCommand, bootCompleteCommand];

/**
 * The command line. Parsing it gives `context.finish` what the chosen command does, throws
 * USAGE if the command line is wrong, and a CommanderError once help or the version is
 * printed; it never ends the process.
 */
export function createProgram(context: CommandContext): CommandUnknownOpts {
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
  for (const make of COMMANDS) program.addCommand(make({ ...context, finish }));
  for (const make of HIDDEN_COMMANDS) {
    program.addCommand(make({ ...context, finish }), { hidden: true });
  }
  setUp(program, "nixos-pull", program);
  return program;
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
  return withHint(new PullError("USAGE", what), title);
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
