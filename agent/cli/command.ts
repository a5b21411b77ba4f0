import { Command, type CommandUnknownOpts } from "@commander-js/extra-typings";
import { configOption } from "./options/configuration.ts";

/** A command ends with an exit code; errors are thrown. */
export type CommandResult = Promise<number>;

/** What every command is given beside its own options. */
export interface CommandContext {
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  /** Takes what the chosen command does; the process ends with its exit code. */
  readonly finish: (result: CommandResult) => void;
}

/** Gives one command with its arguments, options, help and action, for `program` to assemble. */
export type CommandMaker = (context: CommandContext) => CommandUnknownOpts;

/** The options of the command that a function makes, as commander parses them. */
export type OptionsOf<Definition extends () => unknown> =
  ReturnType<Definition> extends Command<infer _Arguments, infer Options> ? Options : never;

/** A command that runs on a host and reads the host's configuration. */
export function hostCommand(name: string, summary: string) {
  return new Command(name)
    .helpGroup("On a host:")
    .description(summary)
    .addOption(configOption("configuration"));
}

/** A command that operators run on their own machine. */
export function operatorCommand(name: string, summary: string): Command {
  return new Command(name).helpGroup("For operators:").description(summary);
}
