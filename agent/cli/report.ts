import { signedReport } from "../host/report/host-report.ts";
import { composeTools } from "../host/compose.ts";
import { EXIT } from "../core/errors.ts";
import { writeDurably } from "../effects/files/durable-file.ts";
import { silentLog } from "../effects/host/log.ts";
import type { CommandResult, HostOptions } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { note, printLine } from "./display/output.ts";

export interface ReportOptions extends HostOptions {
  readonly out?: string;
  readonly publicKey?: boolean;
}

/** `nixos-pull report`: this host's signed statement about itself, or the key that signs it. */
export async function report(options: ReportOptions): CommandResult {
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
