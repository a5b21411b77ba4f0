import type * as z from "zod";
import { PullError } from "../errors.ts";
import { describeIssues } from "../text/schema-issues.ts";
import { MAX_CHECKS, healthCheckSchema } from "./health-check.ts";
import { JsonReader } from "./json-reader.ts";
import {
  MAX_HISTORY,
  MAX_HOSTS,
  MAX_SUPPORTED,
  MAX_WAVES,
  channelSchema,
  expectKnownFormat,
  expectUnderstood,
  hostSchema,
  hostnameSchema,
  manifestSchema,
  namedReleaseSchema,
  parseManifest,
  supportedReleaseSchema,
  waveSchema,
  type HostEntry,
  type Manifest,
} from "./manifest.ts";

/**
 * Reads manifests that nobody verified, on operators' machines: a draft, a release that a stick
 * retains. Anybody may have written them, so they are read as bytes, and each part is judged
 * before the next one is read. What is no manifest costs little more memory than its bytes.
 */

/** A payload of this size is cheap whatever it holds, and is parsed whole. */
const CHEAP_BYTES = 64 * 1024;

/** Longest JSON of a part of known form, such as a time or an earlier release. */
const MAX_SMALL_BYTES = 8 * 1024;

/** Longest JSON of a host's entry, a wave or a check. */
const MAX_PART_BYTES = 128 * 1024;

/** What tells which release a manifest is, and what it comes after. */
export type ManifestPlace = Pick<Manifest, "channel" | "epoch" | "sequence" | "history">;

/**
 * Parses a payload that is not verified. Throws MANIFEST_INVALID, FORMAT_UNSUPPORTED,
 * AGENT_TOO_OLD.
 */
export function parseUnverified(payload: Uint8Array): Manifest {
  if (payload.length <= CHEAP_BYTES) return parseManifest(payload);
  const { values, reader, fields } = startOf(payload);
  const hosts: Record<string, HostEntry> = {};
  reader.object("", {
    ...fields,
    defaults: () => (values["defaults"] = readDefaults(reader)),
    rollout: () => (values["rollout"] = readRollout(reader)),
    hosts: () => {
      reader.members("hosts", MAX_HOSTS, (name) => {
        checked(hostnameSchema, name, "hosts");
        hosts[name] = checked(hostSchema, reader.value("hosts", MAX_PART_BYTES), `hosts.${name}`);
      });
      values["hosts"] = {};
    },
  });
  reader.end();
  expectUnderstood(values["requires"]);
  return { ...checked(manifestSchema, values, ""), hosts };
}

/**
 * The place of a payload that is not verified. Hosts and rollout are passed over, so that they may
 * be wrong. Throws MANIFEST_INVALID, FORMAT_UNSUPPORTED.
 */
export function placeUnverified(payload: Uint8Array): ManifestPlace {
  const { values, reader, fields } = startOf(payload);
  const passOver = (part: string) => () => {
    reader.skip(part);
  };
  const rest = { defaults: passOver("defaults"), rollout: passOver("rollout") };
  // Only the frame counts here, whatever a later version has added.
  reader.object("", { ...fields, ...rest, hosts: passOver("hosts") }, { others: "skipped" });
  reader.end();
  checked(channelSchema, values["channel"], "channel");
  // Only the rest is taken from it.
  const filled = { ...values, defaults: { activation: { mode: "switch" } }, hosts: {} };
  const { channel, epoch, sequence, history } = checked(manifestSchema, filled, "");
  return { channel, ...(epoch && { epoch }), sequence, history };
}

/** A reader of a payload, and how it reads the parts that are short. */
function startOf(payload: Uint8Array): {
  values: Record<string, unknown>;
  reader: JsonReader;
  fields: Record<string, () => unknown>;
} {
  const values: Record<string, unknown> = {};
  const reader = new JsonReader(payload, complaint);
  const small = (part: string) => () => {
    values[part] = reader.value(part, MAX_SMALL_BYTES);
    if (part === "formatVersion") expectKnownFormat(values[part]);
  };
  const parts = ["formatVersion", "channel", "epoch", "sequence", "createdAt", "expiresAt"];
  const all = [...parts, "requires", "barrier"];
  const fields = Object.fromEntries(all.map((part) => [part, small(part)]));
  const history = (): unknown => (values["history"] = readHistory(reader));
  const supported = (): unknown =>
    (values["supported"] = listOf(reader, "supported", MAX_SUPPORTED, supportedReleaseSchema));
  return { values, reader, fields: { ...fields, history, supported } };
}

function readHistory(reader: JsonReader): Record<string, unknown> {
  const history: Record<string, unknown> = {};
  reader.object("history", {
    since: () => (history["since"] = reader.value("history.since", MAX_SMALL_BYTES)),
    releases: () =>
      (history["releases"] = listOf(reader, "history.releases", MAX_HISTORY, namedReleaseSchema)),
  });
  return history;
}

function readDefaults(reader: JsonReader): Record<string, unknown> {
  const activation: Record<string, unknown> = {};
  const small = (part: string) => () =>
    (activation[part] = reader.value(`defaults.activation.${part}`, MAX_SMALL_BYTES));
  reader.object("defaults", {
    activation: () => {
      reader.object("defaults.activation", {
        mode: small("mode"),
        specialisation: small("specialisation"),
        checks: () => {
          const part = "defaults.activation.checks";
          activation["checks"] = listOf(reader, part, MAX_CHECKS, healthCheckSchema);
        },
      });
    },
  });
  return { activation };
}

function readRollout(reader: JsonReader): Record<string, unknown> {
  const rollout: Record<string, unknown> = {};
  const small = (part: string) => () =>
    (rollout[part] = reader.value(`rollout.${part}`, MAX_SMALL_BYTES));
  reader.object("rollout", {
    start: small("start"),
    salt: small("salt"),
    paused: small("paused"),
    waves: () => (rollout["waves"] = listOf(reader, "rollout.waves", MAX_WAVES, waveSchema)),
  });
  return rollout;
}

/** A list whose elements are judged one by one. */
function listOf<T>(reader: JsonReader, part: string, max: number, schema: z.ZodType<T>): T[] {
  const found: T[] = [];
  reader.list(part, max, (at) => {
    const name = `${part}[${at}]`;
    found.push(checked(schema, reader.value(name, MAX_PART_BYTES), name));
  });
  return found;
}

function checked<T>(schema: z.ZodType<T>, value: unknown, part: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new PullError("MANIFEST_INVALID", describeIssues(parsed.error, value, part));
}

function complaint(part: string, expected: string, at: number): PullError {
  const where = part === "" ? "the payload" : part;
  return new PullError("MANIFEST_INVALID", `${where}: expected ${expected} at byte ${at}`);
}
