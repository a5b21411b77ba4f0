import { open, readdir, readFile, realpath } from "node:fs/promises";
import { join } from "node:path";
import type { NixStore, SystemContents } from "../../core/ports.ts";
import { parseInhibitors } from "../../core/update/inhibitors.ts";
import {
  ELF_HEADER_BYTES,
  platformOfProgram,
  platformSchema,
} from "../../core/formats/platform.ts";
import { systemNameOf } from "../../core/formats/system-name.ts";
import { AGENT_UNIT } from "./service-manager.ts";
import { storePathSchema } from "../../core/formats/store-path.ts";
import { ifMissing, readIfExists, readLinkIfExists } from "../files/missing-file.ts";

/** Below a toplevel. */
const UNITS = "etc/systemd/system";

/**
 * The name by which the agent of a system looks itself up in a release, or null. `root` is the
 * real directory of the toplevel.
 */
export async function systemNameIn(root: string): Promise<string | null> {
  const [hostname, config] = await Promise.all([
    readIfExists(join(root, "etc/hostname")),
    readIfExists(join(root, "etc/nixos-pull/config.json")),
  ]);
  return systemNameOf({ hostname, config });
}

/** The toplevels of a system's specialisations, by name. `root` is its real directory. */
export async function specialisationsIn(root: string): Promise<ReadonlyMap<string, string>> {
  const directory = join(root, "specialisation");
  const found = new Map<string, string>();
  for (const name of await ifMissing(readdir(directory), [])) {
    const target = await readLinkIfExists(join(directory, name));
    if (target !== null && storePathSchema.safeParse(target).success) found.set(name, target);
  }
  return found;
}

/** Longest file with a platform's name. */
const MAX_PLATFORM_BYTES = 100;

/**
 * What a system's programs run on: NixOS writes it into the system's file `system`; else by the
 * ELF header of its switch program. Null if neither tells. `root` is its real directory.
 */
export async function platformIn(root: string): Promise<string | null> {
  const written = await startOf(join(root, "system"), MAX_PLATFORM_BYTES);
  const named = platformSchema.safeParse(written?.toString("utf8").trim());
  if (named.success) return named.data;
  const program = await startOf(join(root, "bin/switch-to-configuration"), ELF_HEADER_BYTES);
  return program && platformOfProgram(program);
}

/** The first bytes of a file, where links lead to other store paths; null if there is none. */
async function startOf(path: string, bytes: number): Promise<Buffer | null> {
  const file = await ifMissing(open(path), null);
  if (file === null) return null;
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** Whether a system has the agent's service. */
export async function hasAgentIn(root: string): Promise<boolean> {
  return (await textOf(join(root, UNITS, AGENT_UNIT))) !== null;
}

/** Reads what stands in systems of this store. */
export function systemContentsOf(store: Pick<NixStore, "realPath">): SystemContents {
  return {
    async inhibitors(toplevel) {
      const text = await readIfExists(join(store.realPath(toplevel), "switch-inhibitors"));
      return text === null ? null : parseInhibitors(text);
    },

    specialisations: (toplevel) => specialisationsIn(store.realPath(toplevel)),

    name: (toplevel) => systemNameIn(store.realPath(toplevel)),

    async unitDefinition(toplevel, unit) {
      const units = join(store.realPath(toplevel), UNITS);
      const [own, template] = [join(units, unit), join(units, templateOf(unit))];
      const path = (await textOf(own)) === null ? template : own;
      const text = await textOf(path);
      if (text === null) return null;
      const dropIns = await Promise.all([...new Set([path, own])].map(dropInsOf));
      return [text, ...dropIns.flat()].join("\n");
    },
  };
}

/** `worker@.service` for `worker@3.service`; the unit itself if it is no instance. */
function templateOf(unit: string): string {
  return unit.replace(/@[^.]*\./, "@.");
}

/** A unit's text; null if it is not there or masked. Links lead to other store paths. */
async function textOf(path: string): Promise<string | null> {
  const target = await ifMissing(realpath(path), null);
  return target === null || target === "/dev/null" ? null : readFile(target, "utf8");
}

async function dropInsOf(path: string): Promise<string[]> {
  const names = await ifMissing(readdir(`${path}.d`), []);
  const texts = await Promise.all(names.sort().map((name) => textOf(join(`${path}.d`, name))));
  return texts.filter((text) => text !== null);
}
