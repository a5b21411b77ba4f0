import { operatorCommand, type CommandMaker } from "../command.ts";
import { abortCommand } from "./abort.ts";
import { diffCommand } from "./diff.ts";
import { editCommand } from "./edit.ts";
import { pauseCommand } from "./pause.ts";
import { promoteCommand } from "./promote.ts";
import { resumeCommand } from "./resume.ts";
import { showCommand } from "./show.ts";

/** `nixos-pull release`: the commands about the release in force. None of them builds. */
export const releaseCommands: CommandMaker = (context) => {
  const release = operatorCommand("release", "show or change the release in force");
  for (const make of [
    ...[showCommand, diffCommand, pauseCommand, resumeCommand],
    ...[abortCommand, editCommand, promoteCommand],
  ]) {
    release.addCommand(make(context));
  }
  return release;
};
