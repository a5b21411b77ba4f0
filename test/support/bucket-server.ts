import { execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { readFile, readdir } from "node:fs/promises";
import { connect, createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { onTestFinished } from "vitest";
import { parseBucketAddress } from "../../agent/core/formats/bucket-address.ts";
import { sha256Hex } from "../../agent/core/formats/sha256.ts";
import { BucketSigner, type UnsignedRequest } from "../../agent/effects/mirror/bucket-signer.ts";

/**
 * Moto is a server that speaks S3's protocol and, if it is told so, checks each signature and the
 * rights of its key. It is no static file server with an S3 face: whoever signs wrongly is refused.
 */
const MOTO = "moto[server]==5.2.5";
const HOME = join(tmpdir(), `nixos-pull-tests-moto-5.2.5-${process.getuid?.() ?? 0}`);
const PROGRAM = join(HOME, "bin/moto_server");
const INSTALL_MS = 5 * 60_000;
const START_MS = 60_000;

function install(): boolean {
  if (existsSync(PROGRAM)) return true;
  // Under a name of our own: several test files may install it at once.
  const making = `${HOME}.${process.pid}`;
  try {
    mkdirSync(making, { mode: 0o700 });
    const options = { stdio: "ignore", timeout: INSTALL_MS } as const;
    execFileSync("python3", ["-m", "venv", making], options);
    execFileSync(join(making, "bin/pip"), ["install", "--quiet", MOTO], options);
    renameSync(making, HOME);
  } catch {
    rmSync(making, { recursive: true, force: true });
  }
  return existsSync(PROGRAM);
}

/** Whether there is a server for buckets; it is installed once on a machine. */
export const hasBucketServer =
  spawnSync("python3", ["-c", "import venv, ensurepip"]).status === 0 && install();

// Loudly: nothing is read from a bucket then.
if (!hasBucketServer) {
  console.warn(`SKIPPED: ${MOTO} could not be installed by pip; buckets are not tested`);
}

/** A server with one bucket, `mirror`, and keys that may do everything there. */
export interface BucketServer {
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** The keys as a shared credentials file has them. */
  readonly profile: string;
  /** `s3://mirror/PREFIX` of this server, as addresses of mirrors are written. */
  address(prefix?: string, endpoint?: string): string;
  /** A signed request for a path that begins with the bucket's name; gives status, headers, text. */
  ask(
    method: UnsignedRequest["method"],
    path: string,
    body?: Uint8Array,
  ): Promise<{ status: number; headers: Record<string, unknown>; text: string }>;
  /** Uploads every file below a directory that is not hidden. */
  fill(directory: string, prefix?: string): Promise<void>;
}

/** Starts one; it ends with the test. Signatures and rights are checked from its first bucket on. */
export async function startBucketServer(): Promise<BucketServer> {
  const port = await freePort();
  // The three requests that make a user with a key come before anybody has a key.
  const moto = spawn(
    "setpriv",
    // The scripts of an environment that was renamed name the old place.
    ["--pdeathsig", "TERM", join(HOME, "bin/python3"), "-m", "moto.server", "-p", `${port}`],
    { env: { ...process.env, INITIAL_NO_AUTH_ACTION_COUNT: "3" }, stdio: "ignore" },
  );
  onTestFinished(() => {
    moto.kill("SIGKILL");
  });
  const endpoint = `http://127.0.0.1:${port}`;
  const deadline = Date.now() + START_MS;
  while (!(await answers(endpoint))) {
    if (moto.exitCode !== null || Date.now() > deadline) throw new Error("moto did not start");
    await sleep(100);
  }
  const policy = JSON.stringify({
    Version: "2012-10-17",
    Statement: [{ Effect: "Allow", Action: "s3:*", Resource: "*" }],
  });
  await iam(endpoint, { Action: "CreateUser", UserName: "mirror" });
  await iam(endpoint, {
    ...{ Action: "PutUserPolicy", UserName: "mirror", PolicyName: "all", PolicyDocument: policy },
  });
  const key = await iam(endpoint, { Action: "CreateAccessKey", UserName: "mirror" });
  const accessKeyId = textOf(key, "AccessKeyId");
  const secretAccessKey = textOf(key, "SecretAccessKey");
  const root = parseBucketAddress(new URL(`s3://mirror?endpoint=${endpoint}`));
  if (!root) throw new Error("no address");
  const signer = new BucketSigner(root, () => Promise.resolve({ accessKeyId, secretAccessKey }));
  const ask: BucketServer["ask"] = async (method, path, body) => {
    const url = new URL(path, endpoint);
    const headers = await signer.sign({ method, url, bodySha256: sha256Hex(body ?? "") });
    const answer = await request(url, { method, headers, ...(body && { body }) });
    const text = await answer.body.text();
    return { status: answer.statusCode, headers: answer.headers, text };
  };
  const made = await ask("PUT", "/mirror/");
  if (made.status !== 200) throw new Error(`moto: ${made.status} ${made.text}`);
  return {
    ...{ endpoint, accessKeyId, secretAccessKey, ask },
    async fill(directory, prefix = "") {
      const entries = await readdir(directory, { recursive: true, withFileTypes: true });
      for (const entry of entries) {
        const file = join(entry.parentPath, entry.name);
        const name = relative(directory, file);
        if (!entry.isFile() || name.startsWith(".")) continue;
        const path = `/mirror/${prefix === "" ? "" : `${prefix}/`}${name}`;
        const { status, text } = await ask("PUT", path, await readFile(file));
        if (status !== 200) throw new Error(`moto: ${path}: ${status} ${text}`);
      }
    },
    profile: `[default]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n`,
    address: (prefix = "", by = endpoint) =>
      `s3://mirror${prefix === "" ? "" : `/${prefix}`}?endpoint=${by}&region=us-east-1`,
  };
}

async function iam(endpoint: string, parameters: Record<string, string>): Promise<string> {
  const { statusCode, body } = await request(endpoint, {
    method: "POST",
    headers: {
      "content-type": "application/x-www-form-urlencoded",
      // It tells moto the service; nobody has a key yet.
      authorization:
        "AWS4-HMAC-SHA256 Credential=nobody/20260101/us-east-1/iam/aws4_request, " +
        "SignedHeaders=host, Signature=0",
    },
    body: new URLSearchParams({ ...parameters, Version: "2010-05-08" }).toString(),
  });
  const text = await body.text();
  if (statusCode !== 200) throw new Error(`moto: ${statusCode} ${text}`);
  return text;
}

function textOf(xml: string, element: string): string {
  return new RegExp(`<${element}>([^<]+)</${element}>`).exec(xml)?.[1] ?? "";
}

function answers(endpoint: string): Promise<boolean> {
  const { hostname, port } = new URL(endpoint);
  return new Promise((resolve) => {
    const socket = connect(Number(port), hostname);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => {
      resolve(false);
    });
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
