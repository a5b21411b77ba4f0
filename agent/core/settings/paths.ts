import * as z from "zod";
import { directorySchema } from "./file-paths.ts";

const DEFAULT_STATE_DIRECTORY = "/var/lib/nixos-pull";

/** `paths`: files and directories of the host. */
export const pathsSchema = z
  .strictObject({
    state: directorySchema
      .default(DEFAULT_STATE_DIRECTORY)
      .describe("The agent's state and history."),
    staging: directorySchema
      .optional()
      .describe("Where archives are unpacked before import; below the state directory if absent."),
    runtime: directorySchema
      .optional()
      .describe(
        "Where a second copy of the state is kept. If absent: /run/nixos-pull, or the state directory's name with .run if that is not the usual one.",
      ),
    profile: directorySchema
      .default("/nix/var/nix/profiles/system")
      .describe("The system profile."),
    gcRoots: directorySchema
      .default("/nix/var/nix/gcroots/nixos-pull")
      .describe("Directory of the agent's garbage collector roots."),
    machineId: directorySchema
      .default("/etc/machine-id")
      .describe("File with this machine's identity (machine-id(5))."),
    currentSystem: directorySchema
      .default("/run/current-system")
      .describe("Link to the running system."),
    bootedSystem: directorySchema
      .default("/run/booted-system")
      .describe("Link to the system that was booted."),
    boot: directorySchema
      .optional()
      .describe(
        "Where the boot loader keeps kernels. If absent: what systemd-boot says (XBOOTLDR or ESP), else /boot.",
      ),
  })
  .prefault({})
  .describe("Files and directories.");

/** Where the copy of the state is kept if the configuration says nothing. */
export function runtimeDirectoryFor(state: string): string {
  return state === DEFAULT_STATE_DIRECTORY ? "/run/nixos-pull" : `${state}.run`;
}
