import { PullError } from "../errors.ts";
import { verifyBytes, signBytes, type PublicKey, type SecretKey } from "./signing-key.ts";
import { STORE_DIRECTORY, STORE_PATH_NAME, decodeBase32, encodeBase32 } from "./store-path.ts";

/** How a NAR is compressed in a binary cache. */
export const COMPRESSIONS = ["zstd", "xz", "none"] as const;
export type Compression = (typeof COMPRESSIONS)[number];

/** File name endings as Nix gives them to NARs. */
const NAR_SUFFIX = { zstd: ".nar.zst", xz: ".nar.xz", none: ".nar" } as const satisfies Record<
  Compression,
  string
>;

/** What Nix knows about a store path, wherever it lies. */
export interface StorePathInfo {
  /** Base name of the store path, `HASH-NAME`. */
  readonly storePath: string;
  /** `sha256:` and 52 base-32 digits: the hash of the NAR itself. */
  readonly narHash: string;
  /** Size of the NAR itself, bytes. */
  readonly narSize: number;
  /** Base names of the paths that it refers to, possibly itself; sorted. */
  readonly references: readonly string[];
  /** Content address, if the path has one; to Nix such a path needs no signature. */
  readonly ca?: string | undefined;
}

/** What a binary cache says about one store path (Nix manual, "Narinfo"). */
export interface NarInfo extends StorePathInfo {
  readonly compression: Compression;
  /** sha256 of the NAR file as it is stored, hex. */
  readonly fileSha256: string;
  /** Size of the NAR file as it is stored, bytes. */
  readonly fileSize: number;
  /** `NAME:BASE64`, one for each key. */
  readonly signatures: readonly string[];
}

export const NAR_HASH = /^sha256:[0-9abcdfghijklmnpqrsvwxyz]{52}$/;
export const CONTENT_ADDRESS = /^(text|fixed)(:(r|git))?:(md5|sha1|sha256|sha512):[0-9a-z]{1,128}$/;
export const PATH_SIGNATURE = /^[^\s:]{1,200}:[A-Za-z0-9+/]{86}==$/;

/** `nar/DIGITS.nar.zst`: Nix's own name for a NAR file, derived from its hash. */
export function narFileName(fileSha256: string, compression: Compression): string {
  return `nar/${encodeBase32(Buffer.from(fileSha256, "hex"))}${NAR_SUFFIX[compression]}`;
}

/** `DIGITS.narinfo`: the file in which a binary cache describes a store path. */
export function narInfoFileName(storePathName: string): string {
  return `${storePathName.slice(0, 32)}.narinfo`;
}

/** The one text of a narinfo: the same facts always give the same bytes. */
export function renderNarInfo(info: NarInfo): string {
  const fileHash = encodeBase32(Buffer.from(info.fileSha256, "hex"));
  return [
    `StorePath: ${STORE_DIRECTORY}/${info.storePath}`,
    `URL: ${narFileName(info.fileSha256, info.compression)}`,
    `Compression: ${info.compression}`,
    `FileHash: sha256:${fileHash}`,
    `FileSize: ${info.fileSize}`,
    `NarHash: ${info.narHash}`,
    `NarSize: ${info.narSize}`,
    `References: ${info.references.join(" ")}`,
    ...info.signatures.map((signature) => `Sig: ${signature}`),
    ...(info.ca === undefined ? [] : [`CA: ${info.ca}`]),
    "",
  ].join("\n");
}

/** A narinfo of the cache that a publish fills. */
export interface ParsedNarInfo extends Omit<NarInfo, "signatures"> {
  /** Path of the NAR file below the binary cache. */
  readonly url: string;
}

/** Reads a narinfo that Nix wrote. Throws PUBLISH_FAILED, naming `file` and the bad field. */
export function parseNarInfo(text: string, file: string): ParsedNarInfo {
  const fields = new Map<string, string>();
  for (const line of text.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 2));
  }
  const field = (name: string, pattern: RegExp): string => {
    const value = fields.get(name);
    if (value === undefined || !pattern.test(value)) {
      throw new PullError(
        "PUBLISH_FAILED",
        `${file}: field ${name}: expected ${String(pattern)}, found ${JSON.stringify(value)}`,
      );
    }
    return value;
  };
  const storePath = field("StorePath", /^\/nix\/store\/./).slice(STORE_DIRECTORY.length + 1);
  const references = (fields.get("References") ?? "").split(" ").filter((name) => name !== "");
  for (const name of [storePath, ...references]) {
    if (!STORE_PATH_NAME.test(name)) {
      throw new PullError("PUBLISH_FAILED", `${file}: not a store path: ${JSON.stringify(name)}`);
    }
  }
  const fileHash = decodeBase32(field("FileHash", NAR_HASH).slice("sha256:".length), 32);
  if (!fileHash) throw new PullError("PUBLISH_FAILED", `${file}: field FileHash: not a sha256`);
  return {
    storePath,
    url: field("URL", /^nar\/[0-9a-z]+\.nar(\.[a-z0-9]+)?$/),
    compression: field("Compression", /^(zstd|xz|none)$/) as Compression,
    fileSha256: fileHash.toString("hex"),
    fileSize: Number(field("FileSize", /^[1-9][0-9]{0,14}$/)),
    narHash: field("NarHash", NAR_HASH),
    narSize: Number(field("NarSize", /^[1-9][0-9]{0,14}$/)),
    references: references.sort(),
    ca: fields.has("CA") ? field("CA", CONTENT_ADDRESS) : undefined,
  };
}

/** What Nix signs for a path: path, NAR hash, NAR size and references (Nix manual, "Signing"). */
export function pathFingerprint(
  info: Pick<NarInfo, "storePath" | "narHash" | "narSize" | "references">,
): Buffer {
  const references = info.references.map((name) => `${STORE_DIRECTORY}/${name}`).join(",");
  return Buffer.from(
    `1;${STORE_DIRECTORY}/${info.storePath};${info.narHash};${info.narSize};${references}`,
  );
}

/** `NAME:BASE64` of the key's signature, as `nix store sign` makes it. */
export function signPath(key: SecretKey, fingerprint: Uint8Array): string {
  return `${key.name}:${signBytes(key, fingerprint).toString("base64")}`;
}

/**
 * Whether one of `keys` signed the path. A content address is no signature: Nix would take such a
 * path from whoever knows how to make one.
 */
export function hasTrustedSignature(
  info: Pick<NarInfo, "storePath" | "narHash" | "narSize" | "references" | "signatures">,
  keys: readonly PublicKey[],
): boolean {
  const fingerprint = pathFingerprint(info);
  return info.signatures.some((text) => {
    const [name = "", base64 = ""] = text.split(":");
    const signature = Buffer.from(base64, "base64");
    return keys.some((key) => key.name === name && verifyBytes(key, fingerprint, signature));
  });
}
