import type { FreeSpace } from "../ports.ts";
import { formatBytes } from "../text/quantity.ts";
import { adviceFor } from "./advice.ts";
import type { FileFacts, MountFacts } from "./file-facts.ts";
import { about, type CheckResult, type Verdicts } from "./result.ts";

/** Whether other users may read a file with a secret. */
export function judgeSecret(path: string, facts: FileFacts | null, isRoot: boolean): CheckResult {
  const it = about("files.credential", path);
  if (facts === null) {
    return it.failed(
      "it is not there",
      adviceFor("CREDENTIAL_UNREADABLE"),
      "CREDENTIAL_UNREADABLE",
    );
  }
  const mode = facts.mode.toString(8).padStart(4, "0");
  if (facts.kind !== "file") return it.failed("it is no file", "put the secret into a file");
  if ((facts.mode & 0o077) !== 0) {
    return it.failed(
      `mode ${mode}: others than its owner may have it`,
      `chmod 600 ${path}, and renew the secret if others are on this host`,
    );
  }
  if (!facts.readable) {
    return isRoot
      ? it.failed("it cannot be read", adviceFor("PERMISSION_DENIED"), "CREDENTIAL_UNREADABLE")
      : it.untried("only its owner can read it", "run it as root");
  }
  if (facts.size === 0) return it.failed("it is empty", "put the secret into it");
  return it.passed(`mode ${mode} of user ${facts.uid}`);
}

/** Free inodes that any update needs. */
const MIN_INODES = 1_000;

/** What there is to know about a place that an update writes to. */
export interface DiskFacts {
  readonly what: string;
  readonly path: string;
  readonly mount: MountFacts | null;
  readonly space: FreeSpace;
}

/** Whether the file systems that an update writes to can take it; each is judged once. */
export function judgeDisks(
  disks: readonly DiskFacts[],
  { reserveBytes }: { readonly reserveBytes: number },
): CheckResult[] {
  const seen = new Map<string, DiskFacts[]>();
  for (const disk of disks) {
    seen.set(disk.space.fileSystem, [...(seen.get(disk.space.fileSystem) ?? []), disk]);
  }
  return [
    ...disks.map(judgeWritable),
    ...[...seen.values()].flatMap((some) => judgeSpace(some, reserveBytes)),
  ];
}

function judgeWritable({ what, path, mount }: DiskFacts): CheckResult {
  const it = about("disk.writable", path);
  if (mount === null) return it.untried("it is not known what is mounted there");
  const { mountPoint, type, readOnly, mountedReadOnly } = mount;
  const where = `${type}, mounted at ${mountPoint}`;
  // NixOS mounts the store read-only over itself, and Nix writes to it all the same.
  if (readOnly || (mountedReadOnly && what !== "store")) {
    return it.failed(
      `read-only: ${where}`,
      "look for errors of the disk (`journalctl -k -p err`); after them a file system is set read-only",
      "PERMISSION_DENIED",
    );
  }
  return it.passed(where);
}

function judgeSpace(disks: readonly DiskFacts[], reserveBytes: number): CheckResult[] {
  const [first] = disks;
  if (!first) return [];
  const { free, total, inodes } = first.space;
  const subject = disks.map(({ path }) => path).join(", ");
  const space = about("disk.space", subject);
  const found = `${formatBytes(free)} free${total === undefined ? "" : ` of ${formatBytes(total)}`}`;
  const results = [
    free >= reserveBytes
      ? space.passed(found)
      : space.failed(
          `${found}, expected ${formatBytes(reserveBytes)} (limits.reserveBytes)`,
          adviceFor("DISK_FULL"),
          "DISK_FULL",
        ),
  ];
  if (inodes) results.push(judgeInodes(about("disk.inodes", subject), inodes));
  return results;
}

function judgeInodes(it: Verdicts, { free, total }: NonNullable<FreeSpace["inodes"]>): CheckResult {
  const found = `${free} free of ${total}`;
  if (free >= MIN_INODES) return it.passed(found);
  return it.failed(`${found}, expected ${MIN_INODES}`, adviceFor("DISK_FULL"), "DISK_FULL");
}
