/**
 * What a terminal or a page would not show as it is: control characters (escape sequences
 * begin with one), line and paragraph separators, characters without width and those that
 * turn the direction of writing, and halves of characters.
 */
const UNSHOWN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]|\p{Surrogate}/gu;

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
