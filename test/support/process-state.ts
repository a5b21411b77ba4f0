import { readFile } from "node:fs/promises";

/** Whether a process is there, and not only as a zombie that nobody has waited for. */
export async function isAlive(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return stat !== "" && !stat.includes(") Z ");
}
