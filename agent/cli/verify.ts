import { pathToFileURL } from "node:url";
import { mirrorsOf } from "../app/compose.ts";
import { EXIT, ERROR_KINDS, PullError } from "../core/errors.ts";
import { parsePublicKey } from "../core/signing-key.ts";
import { parseSettings, trustPolicyOf, type Settings } from "../core/settings.ts";
import { systemClock } from "../effects/clock.ts";
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

/** `nixos-pull verify MIRROR`: proves a mirror or stick, every byte of it. */
export async function verify(
  address: string,
  options: VerifyOptions,
  { signal }: CommandContext,
): CommandResult {
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
  const { channel, sequence, createdAt, expiresAt } = signed.manifest;
  const bad = hosts.find(({ code }) => code !== undefined);
  if (options.json) {
    const { digest, signedBy } = signed;
    printJson({ channel, sequence, digest, createdAt, expiresAt, expired, signedBy, hosts });
  } else {
    printLine(
      `Release ${sequence} of ${channel}, signed by ${signed.signedBy.join(", ")}, created ${createdAt}, ` +
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

/** Keys come from the command line, or from the host's own configuration. */
async function settingsFor(url: string, options: VerifyOptions): Promise<Settings> {
  if (options.publicKey.length === 0) return loadSettings(options.config);
  const publicKeys = options.publicKey.map((text) => parsePublicKey(text).text);
  const storeKeys = options.storeKey.map((text) => parsePublicKey(text).text);
  return parseSettings(
    { mirrors: [url], publicKeys, ...(storeKeys.length > 0 && { storeKeys }) },
    "verify",
  );
}
