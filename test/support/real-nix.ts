import { execFileSync } from "node:child_process";
import { testEnvironment } from "./nixos-pull.ts";

/** Runs one of real Nix's programs; gives what it printed. Throws with its errors. */
export function runNix(program: string, args: readonly string[], input = ""): string {
  return execFileSync(program, args, {
    input,
    encoding: "utf8",
    env: testEnvironment(),
    stdio: ["pipe", "pipe", "pipe"],
  });
}

/** `nix COMMAND …` with the new command line on. */
export function nix(args: readonly string[], input = ""): string {
  return runNix("nix", ["--extra-experimental-features", "nix-command", ...args], input);
}
