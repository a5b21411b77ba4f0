import type * as z from "zod";

/** At most this many problems are named at once; the first ones matter. */
const MAX_ISSUES = 5;
const MAX_VALUE_TEXT = 80;
/** An address of a mirror is a key too, and is shown whole. */
const MAX_KEY_TEXT = 200;
const MAX_DEPTH = 10;

/**
 * Words for what a schema refused: the key, what was expected and the value found.
 * `input` is the value that was parsed; zod's own issues do not carry it. `part` names what it is
 * a part of. However much is wrong, the words stay short.
 */
export function describeIssues(error: z.ZodError, input: unknown, part = ""): string {
  const lines = error.issues.slice(0, MAX_ISSUES).map((issue) => {
    const where = pathText(issue.path, part);
    if (issue.code === "unrecognized_keys") {
      const keys = issue.keys.slice(0, MAX_ISSUES).map((key) => JSON.stringify(shortened(key)));
      const others = issue.keys.length - keys.length;
      return `${where}: unknown key ${keys.join(", ")}${others > 0 ? ` and ${others} more` : ""}`;
    }
    const found = valueAt(input, issue.path);
    // A text in the place of a public key may be a secret key: it is not repeated.
    const isSecret = issue.code === "custom" && issue.params?.["secret"] === true;
    if (isSecret) return `${where}: ${issue.message}`;
    const expected = issue.message.replace(/^Invalid input: /, "").replace(/, received .*$/, "");
    return found === undefined
      ? `${where}: missing; ${expected}`
      : `${where}: ${expected}, found ${valueText(found)}`;
  });
  const more = error.issues.length - lines.length;
  return lines.join("; ") + (more > 0 ? `; and ${more} more` : "");
}

function pathText(path: readonly PropertyKey[], part: string): string {
  if (path.length === 0) return part === "" ? "top level" : part;
  const text = path
    .slice(0, MAX_DEPTH)
    .map((key, at) =>
      typeof key === "number"
        ? `[${key}]`
        : `${at === 0 && part === "" ? "" : "."}${shortened(String(key))}`,
    )
    .join("");
  return `${part}${text}`.replace(/\/\/[^/@\s]*@/g, "//…@");
}

/** Names of keys are somebody's data too. */
function shortened(key: string): string {
  return key.length > MAX_KEY_TEXT ? `${key.slice(0, MAX_KEY_TEXT)}…` : key;
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input;
  for (const key of path) {
    if (typeof value !== "object" || value === null) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

function valueText(value: unknown): string {
  let visited = 0;
  const bounded = (_: string, part: unknown): unknown => {
    if (visited++ > MAX_VALUE_TEXT) return undefined;
    return typeof part === "string" ? part.slice(0, 2 * MAX_VALUE_TEXT) : part;
  };
  let text: string;
  try {
    // A password that somebody wrote into an address must not end in a log.
    text = JSON.stringify(value, bounded).replace(/\/\/[^/@"\s]*@/g, "//…@");
  } catch {
    // Nested deeper than the stack is long.
    return "something that cannot be shown";
  }
  return text.length > MAX_VALUE_TEXT ? `${text.slice(0, MAX_VALUE_TEXT)}…` : text;
}
