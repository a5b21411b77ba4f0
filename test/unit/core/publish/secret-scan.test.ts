import { execFileSync } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SecretScan, type FoundSecret } from "../../../../agent/core/publish/secret-scan.ts";
import {
  generateKey,
  parseSecretKey,
  signBytes,
} from "../../../../agent/core/formats/signing-key.ts";
import { narOf, type NarNode } from "../../../support/nar.ts";
import { suiteDirectory } from "../../../support/suite-directory.ts";

/** What is found in a tree, its NAR cut into pieces of this size. */
function scan(tree: NarNode, pieceSize = Infinity): readonly FoundSecret[] {
  const nar = narOf(tree);
  const scanning = new SecretScan();
  const size = Math.min(pieceSize, nar.length);
  for (let at = 0; at < nar.length; at += size) scanning.push(nar.subarray(at, at + size));
  return scanning.found;
}

const pem = (type: "pkcs1" | "pkcs8" | "sec1", passphrase?: string): string => {
  const { privateKey } =
    type === "sec1"
      ? generateKeyPairSync("ec", { namedCurve: "P-256" })
      : generateKeyPairSync("rsa", { modulusLength: 2048 });
  const cipher = passphrase === undefined ? {} : { cipher: "aes-256-cbc", passphrase };
  return privateKey.export({ format: "pem", type: type, ...cipher }).toString();
};
const ed25519 = generateKeyPairSync("ed25519").privateKey;
const pemOf = (label: string, body: string): string =>
  `-----BEGIN ${label}PRIVATE KEY-----\n${body}\n-----END ${label}PRIVATE KEY-----\n`;
const pgp = (headers = ""): string =>
  `-----BEGIN PGP PRIVATE KEY BLOCK-----\n${headers}${"lQ".repeat(32)}\n`;
/** No real identity: the alphabet is what counts. */
const AGE = `AGE-SECRET-KEY-1${"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L".repeat(2).slice(0, 58)}`;

const DIRECTORY = suiteDirectory();

function openSsh(passphrase: string): string {
  const file = join(DIRECTORY, `key-${passphrase}`);
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", passphrase, "-f", file]);
  return readFileSync(file, "utf8");
}

describe("finds private keys in the clear", () => {
  test.each([
    ["PEM private key", pem("pkcs1")],
    ["PEM private key", pem("pkcs8")],
    ["PEM private key", pem("sec1")],
    ["PEM private key", ed25519.export({ format: "pem", type: "pkcs8" }).toString()],
    ["PEM private key", JSON.stringify({ key: pem("pkcs8") })],
    ["PEM private key", pem("pkcs8").replaceAll("\n", "\r\n")],
    ["PEM private key", pem("pkcs8").replaceAll(/^/gm, "    ")],
    ["OpenSSH private key", openSsh("")],
    ["PGP private key", pgp()],
    ["PGP private key", pgp("Version: GnuPG v2\nComment: mine\n\n")],
    ["PGP private key", pgp().replaceAll("\n", "\\n")],
    ["PEM private key", pemOf("RSA ", `M${"A".repeat(47)}`)],
    ["age identity", AGE.replace("KEY-", "KEY-PQ-")],
    ["WireGuard private key", `PrivateKey\t = ${"A".repeat(42)}E=`],
    ["age identity", `# created: today\n${AGE}\n`],
    ["Nix secret key", generateKey("cache.example.org-1").secret],
    ["Nix secret key", `ExecStart=/bin/x --key=${generateKey("fleet-1").secret} --more\n`],
    ["WireGuard private key", `[Interface]\nPrivateKey = ${randomBytes(32).toString("base64")}\n`],
    ["WireGuard private key", `[WireGuard]\nPrivateKey=${randomBytes(32).toString("base64")}\n`],
  ])("%s", (kind, text) => {
    expect(scan(text)).toEqual([{ kind, file: "" }]);
    expect(scan({ etc: { conf: `before\n${text}` } })).toEqual([{ kind, file: "etc/conf" }]);
  });
});

