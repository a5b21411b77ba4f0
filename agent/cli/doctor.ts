import * as z from "zod";
import { adviceFor } from "../core/doctor/advice.ts";
import {
  about,
  CHECK_IDS,
  CHECK_OUTCOMES,
  summaryOf,
  type CheckOutcome,
  type CheckResult,
} from "../core/doctor/result.ts";
import { ERROR_CODES, EXIT, PullError } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { counted } from "../core/text/quantity.ts";
import { silentLog } from "../effects/host/log.ts";
import { composeTools } from "../host/compose.ts";
import { examineHost } from "../host/doctor/doctor.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { printJson } from "./display/json.ts";
import {
  screenOf,
  show,
  styled,
  table,
  type Line,
  type Screen,
  type Text,
} from "./display/screen.ts";
import { loadSettings } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";

/** What `doctor --json` prints. */
const doctorSchema = z.strictObject({
  hostname: hostnameSchema.nullable().describe("null if the configuration cannot be read"),
  outcome: z
    .enum(CHECK_OUTCOMES)
    .describe("failed if a check failed, else untried if one could not be tried, else passed"),
  checks: z.array(
    z.strictObject({
      id: z.enum(CHECK_IDS),
      subject: z
        .string()
        .nullable()
        .describe("the mirror, directory, file or unit that was tried; null if there is only one"),
      outcome: z.enum(CHECK_OUTCOMES),
      expected: z.string(),
      found: z.string().describe("what was found, or why it could not be tried"),
      advice: z.string().nullable().describe("what to do; null if there is nothing to do"),
      code: z
        .enum(ERROR_CODES)
        .nullable()
        .describe("the error that the agent itself would meet; null if there is none"),
    }),
  ),
});

const SUMMARY = "try everything that this host needs for its updates";
const DESCRIPTION = `${SUMMARY}

${[
  "It tries each mirror (address, TLS, credentials, manifest, archive), the clock, the keys, Nix and",
  "its store, the agent's units, directories, disks, what the host boots from, and where reports go,",
  "and says what to do about what fails. It changes nothing. Only root can try everything. The exit",
  `code is ${EXIT.ok} if all passed, ${EXIT.unwell} if a check failed, and ${EXIT.untried} if none failed and some could not be tried.`,
].join(" ")}`;

function definition() {
  return hostCommand("doctor", "")
    .summary(SUMMARY)
    .description(DESCRIPTION)
    .addOption(jsonOption(doctorSchema));
}

export const doctorCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(doctor(options, signal));
  });

/** `nixos-pull doctor`: tries everything that this host needs, and says what to do about what fails. */
async function doctor(options: OptionsOf<typeof definition>, signal: AbortSignal): CommandResult {
  const { hostname, checks } = await examine(options.config, signal);
  const outcome = summaryOf(checks);
  if (options.json) printJson(doctorSchema, { hostname, outcome, checks });
  else show(describeChecks(checks, screenOf(process.stdout)));
  return { passed: EXIT.ok, failed: EXIT.unwell, untried: EXIT.untried }[outcome];
}

/** All checks, or the one of the configuration if nothing else can be tried without it. */
async function examine(
  config: string | undefined,
  signal: AbortSignal,
): Promise<{ hostname: string | null; checks: CheckResult[] }> {
  try {
    const settings = await loadSettings(config);
    const tools = composeTools(settings, silentLog);
    return { hostname: settings.hostname, checks: await examineHost(tools, signal) };
  } catch (error) {
    const { code, message } = error instanceof PullError ? error : { code: null, message: "" };
    if (code !== "CONFIG_NOT_FOUND" && code !== "CONFIG_INVALID") throw error;
    return {
      hostname: null,
      checks: [about("configuration.file").failed(message, adviceFor(code), code)],
    };
  }
}

/** The checks for people: what failed, then what could not be tried, then what passed. */
export function describeChecks(checks: readonly CheckResult[], screen: Screen): Line[] {
  const of = (outcome: CheckOutcome): CheckResult[] =>
    checks.filter((check) => check.outcome === outcome);
  const [failed, untried, passed] = [of("failed"), of("untried"), of("passed")];
  const rows = [
    ...untried.map((check) => rowOf(check, styled("waiting", "not tried"))),
    ...passed.map((check) => rowOf(check, styled("good", "ok"))),
  ];
  const outcomes = [
    ...(failed.length > 0 ? [`${failed.length} failed`] : []),
    ...(untried.length > 0 ? [`${untried.length} could not be tried`] : []),
    `${passed.length} passed`,
  ];
  return [
    ...failed.flatMap((check) => [...describeFailed(check, screen), ""]),
    ...table(rows, screen),
    ...(rows.length > 0 ? [""] : []),
    styled(
      failed.length > 0 ? "bad" : "strong",
      `${counted(checks.length, "check")}: ${outcomes.join(", ")}.`,
    ),
  ];
}

/** A check that failed: what was expected and found, and what to do. */
function describeFailed(
  { id, subject, expected, found, advice }: CheckResult,
  screen: Screen,
): Line[] {
  const rows: Text[][] = [
    ["  expected", expected],
    ["  found", found],
    ...(advice === null ? [] : [["  do", styled("strong", advice)]]),
  ];
  return [
    [styled("bad", "FAILED"), ` ${id}${subject === null ? "" : `  ${subject}`}`],
    ...table(rows, screen),
  ];
}

/** Any other check, in one row. */
function rowOf({ id, subject, found, advice }: CheckResult, outcome: Text): Text[] {
  const what = subject === null || found.includes(subject) ? found : `${subject}: ${found}`;
  return [outcome, id, advice === null ? what : `${what}; ${advice}`];
}
