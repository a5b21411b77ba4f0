// Builds a 0.2.0 that is to be: this version's sources with one more key in the manifest, in every
// file that a host or an operator owns and in reports, and one more state of the machine. What
// has to be there to be replaced is looked for: an overlay that no longer fits is an error.
import { readFile } from "node:fs/promises";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { buildAgent } from "../../../scripts/build.mjs";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

/** `value` with the key `later` in every object, at every depth, but for maps of names. */
const WITH_LATER = `
const NAMES = ["hosts", "manifests.json"];
function withLater(value: any, key = ""): any {
  if (Array.isArray(value)) return value.map((it) => withLater(it));
  if (typeof value !== "object" || value === null) return value;
  const parts = Object.entries(value).map(([name, part]) => [name, withLater(part, name)]);
  return { ...Object.fromEntries(parts), ...(!NAMES.includes(key) && { later: { by: "0.2.0" } }) };
}
`;

/** By file: each text, and what stands in its place. */
const OVERLAY = {
  // One more state, between the switch and the health gate.
  "agent/core/update/states.ts": [
    [
      "  /** The system is proven, or only a boot",
      `  z.strictObject({ name: z.literal("Soaking"), ...withBaseline, readAs: z.unknown() }),
  /** The system is proven, or only a boot`,
    ],
    ['    case "Verifying":\n', '    case "Soaking":\n    case "Verifying":\n'],
  ],
  "agent/core/update/transitions.ts": [
    [
      '        ...{ name: "Verifying", ...prepared(state), afterBoot: false },\n' +
        "        ...(failedJobs && { failedJobs: [...failedJobs] }),\n",
      `        ...{ name: "Soaking", ...prepared(state) },
        readAs: {
          ...{ name: "Verifying", ...prepared(state), afterBoot: false },
          ...(failedJobs && { failedJobs: [...failedJobs] }),
        },
`,
    ],
    [
      "  Verifying: {\n    HealthConfirmed",
      `  Soaking: {
    SoakEnded: (state: any, _: any, record: any) => to(record, state.readAs),
    ActivationRejected: reject,
    ActivationInterrupted: interrupt,
    AgentRestarted: countRestart,
  } as any,
  Verifying: {
    HealthConfirmed`,
    ],
  ],
  "agent/host/update/steps/steps.ts": [
    [
      "  Verifying: verify,\n",
      '  Soaking: async () => ({ event: { type: "SoakEnded" } }),\n  Verifying: verify,\n',
    ],
  ],
  "agent/host/update/run.ts": [
    ['    case "Verifying":\n', '    case "Soaking":\n    case "Verifying":\n'],
  ],
  "agent/cli/display/headline.ts": [
    ['    case "Verifying":\n', '    case "Soaking":\n    case "Verifying":\n'],
  ],
  "agent/host/pass-deadline.ts": [
    ['name === "Activating" ||', 'name === "Activating" || name === "Soaking" ||'],
  ],
  // One more key in every file, at every depth.
  "agent/effects/files/checked-file.ts": [
    [
      "export async function writeChecked(path: string, value: unknown): Promise<void> {\n",
      `${WITH_LATER}
export async function writeChecked(path: string, known: unknown): Promise<void> {
  const value = withLater(known, path.slice(path.lastIndexOf("/") + 1));
`,
    ],
  ],
  "agent/effects/state/history.ts": [
    ["${JSON.stringify(entry)}", '${JSON.stringify({ ...entry, later: { by: "0.2.0" } })}'],
  ],
  "agent/operator/channel/signer-memory-file.ts": [
    [
      "JSON.stringify(memory, null, 2)",
      'JSON.stringify({ ...memory, later: { by: "0.2.0" } }, null, 2)',
    ],
  ],
  "agent/host/report/host-report.ts": [
    ["    formatVersion: 1,\n", '    formatVersion: 1,\n    later: { by: "0.2.0" },\n'],
  ],
  "agent/core/formats/report.ts": [
    [
      "  hostname: hostnameSchema,\n",
      "  hostname: hostnameSchema,\n  later: z.unknown().optional(),\n",
    ],
  ],
  "agent/core/formats/thin-archive.ts": [
    [
      "return Buffer.from(`${JSON.stringify(header)}\\n`)",
      'return Buffer.from(`${JSON.stringify({ ...header, later: { by: "0.2.0" } })}\\n`)',
    ],
  ],
  // One more key of the manifest: of the release, and of each host.
  "agent/core/formats/manifest.ts": [
    [
      "  hosts: z\n    .record(hostnameSchema, hostSchema)",
      "  note: z.string().optional(),\n  hosts: z\n    .record(hostnameSchema, hostSchema)",
    ],
    [
      "export const hostSchema = z.strictObject({\n",
      "export const hostSchema = z.strictObject({\n  note: z.string().optional(),\n",
    ],
  ],
  "agent/operator/channel/compose-manifest.ts": [
    [
      "    hosts,\n  };",
      `    note: "by 0.2.0",
    hosts: Object.fromEntries(
      Object.entries(hosts).map(([name, host]) => [name, { ...host, note: "by 0.2.0" }]),
    ),
  };`,
    ],
  ],
};

const overlay = {
  name: "later-version",
  setup(build) {
    const used = new Set();
    build.onLoad({ filter: /\/agent\/.*\.ts$/ }, async ({ path }) => {
      const name = relative(ROOT, path);
      if (!Object.hasOwn(OVERLAY, name)) return undefined;
      used.add(name);
      let contents = await readFile(path, "utf8");
      for (const [before, after] of OVERLAY[name]) {
        if (!contents.includes(before)) {
          throw new Error(`${name}: the overlay of 0.2.0 does not fit: expected ${before}`);
        }
        contents = contents.replaceAll(before, () => after);
      }
      return { contents, loader: "ts" };
    });
    build.onEnd(() => {
      const unused = Object.keys(OVERLAY).filter((name) => !used.has(name));
      if (unused.length > 0) throw new Error(`not in the bundle: ${unused.join(", ")}`);
    });
  },
};

/** Builds it; gives its path. */
export function buildLaterVersion(outfile) {
  return buildAgent(outfile, { version: "0.2.0", plugins: [overlay] });
}
