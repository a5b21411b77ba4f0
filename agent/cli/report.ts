import { signedReport } from "../host/report/host-report.ts";
import { composeTools } from "../host/compose.ts";
import { EXIT } from "../core/errors.ts";
import { writeDurably } from "../effects/files/durable-file.ts";
import { silentLog } from "../effects/host/log.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { note, printLine } from "./display/output.ts";

function definition() {
  return hostCommand("report", "print a signed report about this host")
    .option("-o, --out <file>", "write it to a file")
    .option("--public-key", "print the key that this host signs with instead");
}

export const reportCommand: CommandMaker = ({ finish }) =>
  definition().action((options) => {
    finish(report(options));
  });

/** `nixos-pull report`: this host's signed statement about itself, or the key that signs it. */
async function report(options: OptionsOf<typeof definition>): CommandResult {
  const settings = await loadSettings(options.config);
  const { envelope, publicKey } = await signedReport(composeTools(settings, silentLog));
  if (options.publicKey) {
    printLine(publicKey);
  } else if (options.out === undefined) {
    process.stdout.write(envelope);
  } else {
    await writeDurably(options.out, envelope, 0o644);
    note(`Wrote ${options.out}, signed with ${publicKey}`);
  }
  return EXIT.ok;
}
