import { NarWalker, type NarVisitor } from "../formats/nar-walk.ts";
import { PullError } from "../errors.ts";
import { parseSecretKey } from "../formats/signing-key.ts";

/** Kinds of private keys that are recognised. */
export type SecretKind =
  | "PEM private key"
  | "OpenSSH private key"
  | "PGP private key"
  | "age identity"
  | "Nix secret key"
  | "WireGuard private key";

/** A private key in a store path. */
export interface FoundSecret {
  readonly kind: SecretKind;
  /** Relative to the store path; empty if that is the file itself. */
  readonly file: string;
}

/** How far around its mark a key is looked at; also what is kept between two pieces. */
const REACH = 1024;

/**
 * Looks for private keys that are not encrypted in a NAR that streams by. A mark alone
 * (programs that read keys have it among their constants) is no find: the beginning of a
 * key has to follow. What is compressed or encoded once more is not seen.
 */
export class SecretScan {
  readonly #found: FoundSecret[] = [];
  readonly #walker: NarWalker;
  #file = "";
  #before: Buffer = Buffer.alloc(0);
  #kinds = new Set<SecretKind>();

  constructor() {
    const visitor: NarVisitor = {
      onFile: (path) => {
        this.#file = path;
        this.#before = Buffer.alloc(0);
        this.#kinds = new Set();
      },
      onContents: (piece) => {
        this.#look(piece);
      },
    };
    this.#walker = new NarWalker(visitor);
  }

  /** What was found until now: each kind once for each file. */
  get found(): readonly FoundSecret[] {
    return this.#found;
  }

  /** The next piece of the NAR. */
  push(piece: Buffer): void {
    this.#walker.push(piece);
  }

  /** A key that lies across two pieces is seen with the second: `#before` has its first part. */
  #look(piece: Buffer): void {
    const text = this.#before.length === 0 ? piece : Buffer.concat([this.#before, piece]);
    for (const [mark, kindAt] of MARKS) {
      for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark, at + mark.length)) {
        const kind = kindAt(text, at);
        if (kind === null || this.#kinds.has(kind)) continue;
        this.#kinds.add(kind);
        this.#found.push({ kind, file: this.#file });
      }
    }
    this.#before = Buffer.from(text.subarray(Math.max(0, text.length - REACH)));
  }
}

/** What to search for, and what a key there would be; null for none. */
const MARKS: readonly (readonly [Buffer, (text: Buffer, at: number) => SecretKind | null])[] = [
  [Buffer.from("PRIVATE KEY"), pemKey],
  [Buffer.from("AGE-SECRET-KEY-"), ageIdentity],
  [Buffer.from("PrivateKey"), wireGuardKey],
  [Buffer.from("=="), nixKey],
];

/** RFC 7468, and before it RFC 1421; line ends may be written as `\n`, as in JSON. */
const PEM_BEGIN = /-----BEGIN ([A-Z0-9]+ )*$/;
const PEM_BODY =
  /^(?: BLOCK)?-----(?:\s|\\r|\\n)+(?:(?:Version|Comment): [^\n]*\s+)*(?<body>[A-Za-z0-9+/]{48,})/;
/** `openssh-key-v1`, NUL, then the cipher `none` with its length (PROTOCOL.key of OpenSSH). */
const OPENSSH_PLAIN = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU";

function pemKey(text: Buffer, at: number): SecretKind | null {
  const label = PEM_BEGIN.exec(text.toString("latin1", Math.max(0, at - 48), at))?.[0];
  if (label === undefined) return null;
  // `ENCRYPTED` stands in the label, or in a header, which is no base64.
  if (label.includes("ENCRYPTED")) return null;
  const end = at + "PRIVATE KEY".length;
  const body = PEM_BODY.exec(text.toString("latin1", end, end + REACH / 2))?.groups?.["body"];
  if (body === undefined) return null;
  if (label.includes("PGP")) return "PGP private key";
  if (label.includes("OPENSSH")) {
    return body.startsWith(OPENSSH_PLAIN) ? "OpenSSH private key" : null;
  }
  // DER of every other kind begins with a SEQUENCE.
  return body.startsWith("M") ? "PEM private key" : null;
}

/** Bech32 in capitals (age-encryption.org/v1). */
const AGE_IDENTITY = /^AGE-SECRET-KEY-(?:[A-Z]+-)?1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}/;

function ageIdentity(text: Buffer, at: number): SecretKind | null {
  return AGE_IDENTITY.test(text.toString("latin1", at, at + 128)) ? "age identity" : null;
}

/** As in wg-quick(8) and systemd.netdev(5): 32 bytes. */
const WIREGUARD = /^PrivateKey[ \t]*=[ \t]*[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=/;

function wireGuardKey(text: Buffer, at: number): SecretKind | null {
  return WIREGUARD.test(text.toString("latin1", at, at + 128)) ? "WireGuard private key" : null;
}

/** 64 bytes in base64 before their padding. */
const NIX_DIGITS = 86;
const NIX_KEY = /(?<name>[A-Za-z0-9._-]{1,200}):(?<base64>[A-Za-z0-9+/]{86}==)$/;
const COLON = 0x3a;

/** A signature has the same form as a secret key; only of a key the halves fit together. */
function nixKey(text: Buffer, at: number): SecretKind | null {
  if (text[at - NIX_DIGITS - 1] !== COLON) return null;
  const key = NIX_KEY.exec(text.toString("latin1", Math.max(0, at - NIX_DIGITS - 201), at + 2));
  if (!key) return null;
  try {
    parseSecretKey(key[0]);
    return "Nix secret key";
  } catch (error) {
    if (error instanceof PullError) return null;
    throw error;
  }
}
