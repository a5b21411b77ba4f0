import { copyFile, cp, lstat, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { sealEnvelope } from "../../agent/core/formats/envelope.ts";
import { readManifest, type Manifest } from "../../agent/core/formats/manifest.ts";
import {
  generateKey,
  parseSecretKey,
  type SecretKey,
} from "../../agent/core/formats/signing-key.ts";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { testEnvironment } from "./nixos-pull.ts";
import { createHost, type SandboxHost } from "./sandbox.ts";
import { buildScriptedSystem } from "./scripted-system.ts";
import { temporaryDirectory } from "./temporary.ts";

const BUNDLE = fileURLToPath(new URL("../../dist/nixos-pull.cjs", import.meta.url));

/** Bytes of release 2's payload: enough to stop in the middle of. */
export const PAYLOAD_BYTES = 3_000_000;

export type Sequence = 1 | 2 | 3;

/** A mirror directory of one test. */
export interface TestMirror {
  readonly directory: string;
  /** The directory as a `file://` address. */
  readonly address: string;
  readonly manifestFile: string;
  /** Path of a release's archive. */
  archiveFile(sequence: Sequence): string;
  /** Makes a published release the newest, whole and by rename, whatever was there. */
  release(sequence: Sequence): Promise<void>;
  /** Puts any text in the manifest's place, by rename. */
  writeManifest(text: string | Uint8Array): Promise<void>;
}

/** Three releases for host web1, published once, and hosts that run the first of them. */
export interface ReleaseSeries {
  readonly publicKey: string;
  readonly secretKey: SecretKey;
  readonly keyFile: string;
  /** Release 2 has a payload of PAYLOAD_BYTES; no two releases share a store path. */
  readonly toplevels: Readonly<Record<Sequence, string>>;
  readonly manifests: Readonly<Record<Sequence, Manifest>>;
  /** A mirror of this test's own, with every archive. */
  mirror(sequence: Sequence): Promise<TestMirror>;
  /** A host that runs release 1 and now follows `mirrors`. */
  host(settings: Record<string, unknown> & { mirrors: string[] }): Promise<SandboxHost>;
}

/** Runs the bundle outside of any test, for set-up. */
async function setUpWith(...args: string[]): Promise<string> {
  const result = await runProcess(process.execPath, [BUNDLE, ...args], {
    env: testEnvironment(),
    timeoutMs: 60_000,
  });
  if (result.exitCode !== 0) throw new Error(result.stderr);
  return result.stdout;
}

/** Publishes the releases and installs the first; `directory` is the file's own. */
export async function publishReleases(directory: string): Promise<ReleaseSeries> {
  const pair = generateKey("series-1");
  const keyFile = join(directory, "key.secret");
  await writeFile(keyFile, pair.secret, { mode: 0o600 });
  const secretKey = parseSecretKey(pair.secret);
  const trust = { publicKeys: [secretKey.publicKey], threshold: 1 };
  const [first, second, third] = await Promise.all([
    buildScriptedSystem("1"),
    buildScriptedSystem("2", { payloadBytes: PAYLOAD_BYTES }),
    buildScriptedSystem("3"),
  ]);
  const toplevels = { 1: first, 2: second, 3: third };

  const published = join(directory, "published");
  const manifestFile = join(published, "channels/stable/manifest.json");
  const saved = (sequence: Sequence): string => join(directory, `manifest-${sequence}.json`);
  const manifests: Partial<Record<Sequence, Manifest>> = {};
  for (const sequence of [1, 2, 3] as const) {
    const host = `web1=${toplevels[sequence]}`;
    await setUpWith("publish", "--mirror", published, "--key", keyFile, "--host", host);
    await copyFile(manifestFile, saved(sequence));
    manifests[sequence] = readManifest(await readFile(manifestFile), trust).manifest;
  }
  const signed = manifests as Record<Sequence, Manifest>;

  const template = join(directory, "template");
  await mkdir(join(template, "nix"), { recursive: true });
  await copyFile(saved(1), manifestFile);
  const configFile = join(directory, "template.json");
  await writeFile(
    configFile,
    JSON.stringify({
      hostname: "web1",
      store: `local?root=${template}`,
      mirrors: [pathToFileURL(published).href],
      publicKeys: [pair.public],
      limits: { reserveBytes: 0 },
      paths: {
        state: join(template, "state"),
        profile: join(template, "nix/var/nix/profiles/system"),
        gcRoots: join(template, "nix/var/nix/gcroots/nixos-pull"),
        currentSystem: join(template, "run/current-system"),
      },
    }),
  );
  await setUpWith("apply", "--config", configFile);

  return {
    publicKey: pair.public,
    secretKey,
    keyFile,
    toplevels,
    manifests: signed,
    async mirror(sequence) {
      const mirror = join(await temporaryDirectory(), "mirror");
      await cp(published, mirror, { recursive: true });
      const manifest = join(mirror, "channels/stable/manifest.json");
      const writeManifest = async (text: string | Uint8Array): Promise<void> => {
        await writeFile(`${manifest}.new`, text);
        // A rename does not replace a directory.
        if (await isDirectory(manifest)) await rm(manifest, { recursive: true });
        await rename(`${manifest}.new`, manifest);
      };
      const archiveFile = (wanted: Sequence): string =>
        join(mirror, "archives", archiveName(signed[wanted]));
      const release = async (wanted: Sequence): Promise<void> => {
        const archive = join(published, "archives", archiveName(signed[wanted]));
        // What an attack put there may be a link, a directory or a FIFO.
        await rm(archiveFile(wanted), { recursive: true, force: true });
        await rm(archiveFile(wanted), { recursive: true, force: true });
        await copyFile(archive, archiveFile(wanted));
        await writeManifest(await readFile(saved(wanted)));
      };
      await release(sequence);
      return {
        directory: mirror,
        address: pathToFileURL(mirror).href,
        manifestFile: manifest,
        archiveFile,
        release,
        writeManifest,
      };
    },
    async host(settings) {
      const host = await createHost({ publicKeys: [pair.public], ...settings });
      await copyTree(template, host.root);
      return host;
    },
  };
}

async function isDirectory(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => null))?.isDirectory() ?? false;
}

function archiveName(manifest: Manifest): string {
  return `${manifest.hosts["web1"]?.archive.sha256}.tar`;
}

async function copyTree(from: string, to: string): Promise<void> {
  const result = await runProcess("cp", ["-a", `${from}/.`, to], {
    env: testEnvironment(),
    timeoutMs: 60_000,
  });
  if (result.exitCode !== 0) throw new Error(result.stderr);
}

/** A manifest as it would be signed, for the changes that a publisher would not make. */
export function sealManifest(manifest: unknown, ...keys: SecretKey[]): string {
  return sealEnvelope(Buffer.from(JSON.stringify(manifest)), keys);
}
