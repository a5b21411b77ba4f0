/**
 * What a terminal or a page would not show as it is: control characters (escape sequences
 * begin with one), line and paragraph separators, characters without width and those that
 * turn the direction of writing, and halves of characters.
 */
const UNSHOWN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]|\p{Surrogate}/gu;

/** Text of any length and of several lines, harmless to a terminal. */
export function sanitizeLines(text: string): string {
  return text.replace(UNSHOWN, (found) => (isLayout(found) ? found : "\ufffd"));
}

/**
 * JSON text whose strings are the same, but which a terminal shows as it is: what JSON would let
 * through is written as an escape.
 */
export function escapeJson(json: string): string {
  return json.replace(UNSHOWN, (found) =>
    isLayout(found) ? found : `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Line ends and tabs: text of several lines is made of them. */
function isLayout(character: string): boolean {
  return character === "\n" || character === "\t";
}

/** Text of somebody else on one line, harmless to a terminal; cut after `max` characters. */
export function sanitize(text: string, max = 2000): string {
  const shown = text
    .slice(0, max + 1)
    .replaceAll("\t", " ")
    .replace(UNSHOWN, "\ufffd");
  return shown.length > max
    ? `${shown.slice(0, Math.max(0, max - 1)).replace(/\p{Surrogate}$/u, "")}…`
    : shown;
}
