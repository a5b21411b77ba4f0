/** One entry of GRUB's menu, or a submenu with its own. */
export interface MenuItem {
  readonly title: string;
  /** Null for a submenu. */
  readonly init: string | null;
  readonly items: readonly MenuItem[];
}

/** What is read of a `grub.cfg`. */
export interface GrubMenu {
  readonly items: readonly MenuItem[];
  /** Whether it starts `next_entry` of its environment once, and forgets it before. */
  readonly triesOnce: boolean;
  /** The item that is started otherwise: a number, titles joined by `>`, or `${saved_entry}`. */
  readonly defaultItem: string;
}

const ITEM = /^\s*(menuentry|submenu)\s+(?:"((?:[^"\\$]|\\[^$])*)"|'([^']*)').*\{\s*$/;
const BLOCK = /\{\s*$/;
const BLOCK_END = /^\s*\}\s*$/;
const KERNEL = /^\s*(?:linux\w*|module2?)\s.*?\binit=(\S+)/;

/** A submenu or entry that is being read; null for another block, such as a function. */
type Open = { title: string; isEntry: boolean; init: string | null; items: MenuItem[] } | null;

/** Reads a `grub.cfg` as NixOS's installer and grub-mkconfig write them: one thing a line. */
export function parseGrubMenu(text: string): GrubMenu {
  const items: MenuItem[] = [];
  const open: Open[] = [];
  for (const line of text.split("\n")) {
    const item = ITEM.exec(line);
    const inner = open.findLast((it) => it !== null);
    if (item) {
      const title = item[2]?.replaceAll(/\\(.)/g, "$1") ?? item[3] ?? "";
      open.push({ title, isEntry: item[1] === "menuentry", init: null, items: [] });
    } else if (BLOCK_END.test(line)) {
      const closed = open.pop();
      if (!closed) continue;
      const { title, init } = closed;
      const outer = open.findLast((it) => it !== null)?.items ?? items;
      outer.push({ title, init: closed.isEntry ? (init ?? "") : null, items: closed.items });
    } else if (BLOCK.test(line)) {
      open.push(null);
    } else if (inner?.isEntry) {
      inner.init ??= KERNEL.exec(line)?.[1] ?? null;
    }
  }
  return {
    items,
    triesOnce:
      /^\s*load_env\b/m.test(text) &&
      /^\s*set default="\$\{next_entry\}"/m.test(text) &&
      /^\s*save_env next_entry\b/m.test(text),
    defaultItem:
      /\bset default="\$\{next_entry\}"[\s\S]*?\belse\s+set default="?([^"\n]*)"?\s*$/m.exec(
        text,
      )?.[1] ?? "0",
  };
}

/** A title as part of a path: `>` stands between titles, and doubled in one. */
function escaped(title: string): string {
  return title.replaceAll(">", ">>");
}

/**
 * An item as part of a path: its title, or its number if GRUB would take the title for something
 * else. `A>>> B` is `A>` and ` B` to it, and `2 B` may be the third item.
 */
function partOf({ title }: MenuItem, number: number): string {
  return /^[>\d]/.test(title) || title === "" ? String(number) : escaped(title);
}

/** The first part of a path and the rest: `>` ends a part unless another one follows. */
function splitPath(path: string): { readonly first: string; readonly rest: string } {
  const first = /^(?:[^>]|>>)*/.exec(path)?.[0] ?? "";
  return { first, rest: path.slice(first.length + 1) };
}

/** The path of an entry that starts `init`, as GRUB's environment names it; null if there is none. */
export function pathOf(items: readonly MenuItem[], init: string): string | null {
  for (const [number, item] of items.entries()) {
    if (item.init === init) return partOf(item, number);
    const below = pathOf(item.items, init);
    if (below !== null) return `${partOf(item, number)}>${below}`;
  }
  return null;
}

/**
 * What an item starts: its `init`, or null. GRUB takes a path of titles or numbers, and the first
 * item if there is no such one.
 */
export function initOf(items: readonly MenuItem[], path: string): string | null {
  const { first, rest } = splitPath(path);
  const chosen =
    items.find(({ title }) => escaped(title) === first) ??
    (/^\d+$/.test(first) ? items[Number(first)] : undefined) ??
    items[0];
  if (!chosen) return null;
  return chosen.init ?? initOf(chosen.items, rest);
}
