/** One command of a document, and the lines that the document shows below it. */
export interface ShownCommand {
  readonly command: string;
  readonly shown: readonly string[];
}

/** A block of commands, fenced as `console` (with prompts and output) or `sh` (a script). */
export interface CommandBlock {
  readonly document: string;
  readonly line: number;
  /** The block's first line without its prompt: it names the block in lists. */
  readonly first: string;
  readonly commands: readonly ShownCommand[];
}

/** A fenced block of any language, without the indentation of a list around it. */
export interface FencedBlock {
  readonly language: string;
  readonly line: number;
  readonly text: string;
}

const PROMPT = /^[$#] /;

/** All fenced blocks of a Markdown text, in their order. */
export function fencedBlocks(markdown: string): FencedBlock[] {
  const fenced = /^( *)```([\w-]*)\n([\s\S]*?)^\1```$/gm;
  return Array.from(markdown.matchAll(fenced), ({ index, ...match }) => ({
    language: match[2] ?? "",
    line: markdown.slice(0, index).split("\n").length,
    text: (match[3] ?? "").replaceAll(new RegExp(`^${match[1] ?? ""}`, "gm"), ""),
  }));
}

/** The blocks of commands in a document, in their order. A block without a command is an error. */
export function commandBlocks(document: string, markdown: string): CommandBlock[] {
  return fencedBlocks(markdown)
    .filter(({ language }) => ["console", "sh", "bash", "shell"].includes(language))
    .map(({ language, line, text }) => {
      const commands =
        language === "console" ? consoleCommands(text) : [{ command: text, shown: [] }];
      const first = commands[0]?.command.split("\n")[0] ?? "";
      if (first === "") throw new Error(`${document}:${line}: a block without a command`);
      return { document, line, first, commands };
    });
}

/** Commands after a prompt, which a backslash continues, with the lines up to the next prompt. */
function consoleCommands(text: string): ShownCommand[] {
  const commands: { command: string; shown: string[] }[] = [];
  for (const line of text.trimEnd().split("\n")) {
    const last = commands.at(-1);
    if (PROMPT.test(line)) commands.push({ command: line.replace(PROMPT, ""), shown: [] });
    else if (last?.shown.length === 0 && last.command.endsWith("\\")) last.command += `\n${line}`;
    else last?.shown.push(line);
  }
  return commands;
}
