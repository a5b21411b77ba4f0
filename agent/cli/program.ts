import { Argument, Command, InvalidArgumentError, Option } from "commander";
import { parseDuration } from "../core/duration.ts";
import { ACTIVATION_MODES } from "../core/manifest.ts";
import { COMPRESSIONS } from "../core/narinfo.ts";
import { DEFAULT_CONFIG_FILE } from "../core/settings.ts";
import { bootComplete } from "./boot-complete.ts";
import { apply, type ApplyOptions } from "./apply.ts";
import { check, type CheckOptions } from "./check.ts";
import { completion, SHELLS, type Shell } from "./completion.ts";
import { config, type ConfigOptions } from "./config.ts";
import type { CommandContext, CommandResult, HostOptions } from "./command.ts";
import { deadline, type DeadlineOptions } from "./deadline.ts";
import { history, type HistoryOptions } from "./history.ts";
import { keygen, type KeygenOptions } from "./keygen.ts";
import { prune, type PruneCommandOptions } from "./prune.ts";
import { publish, type PublishCommandOptions } from "./publish.ts";
import { report, type ReportOptions } from "./report.ts";
import { rollback, type RollbackOptions } from "./rollback.ts";
import { run } from "./run.ts";
import { sign, type SignOptions } from "./sign.ts";
import { status, type StatusOptions } from "./status.ts";
import { verify, type VerifyOptions } from "./verify.ts";
import { VERSION } from "./version.ts";

/**
 * The command line. `finish` takes the promise of the chosen command's exit code; the
 * program itself never ends the process.
 */
