import * as z from "zod";
import { ACTIVATION_MODES, specialisationSchema } from "../formats/manifest.ts";
import { httpAddressSchema } from "../formats/web-address.ts";
import { windowSchema } from "../schedule/window.ts";
import { durationSchema, positiveDurationSchema } from "../text/duration.ts";

/** Nobody has more maintenance windows than this. */
const MAX_WINDOWS = 32;

/** While a hook runs, no other update can begin, nor the agent start after a deadline. */
const MAX_HOOK_MS = 60 * 60 * 1000;

/** A program with its arguments; no shell. */
const commandSchema = z.array(z.string().max(4096)).min(1).max(64);

/** `activation`: how a release is activated. */
export const activationSettingsSchema = z
  .strictObject({
    mode: z
      .enum(ACTIVATION_MODES)
      .optional()
      .describe("Overrides the release's activation mode on this host."),
    specialisation: specialisationSchema
      .optional()
      .describe(
        "The specialisation of each system that this host runs, whatever the release says; as the release says if absent.",
      ),
    timeout: positiveDurationSchema
      .prefault("30m")
      .describe("How long switch-to-configuration may take."),
    runner: z
      .enum(["auto", "systemd", "child"])
      .default("auto")
      .describe(
        "What runs switch-to-configuration: a transient systemd unit, or the agent itself in a sandbox.",
      ),
    attempts: z
      .int()
      .min(1)
      .max(100)
      .default(5)
      .describe(
        "How often a system is tried whose failure may not be its own, a switch that was cut off included, before it waits for a person or another release.",
      ),
    retryWait: positiveDurationSchema
      .prefault("1h")
      .describe(
        "Wait before a system is tried again whose failure may not be its own; each later wait is four times as long, at most a day.",
      ),
    confirm: z
      .enum(["none", "required"])
      .default("none")
      .describe(
        "required: the service activates a release only after `nixos-pull confirm` on this host.",
      ),
  })
  .prefault({})
  .describe("How a release is activated.");

/** `reboot`: when to reboot. */
export const rebootSchema = z
  .strictObject({
    policy: z
      .enum(["never", "window", "now"])
      .default("never")
      .describe("When to reboot for a new kernel, initrd or kernel modules."),
    window: windowSchema
      .optional()
      .describe("When the policy window may reboot; maintenance.windows if absent."),
    grace: durationSchema
      .prefault("1m")
      .describe("Time between the announcement of a reboot and the reboot."),
    users: z
      .enum(["warn", "wait"])
      .default("warn")
      .describe("wait: the host reboots only while nobody is logged in. Users are warned always."),
    fleetLock: z
      .strictObject({
        url: httpAddressSchema.describe("Address of a FleetLock server, such as airlock."),
        group: z
          .string()
          .regex(/^[a-zA-Z0-9.-]+$/)
          .default("default")
          .describe("Group whose reboot slots this host shares."),
        id: z.string().min(1).optional().describe("This host's identity; the hostname if absent."),
      })
      .optional()
      .describe("Coordinates reboots with other hosts through a FleetLock server."),
  })
  .prefault({})
  .describe("Reboots.");

/** `maintenance`: when the service may activate releases. */
export const maintenanceSchema = z
  .strictObject({
    windows: z
      .array(windowSchema)
      .max(MAX_WINDOWS)
      .prefault([])
      .describe(
        "When the service may activate releases; at any time if empty. It fetches them at any time.",
      ),
    jitter: durationSchema
      .prefault("5m")
      .describe(
        "This host activates or reboots up to this much after a window opens, and at most a quarter of the window after; 0s: at once.",
      ),
  })
  .prefault({})
  .describe("Maintenance windows.");

/** `hooks`: programs of the operator around an activation. */
export const hooksSchema = z
  .strictObject({
    preActivate: commandSchema
      .optional()
      .describe(
        "Runs before a release is activated. While it fails, the release is not activated.",
      ),
    postCommit: commandSchema.optional().describe("Runs once this host has switched to a release."),
    postRollback: commandSchema.optional().describe("Runs once this host has gone back."),
    preReboot: commandSchema
      .optional()
      .describe("Runs before a reboot. While it fails, the host does not reboot."),
    postBoot: commandSchema
      .optional()
      .describe(
        "Runs after that reboot, once the booted system was judged, or if it is called off.",
      ),
    onFailure: commandSchema
      .optional()
      .describe(
        "Runs when a poll, a download or an update of the service fails, once for each code and release.",
      ),
    timeout: positiveDurationSchema
      .refine((ms) => ms <= MAX_HOOK_MS, { error: "expected a duration of at most 1h" })
      .prefault("5m")
      .describe("How long one hook may take before it is ended; at most 1h."),
  })
  .prefault({})
  .describe("Programs of this host's own around an activation.");
