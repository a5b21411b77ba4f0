/** What a file or directory is, links followed. */
export interface FileFacts {
  readonly kind: "file" | "directory" | "other";
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly size: number;
  /** Whether this process may read it. */
  readonly readable: boolean;
}

/** The file system that holds a path (proc_pid_mountinfo(5)). */
export interface MountFacts {
  readonly mountPoint: string;
  readonly type: string;
  /** Whether the file system itself is read-only; a bind mount over it may be so by itself. */
  readonly readOnly: boolean;
  /** Whether nothing can be written below this mount point. */
  readonly mountedReadOnly: boolean;
}

/** The mount that holds a path, by the text of `mountinfo`; null if there is none. */
export function mountOf(path: string, mountInfo: string): MountFacts | null {
  let best: MountFacts | null = null;
  for (const line of mountInfo.split("\n")) {
    // 36 35 98:0 /root /point options… optional… - type source super-options
    const [before = "", after = ""] = line.split(" - ");
    const fields = before.split(" ");
    const [type = "", , superOptions = ""] = after.split(" ");
    const mountPoint = unescaped(fields[4] ?? "");
    if (mountPoint === "" || !isBelow(path, mountPoint)) continue;
    // Of two at one place, the later one is on top.
    if (best && mountPoint.length < best.mountPoint.length) continue;
    best = {
      ...{ mountPoint, type },
      readOnly: superOptions.split(",").includes("ro"),
      mountedReadOnly: (fields[5] ?? "").split(",").includes("ro"),
    };
  }
  return best;
}

function isBelow(path: string, mountPoint: string): boolean {
  return mountPoint === "/" || path === mountPoint || path.startsWith(`${mountPoint}/`);
}

/** White space and backslashes are written in octal there. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
