import { bucketMirrorUrl } from "../../core/formats/bucket-address.ts";
import { parseMirrorAddress } from "../../core/formats/mirror-address.ts";
import { access, constants, readFile, stat } from "node:fs/promises";
import { mountOf, type FileFacts } from "../../core/doctor/file-facts.ts";
import { PullError } from "../../core/errors.ts";
import type { Examination } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { ifMissing, readIfExists } from "../files/missing-file.ts";
import { expectPrivate } from "../files/private-directory.ts";
import { walkTo } from "../mirror/route.ts";
import { BucketSigner } from "../mirror/bucket-signer.ts";
import { keySourceOf } from "../mirror/key-source.ts";
import { authorizationOf, credentialPath, type Transport } from "../mirror/transport.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { describeFailure, runProcess } from "../process/subprocess.ts";
import { unsafeIf } from "../state/state-file.ts";
import { clockFacts, unitFacts } from "../systemd/unit-facts.ts";

/** A version is told at once; a stuck machine takes longer. */
const VERSION_TIMEOUT_MS = 30_000;

/** What an examination is made of. */
export interface ExaminationOptions {
  readonly transport: Transport;
  /** Whether systemd manages this host's units. */
  readonly managed: boolean;
}

/** The real one, of this host. */
export function examinationOf(
  { credentials, limits }: Pick<Settings, "credentials" | "limits">,
  { transport, managed }: ExaminationOptions,
): Examination {
  return {
    isRoot: process.geteuid?.() === 0,
    route(address, file, signal) {
      const stepMs = limits.connectTimeout;
      const parsed = parseMirrorAddress(address);
      if (parsed?.kind === "bucket") {
        const signer = new BucketSigner(parsed.bucket, keySourceOf(credentials[address]));
        const identify = (url: URL) => signer.sign({ method: "GET", url });
        const url = new URL(file, bucketMirrorUrl(parsed.bucket));
        return walkTo(url, { transport, identify, stepMs, signal });
      }
      const url = new URL(file, address.endsWith("/") ? address : `${address}/`);
      // A server has its credential by its origin: mirrors do, and so does an inbox of reports.
      const credential =
        credentials[address] ??
        Object.entries(credentials).find(([mirror]) => new URL(mirror).origin === url.origin)?.[1];
      const identify = async (): Promise<Record<string, string>> =>
        credential ? { authorization: await authorizationOf(credential) } : {};
      return walkTo(url, { transport, identify, stepMs, signal });
    },
    async tlsFiles() {
      await transport.tlsOptions();
    },
    credentialFile: credentialPath,
    clock: clockFacts,
    units: (names) => (managed ? unitFacts(names) : Promise.resolve(null)),
    file: fileFacts,
    async expectPrivate(directory) {
      const there = await ifMissing(
        expectPrivate(directory, unsafeIf(directory)).then(() => true),
        false,
      );
      return there;
    },
    async mount(path) {
      return mountOf(path, await readFile("/proc/self/mountinfo", "utf8"));
    },
    async fstab() {
      const text = (await readIfExists("/etc/fstab")) ?? "";
      return text.split("\n").flatMap((line) => {
        const [device = "#", mountPoint] = line.trim().split(/\s+/);
        return device.startsWith("#") || mountPoint === undefined ? [] : [mountPoint];
      });
    },
    nixVersion,
  };
}

async function fileFacts(path: string): Promise<FileFacts | null> {
  const found = await ifMissing(stat(path), null);
  if (found === null) return null;
  const readable = await access(path, constants.R_OK).then(
    () => true,
    () => false,
  );
  const kind = found.isFile() ? "file" : found.isDirectory() ? "directory" : "other";
  const { mode, uid, size } = found;
  return { kind, mode: mode & 0o7777, uid, size, readable };
}

async function nixVersion(): Promise<string> {
  const result = await runProcess("nix", ["--version"], {
    env: childEnvironment(),
    timeoutMs: VERSION_TIMEOUT_MS,
  });
  if (result.exitCode === 0) return result.stdout.trim();
  throw new PullError(result.timedOut ? "TOOL_TIMEOUT" : "IO_FAILED", describeFailure(result));
}
