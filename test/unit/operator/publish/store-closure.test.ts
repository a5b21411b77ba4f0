import { expect, test } from "vitest";
import { parsePathInfos } from "../../../../agent/operator/publish/store-closure.ts";
import { encodeBase32 } from "../../../../agent/core/formats/store-path.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { samplePath } from "../../../support/sample-release.ts";

const [A, B] = [samplePath("a"), samplePath("b")];
const BYTES = Buffer.alloc(32, 7);
const SRI = `sha256-${BYTES.toString("base64")}`;
const HASH = `sha256:${encodeBase32(BYTES)}`;
const name = (path: string): string => path.slice("/nix/store/".length);

const EXPECTED = new Map([
  [
    name(A),
    { storePath: name(A), narHash: HASH, narSize: 5, references: [name(A), name(B)].sort() },
  ],
]);

test("the list of Nix 2.8, with SRI hashes, is understood", () => {
  const path = { path: A, narHash: SRI, narSize: 5, references: [B, A], ultimate: true };
  expect(parsePathInfos(JSON.stringify([path]))).toEqual(EXPECTED);
});

test("the map of later versions, with what they add, is understood", () => {
  const info = { narHash: HASH, narSize: 5, references: [B, A], ca: null, signatures: [] };
  expect(parsePathInfos(JSON.stringify({ [A]: info }))).toEqual(EXPECTED);
});

test("a content address is kept", () => {
  const ca = `text:sha256:${"0".repeat(52)}`;
  const path = { path: A, narHash: SRI, narSize: 5, references: [], ca };
  expect(parsePathInfos(JSON.stringify([path])).get(name(A))?.ca).toBe(ca);
});

test.each([
  ["no JSON", "copying…"],
  ["nothing", "[]"],
  ["something else", '{"a":1}'],
  ["a path outside of the store", JSON.stringify([{ path: "/etc", narHash: SRI, narSize: 5 }])],
  [
    "another hash",
    JSON.stringify([{ path: A, narHash: "md5-AA==", narSize: 5, references: [], ca: null }]),
  ],
  [
    "an unknown content address",
    JSON.stringify([{ path: A, narHash: SRI, narSize: 5, references: [], ca: "what?" }]),
  ],
])("%s is refused", async (_, text) => {
  const failure = await rejectionOf(Promise.resolve().then(() => parsePathInfos(text)));
  expect(failure.code).toBe("PUBLISH_FAILED");
});
