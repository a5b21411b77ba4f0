import { stat } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { mirrorsOf } from "../app/compose.ts";
import { EXIT, ERROR_KINDS, PullError } from "../core/errors.ts";
import { describePosition, positionOf, readManifest } from "../core/manifest.ts";
import { REPORT_PAYLOAD_TYPE, openReport, type Report } from "../core/report.ts";
import { parsePublicKey } from "../core/signing-key.ts";
import { parseSettings, trustPolicyOf, type Settings } from "../core/settings.ts";
import { systemClock } from "../effects/clock.ts";
import { readSignedFile } from "../publisher/sign-release.ts";
import { verifyMirror } from "../publisher/verify-mirror.ts";
import type { CommandContext, CommandResult } from "./command.ts";
import { loadSettings } from "./configuration.ts";
import { ProgressLine, formatTable, printJson, printLine } from "./output.ts";

export interface VerifyOptions {
  readonly publicKey: readonly string[];
  readonly storeKey: readonly string[];
  readonly threshold?: number;
  readonly channel?: string;
  readonly host?: string;
  readonly config?: string;
  readonly json?: boolean;
}

/**
 * `nixos-pull verify TARGET`: proves a mirror or stick, every byte of it; or the signatures
 * of a draft or a host's report.
 */
export async function verify(
  address: string,
  options: VerifyOptions,
  { signal }: CommandContext,
): CommandResult {
  if (await isFile(address)) return verifyFile(address, options);
  const url = /^(https?|file):\/\//.test(address) ? address : pathToFileURL(address).href;
  const settings = await settingsFor(url, options);
  const [mirror] = mirrorsOf({ ...settings, mirrors: [url] });
  if (!mirror) throw new PullError("USAGE", `expected a mirror, found ${JSON.stringify(address)}`);
  const progress = new ProgressLine();
  const { signed, expired, hosts } = await verifyMirror(mirror, {
    channel: options.channel ?? settings.channel,
    trust: { ...trustPolicyOf(settings), threshold: options.threshold ?? settings.threshold },
    storeKeys: settings.storeKeys,
    hostname: options.host,
    now: systemClock.now(),
    signal,
    onHost: (hostname) => {
      progress.show(`verifying the archive of ${hostname}`);
    },
  });
  progress.clear();
  const { channel, epoch, sequence, createdAt, expiresAt } = signed.manifest;
  const bad = hosts.find(({ code }) => code !== undefined);
  if (options.json) {
    const { digest, signedBy } = signed;
    printJson({ channel, epoch, sequence, digest, createdAt, expiresAt, expired, signedBy, hosts });
  } else {
    printLine(
      `Release ${describePosition(positionOf(signed.manifest))} of ${channel}, signed by ${signed.signedBy.join(", ")}, created ${createdAt}, ` +
        (expired ? `EXPIRED ${expiresAt}` : `good until ${expiresAt}`),
    );
    printLine(
      formatTable(
        hosts.map(({ hostname, toplevel, paths, code, message }) => [
          hostname,
          code ?? "ok",
          code === undefined ? `${paths} paths  ${toplevel}` : (message ?? ""),
        ]),
      ),
    );
  }
  if (bad?.code !== undefined) return ERROR_KINDS[bad.code].exit;
  return expired ? ERROR_KINDS.MANIFEST_EXPIRED.exit : EXIT.ok;
}

async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}

async function verifyFile(file: string, options: VerifyOptions): CommandResult {
  const { bytes, envelope } = await readSignedFile(file);
  if (envelope.payloadType === REPORT_PAYLOAD_TYPE) {
    // One key: with several, one host could speak in another's name.
    const [key, ...others] = options.publicKey.map(parsePublicKey);
    if (!key || others.length > 0) {
      throw new PullError(
        "USAGE",
        "expected one --public-key, which `nixos-pull report --public-key` prints on that host",
      );
    }
    const report = openReport(bytes, key);
    if (options.json) printJson(report);
    else printLine(describeReport(report));
    return EXIT.ok;
  }
  const settings = await settingsFor("file:///", options);
  const threshold = options.threshold ?? settings.threshold;
  const { manifest, digest, signedBy } = readManifest(bytes, {
    ...trustPolicyOf(settings),
    threshold,
  });
  const { channel, epoch, sequence, createdAt, expiresAt } = manifest;
  if (options.json) {
    printJson({ channel, epoch, sequence, digest, createdAt, expiresAt, signedBy });
  } else {
    const position = describePosition(positionOf(manifest));
    printLine(
      `Release ${position} of ${channel}, signed by ${signedBy.join(", ")}, created ${createdAt}, good until ${expiresAt}`,
    );
    printLine(`Digest ${digest}; archives were not looked at`);
  }
  return EXIT.ok;
}

function describeReport(report: Report): string {
  const { release, accepted } = report;
  return formatTable([
    ["host", report.hostname],
    ["machine id", report.machineId ?? "none"],
    ["at", report.at],
    ["channel", report.channel],
    ["release", release ? `${release.sequence}: ${release.toplevel}` : "none applied yet"],
    ["accepted", accepted ? `up to ${describePosition(accepted)}` : "none yet"],
    ["profile", report.profile ?? "none"],
    ["running", report.running ?? "unknown"],
    ["booted", report.booted ?? "unknown"],
    ["state", report.state],
    ["wrong", report.code === null ? "nothing" : `${report.code}: ${report.message}`],
    ["agent", report.agentVersion],
  ]);
}

/** Keys come from the command line, or from the host's own configuration. */
export async function settingsFor(
  url: string,
  options: Pick<VerifyOptions, "publicKey" | "storeKey" | "config">,
): Promise<Settings> {
  if (options.publicKey.length === 0) return loadSettings(options.config);
  const publicKeys = options.publicKey.map((text) => parsePublicKey(text).text);
  const storeKeys = options.storeKey.map((text) => parsePublicKey(text).text);
  return parseSettings(
    { mirrors: [url], publicKeys, ...(storeKeys.length > 0 && { storeKeys }) },
    "verify",
  );
}
