import { readFileSync } from "node:fs";

/** Replaced by the build: the text of every file in `template/`, by its path there. */
declare const NIXOS_PULL_TEMPLATES: Readonly<Record<string, string>> | undefined;

/** A place in a template, written `@name@` as in nixpkgs' `replaceVars`. */
const PLACEHOLDER = /@([a-z][A-Za-z]*)@/g;

/**
 * The text of a file in `template/`, with `values` at its placeholders. A value has to be
 * quoted already for the language that it is put into. Throws if the file is not there or has a
 * placeholder without a value: either is a defect of this program.
 */
export function fillTemplate(path: string, values: Readonly<Record<string, string>>): string {
  return templateText(path).replace(PLACEHOLDER, (_, name: string) => {
    const value = Object.hasOwn(values, name) ? values[name] : undefined;
    if (value === undefined) throw new Error(`template ${path}: no value for @${name}@`);
    return value;
  });
}

/** The bundle carries the templates in itself; sources read them from beside this file. */
function templateText(path: string): string {
  if (typeof NIXOS_PULL_TEMPLATES === "undefined") {
    return readFileSync(new URL(`template/${path}`, import.meta.url), "utf8");
  }
  const text = NIXOS_PULL_TEMPLATES[path];
  if (text === undefined) throw new Error(`the bundle has no template ${path}`);
  return text;
}
