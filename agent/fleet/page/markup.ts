import { sanitize } from "../../core/text/sanitize.ts";

/** HTML that is put into a page unescaped. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Value = Markup | string | number | null | false | undefined | readonly Value[];

/**
 * A template of HTML. Values are escaped, unless they are Markup. Null, false and undefined become
 * nothing.
 */
export function markup(parts: TemplateStringsArray, ...values: Value[]): Markup {
  const filled = parts.map((part, at) => (at === 0 ? part : `${rendered(values[at - 1])}${part}`));
  return new Markup(filled.join(""));
}

function rendered(value: Value): string {
  if (value === null || value === undefined || value === false) return "";
  if (value instanceof Markup) return value.text;
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return escapeText(value);
  return value.map(rendered).join("");
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
  "`": "&#96;",
};

/** Escapes text for an element or a quoted attribute. */
function escapeText(text: string): string {
  return sanitize(text, Infinity).replace(/[&<>"'`]/g, (found) => ENTITIES[found] ?? "");
}
