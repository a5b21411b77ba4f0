import { SwitchOutput, type FailedSnippet } from "../../core/update/switch-output.ts";
import { systemd } from "./systemctl.ts";

/** What NixOS's stage 2 puts before the lines that it writes to the kernel's log. */
const STAGE_2 = /^stage-2-init: /;

/** Units in which a system is activated while it boots: systemd in the initrd, and after it. */
const UNITS = ["initrd-nixos-activation.service", "nixos-activation.service"];

/**
 * Snippets that failed when the running system was activated by its boot; null if that cannot
 * be seen. Stage 2 writes to the kernel's log, systemd in the initrd to the journal; no exit
 * code and no unit tells. Later switches write elsewhere.
 */
export async function failedInBoot(): Promise<FailedSnippet[] | null> {
  const result = await systemd(
    "journalctl",
    ...["--boot", "--no-pager", "--quiet", "--output=cat", "--grep=Activation script snippet"],
    "_TRANSPORT=kernel",
    ...UNITS.flatMap((unit) => ["+", `_SYSTEMD_UNIT=${unit}`]),
  );
  // Exit code 1 also says that nothing matches; then nothing is on standard error.
  if (result.exitCode !== 0 && result.stderr !== "") return null;
  const output = new SwitchOutput();
  for (const line of result.stdout.split("\n")) output.take(line.replace(STAGE_2, ""));
  return [...output.facts().failedSnippets];
}
