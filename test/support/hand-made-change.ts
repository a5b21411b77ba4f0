import { rm, symlink } from "node:fs/promises";
import type { SandboxHost } from "./sandbox.ts";

/** What somebody does with `nix-env --switch-generation`: the profile's link is another. */
export async function moveProfile(host: SandboxHost, generation: number): Promise<void> {
  await rm(host.profile);
  await symlink(`system-${generation}-link`, host.profile);
}
