import {
  Argument,
  Command,
  type CommandUnknownOpts,
  type Option,
} from "@commander-js/extra-typings";
import { EXIT } from "../core/errors.ts";
import { printLine } from "./display/output.ts";
import type { CommandMaker } from "./command.ts";

/** Shells that `nixos-pull completion` writes a script for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** `nixos-pull completion`: prints the shell's completion script. */
export const completionCommand: CommandMaker = ({ finish }) =>
  new Command("completion")
    .helpGroup("Everywhere:")
    .description("print a shell's completion script")
    .addArgument(new Argument("<shell>", "the shell").choices(SHELLS))
    .action((shell, _options, command) => {
      if (command.parent) printLine(completionScript(shell, command.parent));
      finish(Promise.resolve(EXIT.ok));
    });

/** The script for `shell`, of every visible command and option of the program. */
export function completionScript(shell: Shell, program: CommandUnknownOpts): string {
  const help = program.createHelp();
  const commands = help.visibleCommands(program).map((command) => ({
    name: command.name(),
    description: command.description(),
    options: optionsOf(command).map(describeOption),
    values: valuesOf(command),
  }));
  const root = help.visibleOptions(program).map(describeOption);
  return WRITERS[shell]({ root, commands });
}

/** The options of a command and of its subcommands: completion does not see which one was chosen. */
export function optionsOf(command: CommandUnknownOpts): Option[] {
  const byFlags = new Map<string, Option>();
  for (const one of [command, ...command.commands]) {
    for (const option of one.createHelp().visibleOptions(one)) {
      byFlags.set(option.long ?? option.flags, option);
    }
  }
  return [...byFlags.values()];
}

function valuesOf(command: CommandUnknownOpts): Value[] {
  const names = command.commands.map((one) => one.name());
  if (names.length > 0) return [{ name: "command", words: names, isFile: false }];
  return command.registeredArguments.map(valueOf);
}

/** What may follow: one of some words, a file, or what only a person knows (`words` empty). */
interface Value {
  readonly name: string;
  readonly words: readonly string[];
  readonly isFile: boolean;
}

interface Flag {
  readonly flags: readonly string[];
  readonly description: string;
  readonly value: Value | null;
}

interface Described {
  readonly name: string;
  readonly description: string;
  readonly options: readonly Flag[];
  readonly values: readonly Value[];
}

interface DescribedProgram {
  readonly root: readonly Flag[];
  readonly commands: readonly Described[];
}

/** Names in angle brackets that stand for a file or directory. */
const FILE_NAMES = new Set(["file", "path", "directory", "program", "mirror", "release", "target"]);

function describeOption(option: Option): Flag {
  const name = /[<[]([^\]>]*)/.exec(option.flags)?.[1];
  return {
    flags: [option.short, option.long].filter((flag) => flag !== undefined),
    description: option.description,
    value: name === undefined ? null : makeValue(name, option.argChoices),
  };
}

function valueOf(argument: Argument): Value {
  return makeValue(argument.name(), argument.argChoices);
}

function makeValue(name: string, choices: readonly string[] | undefined): Value {
  return { name, words: choices ?? [], isFile: choices === undefined && FILE_NAMES.has(name) };
}

const WRITERS: Readonly<Record<Shell, (program: DescribedProgram) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

