/** What a NAR is made of: a file's contents, a link's target in an array, or a directory. */
export type NarNode = string | readonly [string] | { readonly [name: string]: NarNode };

/** The NAR of a tree, as `nix-store --dump` writes it (names in order are up to the caller). */
export function narOf(node: NarNode): Buffer {
  return Buffer.concat([word("nix-archive-1"), ...piecesOf(node)]);
}

function piecesOf(node: NarNode): Buffer[] {
  if (typeof node === "string") {
    return words("(", "type", "regular", "contents", node, ")");
  }
  if (Array.isArray(node)) return words("(", "type", "symlink", "target", String(node[0]), ")");
  const entries = Object.entries(node).flatMap(([name, child]) => [
    ...words("entry", "(", "name", name, "node"),
    ...piecesOf(child),
    word(")"),
  ]);
  return [...words("(", "type", "directory"), ...entries, word(")")];
}

function words(...texts: readonly string[]): Buffer[] {
  return texts.map(word);
}

function word(text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([length, bytes, Buffer.alloc((8 - (bytes.length % 8)) % 8)]);
}
