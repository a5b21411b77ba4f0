import { describe, expect, test } from "vitest";
import { keysFrom, parseProfile } from "../../../../agent/core/formats/bucket-keys.ts";
import { failureOf } from "../../../support/failure.ts";

const FILE = `# of the fleet
aws_access_key_id = AKIDFIRST
[default]
aws_access_key_id=AKIDDEFAULT
AWS_SECRET_ACCESS_KEY = abc/+=
[ mirror ] ; reads only
aws_access_key_id = AKIDMIRROR
aws_secret_access_key = s3cr3t\r
region = eu-west-1
aws_session_token = tok=en
[half]
aws_access_key_id = AKIDHALF
`;

describe("a shared credentials file", () => {
  test("has keys by profile", () => {
    expect(parseProfile(FILE, "/keys", "default")).toEqual({
      accessKeyId: "AKIDDEFAULT",
      secretAccessKey: "abc/+=",
    });
    expect(parseProfile(FILE, "/keys", "mirror")).toEqual({
      accessKeyId: "AKIDMIRROR",
      secretAccessKey: "s3cr3t",
      sessionToken: "tok=en",
    });
  });

  test("may have no profile at all", () => {
    const text = "aws_access_key_id = a\naws_secret_access_key = b\n";
    expect(parseProfile(text, "/keys", "default")).toEqual({
      accessKeyId: "a",
      secretAccessKey: "b",
    });
  });

  test.each([
    ["no such profile", "other", "/keys: expected a profile other with"],
    ["half a key", "half", "/keys, profile half: expected an access key and its secret"],
  ])("with %s is refused, and nothing of it is repeated", (_, profile, message) => {
    const error = failureOf(() => parseProfile(FILE, "/keys", profile));
    expect(error.code).toBe("CREDENTIAL_UNREADABLE");
    expect(error.message).toContain(message);
    expect(error.message).not.toMatch(/AKID|s3cr3t|abc/);
  });

  test.each([["with space"], ["line\nbreak"], ["ümlaut"], [""], [7], ["x".repeat(8193)]])(
    "has no secret %j",
    (secretAccessKey) => {
      const error = failureOf(() => keysFrom({ accessKeyId: "AKID", secretAccessKey }, "here"));
      expect(error.message).toBe(
        "here: expected an access key and its secret, in printable characters without spaces",
      );
    },
  );
});
