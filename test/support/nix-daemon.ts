import { spawn } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { onTestFinished, vi } from "vitest";
import { exists } from "../../agent/effects/files/missing-file.ts";
import { temporaryDirectory } from "./temporary.ts";

/** A real Nix daemon over a store of its own, with a configuration of its own. */
export interface NixDaemon {
  /** The store's URI for whoever asks the daemon. */
  readonly store: string;
  /** For whoever shall see the daemon's configuration. */
  readonly env: Readonly<Record<string, string>>;
  /** Replaces the configuration, for connections that come later. */
  configure(lines: readonly string[]): Promise<void>;
}

/** Starts a daemon, which ends with the test. */
export async function startNixDaemon(lines: readonly string[]): Promise<NixDaemon> {
  const directory = await temporaryDirectory();
  const socket = join(directory, "socket");
  const conf = join(directory, "conf");
  await mkdir(conf);
  await mkdir(join(directory, "root/nix"), { recursive: true });
  const configure = (some: readonly string[]): Promise<void> =>
    writeFile(
      join(conf, "nix.conf"),
      [`store = local?root=${directory}/root`, "build-users-group =", ...some, ""].join("\n"),
    );
  await configure(lines);
  const env = { NIX_CONF_DIR: conf };
  const daemon = spawn("nix-daemon", [], {
    env: { ...process.env, ...env, NIX_DAEMON_SOCKET_PATH: socket },
    stdio: "ignore",
  });
  onTestFinished(() => {
    daemon.kill();
  });
  await vi.waitFor(async () => {
    if (!(await exists(socket))) throw new Error("the daemon has no socket");
  }, 20_000);
  return { store: `unix://${socket}`, env, configure };
}
