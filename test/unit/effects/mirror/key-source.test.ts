import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { keySourceOf } from "../../../../agent/effects/mirror/key-source.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const PROFILES =
  "[default]\naws_access_key_id = AKID1\naws_secret_access_key = one\n" +
  "[fleet]\naws_access_key_id = AKID2\naws_secret_access_key = two\n";

const [FIRST, SECOND] = [
  { accessKeyId: "AKID1", secretAccessKey: "one" },
  { accessKeyId: "AKID2", secretAccessKey: "two" },
];

/** A home directory, and nothing of AWS in the environment. */
let home: string;

beforeEach(async () => {
  home = await temporaryDirectory();
  for (const name of Object.keys(process.env)) {
    if (name.startsWith("AWS_")) vi.stubEnv(name, undefined);
  }
  vi.stubEnv("HOME", home);
  onTestFinished(() => {
    vi.unstubAllEnvs();
  });
});

async function profilesAt(path: string): Promise<string> {
  await writeFile(path, PROFILES);
  return path;
}

describe("the keys of a bucket", () => {
  test("are those of its file, which is read each time", async () => {
    const file = await profilesAt(join(home, "keys"));
    vi.stubEnv("AWS_ACCESS_KEY_ID", "AKIDX");
    const keys = keySourceOf({ type: "s3", file, profile: "fleet" });
    expect(await keys()).toEqual(SECOND);
    await writeFile(file, PROFILES.replace("two", "three"));
    expect(await keys()).toEqual({ ...SECOND, secretAccessKey: "three" });
  });

  test("are those of a systemd credential", async () => {
    await profilesAt(join(home, "bucket-keys"));
    vi.stubEnv("CREDENTIALS_DIRECTORY", home);
    expect(await keySourceOf({ type: "s3", credential: "bucket-keys" })()).toEqual(FIRST);
  });

  test("are those of the environment, before those of the shared file", async () => {
    await mkdir(join(home, ".aws"));
    await profilesAt(join(home, ".aws/credentials"));
    const keys = keySourceOf(undefined);
    expect(await keys()).toEqual(FIRST);
    vi.stubEnv("AWS_PROFILE", "fleet");
    expect(await keys()).toEqual(SECOND);
    vi.stubEnv("AWS_ACCESS_KEY_ID", "AKID3");
    vi.stubEnv("AWS_SECRET_ACCESS_KEY", "three");
    vi.stubEnv("AWS_SESSION_TOKEN", "");
    expect(await keys()).toEqual({ accessKeyId: "AKID3", secretAccessKey: "three" });
  });

  test("are those of the shared file that the environment names", async () => {
    vi.stubEnv("AWS_SHARED_CREDENTIALS_FILE", await profilesAt(join(home, "elsewhere")));
    expect(await keySourceOf(undefined)()).toEqual(FIRST);
  });

  test("are none if nobody gave any, and no service is asked", async () => {
    vi.stubEnv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ftp://would-be-an-error");
    expect(await keySourceOf(undefined)()).toBeNull();
  });

  test("are the machine's, as a last resort, if they must be", async () => {
    vi.stubEnv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ftp://would-be-an-error");
    const error = await rejectionOf(keySourceOf(undefined, { instance: true })());
    expect(error.message).toContain("AWS_EC2_METADATA_SERVICE_ENDPOINT: expected an http://");
    vi.stubEnv("AWS_EC2_METADATA_DISABLED", "true");
    expect(await keySourceOf(undefined, { instance: true })()).toBeNull();
  });

  test.each([
    ["AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/keys"],
    ["AWS_PROFILE", "fleet"],
    ["AWS_ACCESS_KEY_ID", "AKID"],
  ])("are asked for in vain: %s=%s", async (name, value) => {
    vi.stubEnv(name, value);
    const error = await rejectionOf(keySourceOf(undefined)());
    expect(error.code).toBe("CREDENTIAL_UNREADABLE");
  });
});
