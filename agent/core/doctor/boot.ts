import type { BootLoaderFacts } from "../ports.ts";
import { formatBytes } from "../text/quantity.ts";
import type { FileFacts, MountFacts } from "./file-facts.ts";
import { about, type CheckResult } from "./result.ts";

/** What there is to know about where a host boots from. */
export interface BootFacts {
  readonly loader: BootLoaderFacts;
  /** Where the boot loader keeps kernels; null if it does not tell. */
  readonly directory: string | null;
  /** Null if there is no such directory. */
  readonly file: FileFacts | null;
  readonly mount: MountFacts | null;
  /** Mount points in the table of file systems (fstab(5)). */
  readonly fstab: readonly string[];
  readonly free: number;
  /** Bytes of the running system's kernel and initrd; null if it has none. */
  readonly kernelBytes: number | null;
}

/** What a host boots from. */
export function judgeBoot(facts: BootFacts): CheckResult[] {
  const { loader, directory } = facts;
  const { name, cannotTry } = loader;
  const tries =
    cannotTry === null ? "it can try a system by one boot" : `no trial boots: ${cannotTry}`;
  const loaded = about("boot.loader").passed(`${name ?? "not known"}; ${tries}`);
  if (directory === null) {
    const why = "the boot loader does not tell where it keeps kernels";
    return [loaded, about("boot.directory").untried(why, "set paths.boot")];
  }
  const place = judgeDirectory(directory, facts);
  const isThere = place.outcome === "passed" && facts.file !== null;
  return [loaded, place, ...(isThere ? [judgeRoom(directory, facts)] : [])];
}

function judgeDirectory(
  directory: string,
  { loader, file, mount, fstab, kernelBytes }: BootFacts,
): CheckResult {
  const it = about("boot.directory", directory);
  if (file === null && kernelBytes === null) {
    return it.passed("there is none, and the running system has no kernel of its own: a container");
  }
  if (file?.kind !== "directory") {
    return it.failed("it is not there", `mount it: \`systemctl start ${mountUnit(directory)}\``);
  }
  const isMounted = mount?.mountPoint === directory;
  // The firmware reads nothing but its own partition.
  const needsMount = fstab.includes(directory) || loader.name === "systemd-boot";
  if (needsMount && !isMounted) {
    return it.failed(
      "it is not mounted: kernels would be copied beside the boot loader's partition",
      `mount it: \`systemctl start ${mountUnit(directory)}\``,
    );
  }
  const what = `${mount?.type ?? "unknown file system"}, mounted at ${mount?.mountPoint ?? "?"}`;
  if (mount?.readOnly || mount?.mountedReadOnly) {
    return it.failed(
      `read-only: ${what}`,
      "look for errors of the disk (`journalctl -k -p err`), and check its file system (`fsck.vfat`)",
      "PERMISSION_DENIED",
    );
  }
  return it.passed(what);
}

/** Name of the unit that mounts a directory (systemd.unit(5), string escaping), for usual names. */
function mountUnit(directory: string): string {
  return `${directory.slice(1).replaceAll("-", "\\x2d").replaceAll("/", "-")}.mount`;
}

function judgeRoom(directory: string, { free, kernelBytes }: BootFacts): CheckResult {
  const it = about("boot.space", directory);
  const found = `${formatBytes(free)} free`;
  if (kernelBytes === null)
    return it.passed(`${found}; the running system has no kernel of its own`);
  const needs = `the running kernel and initrd have ${formatBytes(kernelBytes)}`;
  if (free >= kernelBytes) return it.passed(`${found}; ${needs}`);
  return it.failed(
    `${found}, and ${needs}`,
    "delete old generations and have the boot loader's entries written again " +
      "(`/run/current-system/bin/switch-to-configuration boot`)",
    "DISK_FULL",
  );
}