function bashScript({ root, commands }: DescribedProgram): string {
  const reply = (value: Value): string =>
    value.isFile ? "_nixos_pull_files" : `_nixos_pull_words ${quoted(value.words.join(" "))}`;
  const flagCases = commands.flatMap(({ name, options }) =>
    options.flatMap(({ flags, value }) =>
      value === null
        ? []
        : [
            `    ${flags.map((flag) => quoted(`${name} ${flag}`)).join("|")}) ${reply(value)}; return ;;`,
          ],
    ),
  );
  const words = (flags: readonly Flag[]): string => flags.flatMap((flag) => flag.flags).join(" ");
  const commandCases = commands.map(({ name, options, values }) => {
    const [value] = values;
    return `    ${quoted(name)}) flags=${quoted(words(options))}${value === undefined ? "" : `; rest=${quoted(reply(value))}`} ;;`;
  });
  return `# bash completion for nixos-pull
_nixos_pull_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current"); }
_nixos_pull_files() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -f -- "$current")
}
_nixos_pull() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}"
  local command="\${COMP_WORDS[1]}" flags="" rest=""
  COMPREPLY=()
  if (( COMP_CWORD < 2 )); then
    _nixos_pull_words ${quoted([...commands.map(({ name }) => name), words(root)].join(" "))}
    return
  fi
  # --option=value comes as three words.
  if [[ $previous == = ]]; then previous="\${COMP_WORDS[COMP_CWORD-2]}"; fi
  if [[ $current == = ]]; then current=""; fi
  case "$command $previous" in
${flagCases.join("\n")}
  esac
  case "$command" in
${commandCases.join("\n")}
  esac
  if [[ $current == -* || -z $rest ]]; then _nixos_pull_words "$flags"; else eval "$rest"; fi
}
complete -F _nixos_pull nixos-pull`;
}

function zshScript({ root, commands }: DescribedProgram): string {
  const escaped = (text: string): string => text.replace(/[\\:[\]]/g, "\\$&");
  const action = (value: Value): string =>
    value.isFile ? "_files" : value.words.length > 0 ? `(${value.words.join(" ")})` : " ";
  const specs = (options: readonly Flag[]): string[] =>
    options.flatMap(({ flags, description, value }) =>
      flags.map((flag) => {
        const after = value === null ? "" : `:${escaped(value.name)}:${action(value)}`;
        return quoted(`*${flag}[${escaped(description)}]${after}`);
      }),
    );
  const cases = commands.map(({ name, options, values }) => {
    const positions = values.map((value, at) =>
      quoted(`${String(at + 1)}:${escaped(value.name)}:${action(value)}`),
    );
    return `    ${name}) _arguments ${[...specs(options), ...positions].join(" ")} ;;`;
  });
  return `#compdef nixos-pull
_nixos-pull() {
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    local -a commands
    commands=(
${commands.map(({ name, description }) => `      ${quoted(`${name}:${escaped(description)}`)}`).join("\n")}
    )
    _describe command commands
    return
  fi
  if (( CURRENT == 2 )); then
    _arguments ${specs(root).join(" ")}
    return
  fi
  local command="$words[2]"
  shift words
  (( CURRENT-- ))
  case "$command" in
${cases.join("\n")}
  esac
}
# As a file on fpath it is the function itself; sourced, it has to be announced.
if [[ $funcstack[1] == _nixos-pull ]]; then _nixos-pull "$@"; else compdef _nixos-pull nixos-pull; fi`;
}

function fishScript({ root, commands }: DescribedProgram): string {
  const text = (words: string): string =>
    `'${words.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const after = (value: Value): string =>
    value.isFile
      ? "-r -F"
      : `-x${value.words.length > 0 ? ` -a ${text(value.words.join(" "))}` : ""}`;
  const line = (condition: string, { flags, description, value }: Flag): string =>
    [
      `complete -c nixos-pull -n ${text(condition)}`,
      ...flags.map((flag) =>
        flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`,
      ),
      ...(value === null ? [] : [after(value)]),
      `-d ${text(description)}`,
    ].join(" ");
  const lines = commands.flatMap(({ name, description, options, values }) => {
    const seen = `__fish_seen_subcommand_from ${name}`;
    const [value] = values;
    const positional = value?.isFile
      ? [`complete -c nixos-pull -n ${text(seen)} -F`]
      : value !== undefined && value.words.length > 0
        ? [`complete -c nixos-pull -n ${text(seen)} -a ${text(value.words.join(" "))}`]
        : [];
    return [
      `complete -c nixos-pull -n __fish_use_subcommand -a ${name} -d ${text(description)}`,
      ...options.map((option) => line(seen, option)),
      ...positional,
    ];
  });
  const rootLines = root.map((option) => line("__fish_use_subcommand", option));
  return [
    "# fish completion for nixos-pull",
    "complete -c nixos-pull -f",
    ...rootLines,
    ...lines,
  ].join("\n");
}

/** One word of a POSIX shell. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
