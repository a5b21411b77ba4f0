import * as z from "zod";
import {
  MAX_TIMER_MS,
  durationSchema,
  parseDuration,
  positiveDurationSchema,
} from "../text/duration.ts";
import { httpAddressSchema } from "./web-address.ts";

/** What must hold before a system is believed: operators' own checks. */
export const MAX_CHECKS = 64;

/** One that a timer can measure: 0 would fail at once, and so would more than MAX_TIMER_MS. */
function isTimerDuration(text: string): boolean {
  const ms = parseDuration(text);
  return ms !== null && ms > 0 && ms <= MAX_TIMER_MS;
}

const common = {
  name: z.string().min(1).max(100).describe("Names the check in messages."),
  timeout: z
    .string()
    .refine(isTimerDuration, { error: "expected a duration between 1s and 24d" })
    .default("10s")
    .describe("How long one try may take."),
};

/**
 * One check. Durations stay text here: the same form travels in manifests and in the
 * host's configuration.
 */
export const healthCheckSchema = z.discriminatedUnion("kind", [
  z
    .strictObject({
      kind: z.literal("command"),
      ...common,
      command: z
        .array(z.string().max(4096))
        .min(1)
        .max(64)
        .describe("Program and arguments; no shell. It passes with exit code 0."),
    })
    .describe("Runs a program on the new system."),
  z
    .strictObject({
      kind: z.literal("http"),
      ...common,
      url: httpAddressSchema,
      status: z.int().min(100).max(599).default(200).describe("The status that must come."),
    })
    .describe("Asks for an address; redirects are not followed."),
  z
    .strictObject({
      kind: z.literal("tcp"),
      ...common,
      host: z.string().min(1).max(253),
      port: z.int().min(1).max(65_535),
    })
    .describe("Connects to a port."),
]);
export type HealthCheck = z.infer<typeof healthCheckSchema>;

/** How a host judges a system that was just activated or booted. */
export const healthSettingsSchema = z.strictObject({
  settle: durationSchema
    .prefault("10s")
    .describe("Time that units get before they are judged; none where no systemd runs."),
  timeout: positiveDurationSchema
    .prefault("2m")
    .describe("Time in which every check must have passed together once."),
  interval: positiveDurationSchema.prefault("5s").describe("Time between two tries."),
  mirror: z
    .boolean()
    .default(true)
    .describe(
      "Whether a release must be readable from the new system: a host that cannot poll is lost.",
    ),
  ignoreUnits: z
    .array(z.string().min(1).max(256))
    .max(MAX_CHECKS)
    .default([])
    .describe("Units whose failures do not count; * stands for any text, ? for one character."),
  checks: z.array(healthCheckSchema).max(MAX_CHECKS).default([]).describe("The host's own checks."),
  releaseCommands: z
    .boolean()
    .optional()
    .describe(
      "Whether releases may bring commands as checks, which run as root; if absent, only where storeKeys is absent too. Otherwise a release with commands is refused.",
    ),
});
export type HealthSettings = z.infer<typeof healthSettingsSchema>;
