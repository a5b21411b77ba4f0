import { SwitchOutput } from "../../core/update/switch-output.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { runProcess } from "../process/subprocess.ts";
import { systemd } from "./systemctl.ts";

/** Reading the journal of one switch takes moments, unless the journal is damaged. */
const JOURNAL_MS = 60_000;

/**
 * All that one run of a unit printed, by the journal; null if that cannot be read. A unit ends
 * before journald has read its last lines, and these say why it failed. So the journal is
 * synchronized first: that returns once everything that was printed before is in it
 * (journalctl(1), `--sync`). If it cannot be, what is there is read all the same.
 */
export async function unitOutput(invocation: string): Promise<SwitchOutput | null> {
  await systemd("journalctl", "--sync");
  const output = new SwitchOutput();
  const filter = `_SYSTEMD_INVOCATION_ID=${invocation}`;
  const { exitCode } = await runProcess(
    "journalctl",
    ["--quiet", "--no-pager", "--output=cat", "--all", filter],
    {
      env: childEnvironment(),
      timeoutMs: JOURNAL_MS,
      mergeOutput: true,
      onErrorLine: (line) => {
        output.take(line);
      },
    },
  );
  return exitCode === 0 ? output : null;
}
