import { Argument, Command, InvalidArgumentError, Option } from "commander";
import * as z from "zod";
import { parseDuration } from "../core/text/duration.ts";
import { ACTIVATION_MODES } from "../core/formats/manifest.ts";
import { COMPRESSIONS } from "../core/formats/narinfo.ts";
import { DEFAULT_CONFIG_FILE } from "../core/settings.ts";
import { bootComplete } from "./boot-complete.ts";
import { apply, type ApplyOptions } from "./apply.ts";
import { BOOTSTRAP_FORMATS, bootstrap, type BootstrapOptions } from "./bootstrap.ts";
import { check, type CheckOptions } from "./check.ts";
import { completion, SHELLS, type Shell } from "./completion.ts";
import { config, type ConfigOptions } from "./config.ts";
import type { CommandContext, CommandResult, HostOptions } from "./command.ts";
import { confirm, type ConfirmOptions } from "./confirm.ts";
import { deadline, type DeadlineOptions } from "./deadline.ts";
import { fleet, type FleetCommandOptions } from "./fleet.ts";
import { history, type HistoryOptions } from "./history.ts";
import { hold, unhold, type HoldOptions } from "./hold.ts";
import { init, type InitOptions } from "./init.ts";
import { keygen, type KeygenOptions } from "./keygen.ts";
import { mirror, type MirrorCommandOptions } from "./mirror.ts";
import { option, type OptionOptions } from "./option.ts";
import { prune, type PruneCommandOptions } from "./prune.ts";
import { publish, type PublishCommandOptions } from "./publish.ts";
import {
  abort,
  edit,
  pause,
  promote,
  resume,
  type AbortOptions,
  type ChangeCommandOptions,
  type EditOptions,
  type PromoteOptions,
  type ResumeOptions,
} from "./release.ts";
import { show, type ShowOptions } from "./release-show.ts";
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

  host("hold", "keep this host as it is: no release is fetched or activated, no reboot")
    .addOption(
      new Option("--until <time>", "until then, such as 2026-12-24T18:00:00Z").argParser(time),
    )
    .addOption(new Option("--for <duration>", "for so long, such as 3d").argParser(duration))
    .option("--reason <text>", "why, for whoever looks")
    .action((options: HoldOptions) => {
      finish(hold(options));
    });
  host("unhold", "end that").action((options: HostOptions) => {
    finish(unhold(options));
  });
  host("confirm", "allow the release that waits for it to be activated here")
    .argument("[release]", "its sequence number, or the beginning of its digest, to be sure")
    .option("--json", "print JSON")
    .action((release: string | undefined, options: ConfirmOptions) => {
      finish(confirm(release, options));
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
  operator("init", "write a repository to start from: configuration, pins, scripts, CI")
    .argument("<directory>", "where; nothing that exists is overwritten")
    .addOption(repeatable("--host <name>", "a host", "web1"))
    .addOption(repeatable("--mirror <url>", "where hosts look for releases", "an example"))
    .option("--flake", "a flake instead of nixos.nix with pins")
    .action((directory: string, options: InitOptions) => {
      finish(init(directory, options));
    });
  operator("option", "show what an option is in the hosts' configuration, and why")
    .argument("<path>", "such as networking.firewall.allowedTCPPorts")
    .option("--host <name>", "of this host only")
    .option("--file <file>", "Nix file with the hosts' configurations (default: nixos.nix)")
    .option("--flake <reference>", "flake with nixosConfigurations instead")
    .option("--json", "print JSON")
    .action((path: string, options: OptionOptions) => {
      finish(option(path, options, context));
    });
  operator("bootstrap", "print what brings a fresh host to its first release")
    .requiredOption("--hostname <name>", "the host's name in the release")
    .addOption(repeatable("--mirror <url>", "where it looks for releases", "the settings'"))
    .addOption(repeatable("-p, --public-key <key>", "trusted key, NAME:BASE64", "the settings'"))
    .option("--channel <name>", "the channel it follows (default: stable)")
    .option("--threshold <count>", "how many of the keys must have signed", positive)
    .option("--settings <file>", "further settings of its configuration, JSON")
    .addOption(
      new Option("--format <format>", "cloud-init's user data, or the script in it")
        .choices(BOOTSTRAP_FORMATS)
        .default("cloud-init"),
    )
    .option("--json", "print all of it as a flat JSON object, as for Terraform")
    .action((options: BootstrapOptions) => {
      finish(bootstrap(options));
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
    .addOption(repeatable("--group <host=groups>", "groups of a host, for the rollout"))
    .option("--channel <name>", "the channel", "stable")
    .addOption(
      new Option("--mode <mode>", "what hosts do with it")
        .choices(ACTIVATION_MODES)
        .default("switch"),
    )
    .addOption(expiresOption())
    .addOption(
      new Option("--compression <name>", "of the NARs").choices(COMPRESSIONS).default("zstd"),
    )
    .option("--level <number>", "of the compression: zstd 1 to 19, xz 0 to 9", natural)
    .option("--whole", "a self-contained archive for each system, sharing nothing with others")
    .option("--deltas <count>", "make deltas against this many earlier releases", natural, 0)
    .addOption(
      repeatable(
        "--allow-secrets <name>",
        "a store path, without its hash, and perhaps a file in it, whose private keys are no secrets",
      ),
    )
    .option("--cache <directory>", "keep the compressed NARs here for the next publish")
    .option("--sequence <number>", "sequence number instead of the next one", positive)
    .option("--keep-hosts", "keep hosts of the current release that are not named")
    .option("--refresh", "the current release again, with a new expiry; nothing is built")
    .option("--new-epoch <reason>", "restart the numbering, past one that was driven too high")
    .option("--epoch <number>", "number of the new epoch instead of the next one", positive)
    .addOption(canaryOption())
    .addOption(wavesOption())
    .addOption(overOption())
    .addOption(notBeforeOption())
    .addOption(pausedOption())
    .addOption(barrierOption())
    .option("--no-barrier", "forget the barriers of the current release")
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
  addReleaseCommands(operator("release", "show or change the release in force"), context, finish);
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
    .action((directory: string, options: PruneCommandOptions) => {
      finish(prune(directory, options));
    });
  operator("mirror", "copy releases to a directory or stick, or bring reports home from one")
    .argument("<from>", "a mirror's directory or address")
    .argument("<to>", "a directory; made if it is not there")
    .addOption(repeatable("--channel <name>", "copy this channel", "all, or stable of a server"))
    .addOption(repeatable("--host <name>", "copy the archives of this host only", "all"))
    .addOption(
      repeatable(
        "--for-report <file>",
        "a signed report, or a directory of them: copy only what these hosts lack",
      ),
    )
    .addOption(repeatable("--report-key <key>", "a reporting host's key, host-NAME:BASE64"))
    .addOption(hostKeysOption())
    .option("--deltas", "leave out paths that a reporting host can make with a delta")
    .option(
      "--keep <count>",
      "releases of each channel to retain there; what no other needs is removed (default: all)",
      positive,
    )
    .option("--allow-older", "put an older release in the place of a newer one")
    .option("--reports", "bring reports from there, and no releases")
    .addOption(
      repeatable("-p, --public-key <key>", "trusted key, NAME:BASE64", "the configuration's"),
    )
    .addOption(
      repeatable("--store-key <key>", "trusted key for store paths", "the configuration's"),
    )
    .option("--threshold <count>", "how many of the keys must have signed", positive)
    .addOption(
      new Option(
        "-c, --config <file>",
        `keys, credentials and limits from here (default: ${DEFAULT_CONFIG_FILE})`,
      ),
    )
    .option("--dry-run", "only say what would be copied")
    .option("--json", "print JSON")
    .action((from: string, to: string, options: MirrorCommandOptions) => {
      finish(mirror(from, to, options, context));
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
    .option("--channel <name>", "the channel (default: all of a directory, or the configuration's)")
    .option("--host <name>", "verify this host's archive only")
    .addOption(
      new Option("-c, --config <file>", `keys from here (default: ${DEFAULT_CONFIG_FILE})`),
    )
    .option("--json", "print JSON")
    .action((target: string, options: VerifyOptions) => {
      finish(verify(target, options, context));
    });
  operator("fleet", "show what all hosts report, beside what they should be")
    .argument(
      "<place...>",
      "directories with reports (or with a directory reports), or addresses of them",
    )
    .addOption(hostKeysOption())
    .addOption(repeatable("--report-key <key>", "a reporting host's key, host-NAME:BASE64"))
    .option("--memory <file>", "remember each host's newest report here, and refuse older ones")
    .option("--trust-new", "pin the keys of hosts that are not known yet in the memory")
    .addOption(
      repeatable(
        "-m, --manifest <place>",
        "what hosts should be: a manifest, or a mirror that has it",
      ),
    )
    .addOption(repeatable("--channel <name>", "channel of a mirror", "stable"))
    .addOption(
      repeatable("-p, --public-key <key>", "trusted key of manifests", "the configuration's"),
    )
    .option("--threshold <count>", "how many of the keys must have signed", positive)
    .addOption(
      new Option(
        "-c, --config <file>",
        `keys of manifests, TLS and credentials from here (default: ${DEFAULT_CONFIG_FILE})`,
      ),
    )
    .option("--ca <file>", "certificate authorities of the servers, PEM (default: the system's)")
    .option("--cert <file>", "client certificate for them, PEM")
    .option("--cert-key <file>", "its private key, PEM")
    .option("--user-file <file>", "file with USER:PASSWORD for the server")
    .option("--token-file <file>", "file with a bearer token for the server")
    .addOption(
      new Option("--silent-after <duration>", "how old a host's last report may be")
        .argParser(duration)
        .default(duration("1d"), "1d"),
    )
    .option("--json", "print JSON")
    .option("--html <file>", "write a page as well")
    .option("--prometheus <file>", "write metrics as well, for a textfile collector")
    .option("--exit-code", "exit with 21 where a host wants a person to look")
    .addOption(
      new Option("-w, --watch <duration>", "look again each time this has passed").argParser(
        duration,
      ),
    )
    .action((places: string[], options: FleetCommandOptions) => {
      finish(fleet(places, options, context));
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

/** The commands that make the next release out of one that is there, without building. */
function addReleaseCommands(
  release: Command,
  context: CommandContext,
  finish: (result: CommandResult) => void,
): void {
  const reading = (name: string, summary: string): Command =>
    release
      .command(name)
      .description(summary)
      .requiredOption("-m, --mirror <directory>", "the mirror's directory")
      .addOption(repeatable("-p, --public-key <key>", "a key of the current release"))
      .option("--json", "print JSON");
  const changing = (name: string, summary: string): Command =>
    reading(name, summary)
      .addOption(repeatable("-k, --key <file>", "secret key"))
      .addOption(signerOption())
      .addOption(signerKeyOption())
      .addOption(expiresOption())
      .option("--draft <file>", "write the release here, for others to sign, not into force")
      .option("--unsigned <file>", "the same, signed by nobody");
  const channel = (): Option => new Option("--channel <name>", "the channel").default("stable");
  const withRollout = (command: Command): Command =>
    command
      .addOption(canaryOption())
      .addOption(wavesOption())
      .addOption(overOption())
      .addOption(notBeforeOption())
      .addOption(pausedOption())
      .addOption(barrierOption())
      .option("--no-barrier", "forget the barriers of the current release");

  reading("show", "show the release in force, and when whose turn comes")
    .addOption(channel())
    .action((options: ShowOptions) => {
      finish(show(options));
    });
  changing("pause", "let no host begin any more")
    .addOption(channel())
    .argument("<reason>", "why, for people")
    .action((reason: string, options: ChangeCommandOptions) => {
      finish(pause(reason, options, context));
    });
  changing("resume", "let the rollout go on where it was paused")
    .addOption(channel())
    .option("--catch-up", "as if it had not been paused")
    .action((options: ResumeOptions) => {
      finish(resume(options, context));
    });
  changing("abort", "give every host the system of an earlier release, at once")
    .addOption(channel())
    .option("--to <sequence>", "that release (default: the last one with other systems)", positive)
    .action((options: AbortOptions) => {
      finish(abort(options, context));
    });
  withRollout(changing("edit", "change the policy of the release, not its systems"))
    .addOption(channel())
    .option("--everyone", "end the rollout: every host may go at once")
    .addOption(repeatable("--now <host>", "this host may go now, whatever the rollout says"))
    .addOption(repeatable("--hold <host=reason>", "hold this host, also in later releases"))
    .addOption(repeatable("--free <host>", "this host follows the rollout again"))
    .addOption(repeatable("--group <host=groups>", "groups of a host, instead of those it has"))
    .addOption(repeatable("--mode <host=mode>", "what this host does with it"))
    .addOption(repeatable("--remove <host>", "a host that the release is to name no more"))
    .action((options: EditOptions) => {
      finish(edit(options, context));
    });
  withRollout(changing("promote", "make the release of one channel the next of another"))
    .requiredOption("--from <channel>", "the channel whose release it is")
    .requiredOption("--to <channel>", "the channel that gets it")
    .option("--keep-hosts", "keep hosts of the other channel that the release does not name")
    .action((options: PromoteOptions) => {
      finish(promote(options, context));
    });
}

function expiresOption(): Option {
  return new Option("--expires <duration>", "how long hosts may accept it")
    .argParser(duration)
    .default(duration("90d"), "90d");
}

function canaryOption(): Option {
  return repeatable("--canary <who>", "a host or @GROUP that goes first");
}

function wavesOption(): Option {
  return new Option(
    "--waves <who=after,…>",
    "who goes how long after the start: 10%=2h,100%=6h+1d; WHO is hosts, @GROUPs and a share, joined by +; +OVER spreads the turns",
  );
}

function overOption(): Option {
  return new Option("--over <duration>", "all others evenly over this time, after the last wave");
}

function notBeforeOption(): Option {
  return new Option("--not-before <time>", "when the rollout starts (default: at once)");
}

function pausedOption(): Option {
  return new Option("--paused <reason>", "let no host begin before `release resume`");
}

function barrierOption(): Option {
  return new Option(
    "--barrier <sequence>",
    "an earlier release that every host has to become first; later releases carry it on",
  ).argParser(positive);
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
/** The keys by which reports are believed, alike wherever reports are read. */
function hostKeysOption(): Option {
  return repeatable(
    "--keys <path>",
    "hosts' keys: a file of HOST KEY lines or of keys named host-HOST, or a directory of HOST.public",
  );
}

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

function time(value: string): string {
  const parsed = z.iso.datetime({ offset: true }).safeParse(value);
  if (!parsed.success) {
    throw new InvalidArgumentError("expected a time with its zone, such as 2026-12-24T18:00:00Z");
  }
  return new Date(parsed.data).toISOString();
}

function duration(value: string): number {
  const ms = parseDuration(value);
  if (ms === null || ms === 0) {
    throw new InvalidArgumentError("expected a duration such as 12h or 90d");
  }
  return ms;
}