describe("leaves alone", () => {
  const signer = parseSecretKey(generateKey("fleet-1").secret);
  test.each([
    ["an encrypted PEM key", pem("pkcs8", "secret")],
    ["an encrypted PEM key of the old form", pem("pkcs1", "secret")],
    ["an encrypted OpenSSH key", openSsh("secret")],
    ["a public key", generateKey("fleet-1").public],
    ["a PEM key that is too short to be one", pemOf("RSA ", `M${"A".repeat(46)}`)],
    ["a PEM key of another form", pemOf("RSA ", `N${"A".repeat(60)}`)],
    ["a PEM key with four dashes", pemOf("", `M${"A".repeat(60)}`).slice(1)],
    ["a PEM key of a small label", pemOf("rsa ", `M${"A".repeat(60)}`)],
    ["a PEM key whose label says it", pemOf("ENCRYPTED ", `M${"A".repeat(60)}`)],
    ["a PEM key with something before it", pemOf("", `x M${"A".repeat(60)}`)],
    ["an age identity that is too short", AGE.slice(0, -1)],
    ["an age identity of another version", AGE.replace("KEY-1", "KEY-2")],
    ["an age identity with a wrong letter", AGE.replace(/.$/, "B")],
    ["a WireGuard key with stray bits", `PrivateKey=${"A".repeat(42)}B=`],
    ["a WireGuard key that is too short", `PrivateKey=${"A".repeat(41)}A=`],
    ["a WireGuard key in two lines", `PrivateKey=\n${"A".repeat(43)}=`],
    ["a Nix key whose halves do not fit", `k:${Buffer.alloc(64, 7).toString("base64")}`],
    ["a Nix key without a name", `:${generateKey("x").secret.slice(2)}`],
    ["a Nix key after something else", generateKey("x").secret.replace(":", ";")],
    ["a certificate's mark", "-----BEGIN CERTIFICATE-----\nMIIB\n"],
    ["a mark among a program's constants", "-----BEGIN RSA PRIVATE KEY-----\n\0-----END\0"],
    ["a mark in a manual", "It starts with -----BEGIN PRIVATE KEY----- and goes on.\n"],
    ["a template", "-----BEGIN PRIVATE KEY-----\nMIIE...\n-----END PRIVATE KEY-----\n"],
    ["age's own constants", 'prefix := "AGE-SECRET-KEY-1"; hrp := "AGE-SECRET-KEY-"'],
    ["a signature", `Sig: fleet-1:${signBytes(signer, Buffer.from("x")).toString("base64")}\n`],
    ["an age file", "age-encryption.org/v1\n-> ssh-ed25519 Xk2v2g\n"],
    ["underlines", `A title\n${"=".repeat(5000)}\n`],
    ["a WireGuard public key", `PublicKey = ${randomBytes(32).toString("base64")}\n`],
  ])("%s", (_what, text) => {
    expect(scan({ file: text })).toEqual([]);
  });
});

test("pieces of any size lead to the same finds", () => {
  const filler = "x".repeat(3000);
  const tree: NarNode = {
    a: pem("pkcs8"),
    b: { deep: { c: `${filler}${generateKey("k-1").secret}${filler}` }, empty: "" },
    link: ["-----BEGIN PRIVATE KEY-----"],
    z: AGE,
  };
  const whole = scan(tree);
  expect(whole.map(({ file }) => file)).toEqual(["a", "b/deep/c", "z"]);
  fc.assert(
    fc.property(fc.integer({ min: 8, max: 9000 }), (size) => {
      expect(scan(tree, size)).toEqual(whole);
    }),
    { numRuns: 50 },
  );
});

test("each kind is found once in a file", () => {
  expect(scan({ two: `${AGE}\n${AGE}\n${pem("sec1")}` })).toHaveLength(2);
});
