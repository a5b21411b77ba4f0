import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import { sanitize } from "../../core/text/sanitize.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { describeFailure, runProcess, type ProcessResult } from "../process/subprocess.ts";

/** systemd-logind answers at once; what takes longer hangs. */
const TIMEOUT_MS = 30_000;

const LOGIND = [
  "org.freedesktop.login1",
  "/org/freedesktop/login1",
  "org.freedesktop.login1.Manager",
] as const;

/** The answer of `ListInhibitors`: what, who, why, mode, user, process (org.freedesktop.login1(5)). */
const inhibitorsSchema = z.looseObject({
  data: z.tuple([
    z.array(z.tuple([z.string(), z.string(), z.string(), z.string(), z.number(), z.number()])),
  ]),
});

function run(program: string, args: readonly string[], input?: Uint8Array): Promise<ProcessResult> {
  return runProcess(program, args, {
    ...{ env: childEnvironment(), timeoutMs: TIMEOUT_MS, maxOutput: 1024 * 1024 },
    ...(input && { input }),
  });
}

/** Programs that inhibit a shutdown, each with its reason. One that only delays it is none. */
export async function shutdownInhibitors(): Promise<string[]> {
  const result = await run("busctl", ["--json=short", "call", ...LOGIND, "ListInhibitors"]);
  // A host without logind has nothing to inhibit with.
  if (result.exitCode !== 0) return [];
  try {
    const [inhibitors] = inhibitorsSchema.parse(JSON.parse(result.stdout)).data;
    return inhibitors
      .filter(([what, , , mode]) => what.split(":").includes("shutdown") && mode !== "delay")
      .map(([, who, why]) => sanitize(why === "" ? who : `${who} (${why})`));
  } catch (error) {
    const message = "busctl: expected a list of inhibitors as JSON";
    throw new PullError("IO_FAILED", message, { cause: error });
  }
}

/** Users with a session of their own that is not closing, sorted. */
export async function loggedInUsers(): Promise<string[]> {
  const listed = await run("loginctl", ["list-sessions", "--no-legend"]);
  if (listed.exitCode !== 0) return [];
  const sessions = listed.stdout.split("\n").flatMap((line) => /^\s*(\S+)/.exec(line)?.[1] ?? []);
  if (sessions.length === 0) return [];
  const shown = await run("loginctl", [
    "show-session",
    "--property=Name",
    "--property=Class",
    "--property=State",
    ...sessions,
  ]);
  // A session that ends meanwhile makes loginctl fail; the others are shown all the same.
  const users = shown.stdout.split("\n\n").flatMap((block) => {
    const value = (name: string): string =>
      new RegExp(`^${name}=(.*)$`, "m").exec(block)?.[1] ?? "";
    const isUsers = value("Class").startsWith("user") && value("State") !== "closing";
    return isUsers ? [`user ${sanitize(value("Name"))}`] : [];
  });
  return [...new Set(users)].sort();
}

/** Writes to all terminals (wall(1)); that nobody can be told is no error. */
export async function warnUsers(message: string): Promise<void> {
  try {
    const result = await run("wall", [], Buffer.from(`${message}\n`));
    if (result.exitCode !== 0) throw new Error(describeFailure(result));
  } catch {
    // There may be no wall and no terminal.
  }
}
