import * as z from "zod";
import { withUnknownKeys, unknownKeys } from "../formats/compatibility.ts";
import { releaseSchema } from "../formats/manifest.ts";
import { EMPTY_RECORD, savedRecordSchema, unknownOfUpdate, type SavedRecord } from "./record.ts";
import { baselineSchema, bootIdSchema, stateSchema, type State } from "./states.ts";

/**
 * Records that another version of nixos-pull wrote. A host changes its agent in the middle of an
 * update, in both directions, and neither agent may lose the way back:
 *
 * - Keys that are not known stay where they are.
 * - A state that 0.1.0 does not have carries `readAs`: a state that it has, from which it can go
 *   on. That may be another version's state with a `readAs` of its own.
 * - Without one, the host goes back to the recorded system if a way back is recorded; if none is,
 *   nothing was changed yet, and the agent is at rest.
 * - What is not readable all the same costs that part and nothing else.
 */

/** A record as far as this version knows it. */
export interface ReadRecord {
  readonly record: SavedRecord;
  /** The state that another version wrote, if the record has the one that it is to be read as. */
  readonly written: object | null;
  /** What was given up, for people; empty if nothing was. */
  readonly problems: readonly string[];
}

const savedSchema = withUnknownKeys(savedRecordSchema, "kept");
const knownStateSchema = withUnknownKeys(stateSchema, "kept");

/** What every version writes. */
const recordedSchema = z.looseObject({
  formatVersion: z.int().positive(),
  state: z.looseObject({ name: z.string().min(1).max(100) }),
  trust: z.array(z.unknown()),
});

/** Reads a record of this or of another version; null for what no version wrote. Pure. */
export function readRecord(json: unknown): ReadRecord | null {
  const recorded = recordedSchema.safeParse(json);
  if (!recorded.success) return null;
  const { state, written, problem } = readState(recorded.data.state);
  const { parts, problems } = readParts({ ...recorded.data, state });
  const record = savedSchema.safeParse(parts);
  if (!record.success) return null;
  return {
    // The very state that was read: whoever saves the record sees by it whether it changed.
    record: { ...record.data, state },
    written,
    problems: [...(problem === null ? [] : [problem]), ...problems],
  };
}

/** A chain of states that are read as others is at most this long. */
const MAX_CHAIN = 8;

interface ReadState {
  readonly state: State;
  readonly written: object | null;
  readonly problem: string | null;
}

function readState(written: { readonly name: string }): ReadState {
  let state: unknown = written;
  const chain: object[] = [];
  for (let depth = 0; depth < MAX_CHAIN; depth++) {
    if (typeof state === "object" && state !== null) chain.push(state);
    const known = knownStateSchema.safeParse(state);
    if (known.success) {
      return { state: known.data, written: depth === 0 ? null : written, problem: null };
    }
    const chained = z.looseObject({ readAs: z.unknown() }).safeParse(state);
    if (!chained.success) break;
    state = chained.data.readAs;
  }
  return safeState(written, chain);
}

/** Units are details: without them the way back leads to the same system. */
const units = z.array(z.string()).catch([]);

const undoableSchema = withUnknownKeys(
  z.object({
    release: releaseSchema.extend({
      mode: releaseSchema.shape.mode.catch("switch"),
      specialisation: releaseSchema.shape.specialisation.catch(undefined),
      checks: releaseSchema.shape.checks.catch([]),
    }),
    baseline: baselineSchema.extend({
      ...{ failedUnits: units, restartedUnits: units },
      activeUnits: z.array(z.string()).optional().catch(undefined),
    }),
    attempts: z.int().nonnegative().catch(0),
    undone: z.int().positive().optional().catch(undefined),
    bootId: bootIdSchema.catch(""),
    trial: z.boolean().optional().catch(undefined),
  }),
  "kept",
);

/** The state that does a host no harm, if what it was in the middle of is not known. */
function safeState(written: { readonly name: string }, chain: readonly object[]): ReadState {
  const found = `another version of nixos-pull left the state ${written.name}, which this one does not know`;
  const undoable = chain
    .map((state) => undoableSchema.safeParse(state))
    .find(({ success }) => success);
  if (!undoable?.success) {
    const problem = `${found}; no way back is recorded in it, so this host is at rest as it is`;
    return { state: { name: "Idle" }, written: null, problem };
  }
  const { release, baseline, attempts, undone, bootId, trial } = undoable.data;
  const problem = `${found}; this host goes back to the system that is recorded in it`;
  const state: State = {
    name: "RollingBack",
    ...{ release, attempts, baseline, bootId, restarts: 0 },
    ...(undone !== undefined && { undone }),
    ...(trial !== undefined && { trial }),
    reason: { code: "STATE_UNKNOWN", message: found },
    ...{ deny: false, rollbackAttempts: 0 },
  };
  const others = unknownKeys(written, new Set(["readAs", ...Object.keys(state)]));
  return {
    state: { ...state, ...unknownOfUpdate({ ...state, ...others }) },
    written: null,
    problem,
  };
}

/** The parts of a record that can be read, and what of the others stands in their place. */
function readParts(recorded: Readonly<Record<string, unknown>>): {
  readonly parts: Readonly<Record<string, unknown>>;
  readonly problems: readonly string[];
} {
  const parts: Record<string, unknown> = { ...recorded };
  const problems: string[] = [];
  for (const [key, schema] of Object.entries(savedSchema.shape)) {
    if (schema.safeParse(parts[key]).success) continue;
    const found = parts[key];
    const element = arrayElement(schema);
    if (element && Array.isArray(found)) {
      parts[key] = found.filter((it) => element.safeParse(it).success);
    } else if (Object.hasOwn(EMPTY_RECORD, key)) {
      parts[key] = EMPTY_RECORD[key as keyof typeof EMPTY_RECORD];
    } else {
      // eslint-disable-next-line @typescript-eslint/no-dynamic-delete -- parts are named by the schema
      delete parts[key];
    }
    // A key that this version added is not in an earlier version's record.
    if (found !== undefined) {
      problems.push(
        `another version of nixos-pull wrote ${key} in a form that this one cannot read`,
      );
    }
  }
  return { parts, problems };
}

/** What an array's elements are; null for everything else. */
function arrayElement(schema: z.core.$ZodType): z.ZodType | null {
  const inner = schema instanceof z.ZodOptional ? schema.unwrap() : schema;
  return inner instanceof z.ZodArray && inner.element instanceof z.ZodType ? inner.element : null;
}
