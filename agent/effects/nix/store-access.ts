import { userInfo } from "node:os";
import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import { isTrustedUser, type StoreAccess } from "../../core/transfer/store-access.ts";
import type { Settings } from "../../core/settings.ts";
import { describeFailure, runProcess, type ProcessResult } from "../process/subprocess.ts";
import { NIX_OPTIONS, childEnvironment } from "./nix-environment.ts";

/** A daemon that answers does so at once; one that is being started may take a while. */
const TIMEOUT_MS = 30_000;

/** What `nix store ping --json` prints since Nix 2.14. */
const pingSchema = z.looseObject({
  url: z.string(),
  trusted: z.union([z.boolean(), z.number()]).nullish(),
});

/** One option in the JSON of Nix's configuration. */
const valueOf = <T extends z.ZodType>(schema: T) => z.looseObject({ value: schema }).optional();

const configurationSchema = z.looseObject({
  "require-sigs": valueOf(z.boolean()),
  "trusted-public-keys": valueOf(z.array(z.string())),
  "trusted-users": valueOf(z.array(z.string())),
});

/**
 * Asks Nix how this process reaches the store, and whose signatures count there. Throws IO_FAILED
 * if the daemon does not answer, TOOL_MISSING, TOOL_TIMEOUT.
 */
export async function storeAccess({ store }: Pick<Settings, "store">): Promise<StoreAccess> {
  const { username: user } = userInfo();
  const { url, trusted } = await ping(store);
  const via = url === "daemon" || /^(unix|ssh|ssh-ng):/.test(url) ? "daemon" : "own";
  if (via === "own") return { via, user, trusted: null, keys: null, requiresSignatures: true };
  const found = await configuration();
  const users = found?.["trusted-users"]?.value;
  const names = users && { user, groups: await groupsOf() };
  return {
    ...{ via, user },
    trusted: trusted ?? (names ? isTrustedUser(users, names) : null),
    keys: found?.["trusted-public-keys"]?.value ?? null,
    requiresSignatures: found?.["require-sigs"]?.value ?? true,
  };
}

/** Which store answers, and whether it says that it trusts this user. */
async function ping(store: string | undefined): Promise<{ url: string; trusted: boolean | null }> {
  const args = ["store", "ping", ...(store === undefined ? [] : ["--store", store])];
  const told = await nix([...args, "--json"]);
  if (told.exitCode === 0) {
    const { url, trusted } = pingSchema.parse(JSON.parse(told.stdout));
    return {
      url,
      trusted:
        trusted === null || trusted === undefined ? null : trusted !== 0 && trusted !== false,
    };
  }
  // Before 2.14 it prints text alone.
  const plain = await nix(args);
  const output = `${plain.stdout}\n${plain.stderr}`;
  const url = /^Store URL: (\S+)$/m.exec(output)?.[1];
  if (plain.exitCode === 0 && url !== undefined) return { url, trusted: null };
  throw new PullError(plain.timedOut ? "TOOL_TIMEOUT" : "IO_FAILED", describeFailure(plain));
}

/** The host's own configuration of Nix, without that of this user; null if Nix does not tell it. */
async function configuration(): Promise<z.infer<typeof configurationSchema> | null> {
  // `show-config` until 2.19.
  for (const command of [["config", "show"], ["show-config"]]) {
    const result = await nix([...command, "--json"]);
    if (result.exitCode !== 0) continue;
    const parsed = configurationSchema.safeParse(JSON.parse(result.stdout));
    if (parsed.success) return parsed.data;
  }
  return null;
}

async function groupsOf(): Promise<string[]> {
  const options = { env: childEnvironment(), timeoutMs: TIMEOUT_MS };
  const { stdout } = await runProcess("id", ["-Gn"], options);
  return stdout.trim().split(/\s+/);
}

function nix(args: readonly string[]): Promise<ProcessResult> {
  // No options but those: our own would be shown among the host's.
  return runProcess("nix", [...NIX_OPTIONS, ...args], {
    env: childEnvironment({ NIX_USER_CONF_FILES: "/dev/null" }),
    timeoutMs: TIMEOUT_MS,
    maxOutput: 1024 * 1024,
  });
}
