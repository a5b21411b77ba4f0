import { expect, test } from "vitest";
import { expectSha256 } from "../../../../agent/core/transfer/expected-hash.ts";
import { failureOf } from "../../../support/failure.ts";

const ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

test("bytes with another hash are ARCHIVE_CORRUPT, with what was expected and found", () => {
  expectSha256(Buffer.from("abc"), ABC, "the text");
  const { code, message } = failureOf(() => {
    expectSha256(Buffer.from("abc"), "0".repeat(64), "the text");
  });
  expect(code).toBe("ARCHIVE_CORRUPT");
  expect(message).toBe(`the text: expected sha256 ${"0".repeat(64)}, found ${ABC}`);
});
