import type * as z from "zod";

/** At most this many problems are named at once; the first ones matter. */
const MAX_ISSUES = 5;
const MAX_VALUE_TEXT = 80;

/**
 * Words for what a schema refused: the key, what was expected and the value found.
 * `input` is the value that was parsed; zod's own issues do not carry it.
 */
export function describeIssues(error: z.ZodError, input: unknown): string {
  const lines = error.issues.slice(0, MAX_ISSUES).map((issue) => {
    const where = pathText(issue.path);
    if (issue.code === "unrecognized_keys") {
      return `${where}: unknown key ${issue.keys.map((key) => JSON.stringify(key)).join(", ")}`;
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

function pathText(path: readonly PropertyKey[]): string {
  if (path.length === 0) return "top level";
  const text = path
    .map((key, at) =>
      typeof key === "number" ? `[${key}]` : `${at === 0 ? "" : "."}${String(key)}`,
    )
    .join("");
  return text.replace(/\/\/[^/@\s]*@/g, "//…@");
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
  let text: string;
  try {
    // A password that somebody wrote into an address must not end in a log.
    text = JSON.stringify(value).replace(/\/\/[^/@"\s]*@/g, "//…@");
  } catch {
    // Nested deeper than the stack is long.
    return "something that cannot be shown";
  }
  return text.length > MAX_VALUE_TEXT ? `${text.slice(0, MAX_VALUE_TEXT)}…` : text;
}