export function createProgram(
  context: CommandContext,
  finish: (result: CommandResult) => void,
): Command {
  const program = new Command("nixos-pull")
    .description("Pull-based release agent for NixOS hosts that nobody can SSH into.")
    .version(VERSION)
    .showHelpAfterError("(nixos-pull --help shows what is possible)")
    .configureHelp({ showGlobalOptions: true });

  const host = (name: string, summary: string): Command =>
    program
      .command(name)
      .helpGroup("On a host:")
      .description(summary)
      .addOption(
        new Option("-c, --config <file>", `configuration (default: ${DEFAULT_CONFIG_FILE})`),
      );
  const operator = (name: string, summary: string): Command =>
    program.command(name).helpGroup("For operators:").description(summary);

  host("run", "poll the mirrors and apply releases, as a service").action(
    (options: HostOptions) => {
      finish(run(options, context));
    },
  );
  host("check", "say what would happen now, and why not")
    .option("--json", "print JSON")
    .option("--exit-code", "exit with 20 where an update would be applied")
    .action((options: CheckOptions) => {
      finish(check(options, context));
    });
  host("apply", "poll once and apply the release now")
    .option("--json", "print JSON")
    .option("--again", "also what failed here before, or was changed by hand")
    .option("--accept-state-loss", "start anew where the state directory is damaged")
    .action((options: ApplyOptions) => {
      finish(apply(options, context));
    });
  host("status", "show what this host is and what the agent does")
    .option("--json", "print JSON")
    .option("-w, --watch", "show it again whenever it changes")
    .action((options: StatusOptions) => {
      finish(status(options, context));
    });
  host("report", "print a signed report about this host")
    .option("-o, --out <file>", "write it to a file")
    .option("--public-key", "print the key that this host signs with instead")
    .action((options: ReportOptions) => {
      finish(report(options));
    });
  host("history", "show what happened on this host")
    .option("--json", "print JSON")
    .option("-n, --lines <count>", "how many entries, newest last", positive, 50)
    .action((options: HistoryOptions) => {
      finish(history(options));
    });
  host("config", "check the configuration, without a mirror or a store")
    .option("--json", "print it with its defaults, durations in milliseconds")
    .action((options: ConfigOptions) => {
      finish(config(options));
    });
  host("rollback", "go back to the generation before, and stay there")
    .option("--json", "print JSON")
    .option("-g, --generation <number>", "go to this generation instead", positive)
    .action((options: RollbackOptions) => {
      finish(rollback(options));
    });

  program
    .command("deadline", { hidden: true })
    .requiredOption("-c, --config <file>", "the configuration of the agent that armed it")
    .requiredOption("--system <toplevel>", "the system that must be committed by now")
    .action((options: DeadlineOptions) => {
      finish(deadline(options));
    });

  program
    .command("boot-complete", { hidden: true })
    .option("-c, --config <file>", "the configuration")
    .action((options: HostOptions) => {
      finish(bootComplete(options, context));
    });

  operator("keygen", "make a pair of keys for releases and store paths")
    .argument("<name>", "name of the key, such as fleet-1")
    .option("-o, --out <path>", "write PATH.secret and PATH.public (default: NAME)")
    .action((name: string, options: KeygenOptions) => {
      finish(keygen(name, options));
    });
  operator("publish", "build, pack, sign and write a release")
    .requiredOption("-m, --mirror <directory>", "the mirror's directory; made if it is not there")
    .addOption(repeatable("-k, --key <file>", "secret key"))
    .addOption(repeatable("--store-key <file>", "secret key for store paths", "the keys"))
    .addOption(signerOption())
    .addOption(signerKeyOption())
    .addOption(repeatable("-p, --public-key <key>", "a key of the current release or draft"))
    .addOption(
      repeatable(
        "--host <name=source>",
        "a host and its system: /nix/store/…, FILE.nix, FILE.nix#ATTRIBUTE or FLAKE#ATTRIBUTE",
      ),
    )
    .option("--hosts <file>", "hosts from a JSON or Nix file")
    .option("--channel <name>", "the channel", "stable")
    .addOption(
      new Option("--mode <mode>", "what hosts do with it")
        .choices(ACTIVATION_MODES)
        .default("switch"),
    )
    .addOption(
      new Option("--expires <duration>", "how long hosts may accept it")
        .argParser(duration)
        .default(duration("90d"), "90d"),
    )
    .addOption(
      new Option("--compression <name>", "of the NARs").choices(COMPRESSIONS).default("zstd"),
    )
    .option("--level <number>", "of the compression: zstd 1 to 19, xz 0 to 9", natural)
    .option("--whole", "a self-contained archive for each system, sharing nothing with others")
    .option("--deltas <count>", "make deltas against this many earlier releases", natural, 0)
    .option("--cache <directory>", "keep the compressed NARs here for the next publish")
    .option("--sequence <number>", "sequence number instead of the next one", positive)
    .option("--keep-hosts", "keep hosts of the current release that are not named")
    .option("--refresh", "the current release again, with a new expiry; nothing is built")
    .option("--new-epoch <reason>", "restart the numbering, past one that was driven too high")
    .option("--epoch <number>", "number of the new epoch instead of the next one", positive)
    .option("--draft <file>", "write the release here, for others to sign, not into force")
    .option("--unsigned <file>", "the same, signed by nobody: --key signs store paths only")
    .option("--from-draft <file>", "verify a signed draft and put it into force")
    .option("--threshold <count>", "how many keys must have signed the draft", positive)
    .option("--json", "print JSON")
    .action((options: PublishCommandOptions) => {
      finish(publish(options, context));
    });
  operator("sign", "add a signature to a release")
    .argument("<release>", "a draft, an envelope, or a mirror's directory")
    .addOption(repeatable("-k, --key <file>", "secret key"))
    .addOption(signerOption())
    .addOption(signerKeyOption())
    .option("--channel <name>", "the channel, where a mirror is given", "stable")
    .option("--json", "print JSON")
    .action((release: string, options: SignOptions) => {
      finish(sign(release, options, context));
    });
  operator("prune", "remove archives that no retained release needs")
    .argument("<mirror>", "the mirror's directory")
    .option(
      "--keep <count>",
      "releases of each channel to retain, the newest included",
      positive,
      3,
    )
    .option("--dry-run", "only say what would be removed")
    .option("--json", "print JSON")
    .action((mirror: string, options: PruneCommandOptions) => {
      finish(prune(mirror, options));
    });
  operator("verify", "verify a mirror, every byte of it, or a draft's or report's signatures")
    .argument("<target>", "a mirror's directory or address, or a file with a draft or report")
    .addOption(
      repeatable("-p, --public-key <key>", "trusted key, NAME:BASE64", "the configuration's"),
    )
    .addOption(
      repeatable("--store-key <key>", "trusted key for store paths", "the configuration's"),
    )
    .option("--threshold <count>", "how many of the keys must have signed", positive)
    .option("--channel <name>", "the channel (default: the configuration's)")
    .option("--host <name>", "verify this host's archive only")
    .addOption(
      new Option("-c, --config <file>", `keys from here (default: ${DEFAULT_CONFIG_FILE})`),
    )
    .option("--json", "print JSON")
    .action((mirror: string, options: VerifyOptions) => {
      finish(verify(mirror, options, context));
    });
  program
    .command("completion")
    .helpGroup("Everywhere:")
    .description("print a shell's completion script")
    .addArgument(new Argument("<shell>", "the shell").choices(SHELLS))
    .action((shell: Shell) => {
      finish(completion(shell, program));
    });
  return program;
}

function signerOption(): Option {
  return new Option(
    "--signer <program>",
    "a program that reads what is to be signed and prints the signature in base64; a JSON array gives it arguments",
  );
}

function signerKeyOption(): Option {
  return new Option("--signer-key <key>", "the public key of that signer, NAME:BASE64");
}

/** An option that may be repeated; `absent` says what applies without it. */
function repeatable(flags: string, description: string, absent = "none"): Option {
  return new Option(flags, `${description}; may be repeated`)
    .argParser(collect)
    .default([], absent);
}

function collect(value: string, before: readonly string[]): string[] {
  return [...before, value];
}

function positive(value: string): number {
  if (!/^[1-9]\d{0,14}$/.test(value)) throw new InvalidArgumentError("expected a positive number");
  return Number(value);
}

function natural(value: string): number {
  if (!/^\d{1,15}$/.test(value)) throw new InvalidArgumentError("expected a number");
  return Number(value);
}

function duration(value: string): number {
  const ms = parseDuration(value);
  if (ms === null || ms === 0) {
    throw new InvalidArgumentError("expected a duration such as 12h or 90d");
  }
  return ms;
}
