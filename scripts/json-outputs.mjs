// What commands.md says of `--json`: for each command the keys of its document, with types and
// a line each, from the same schemas as the JSON Schemas beside it.

/**
 * What a key means wherever it stands. A key that means something else in one command is described
 * in that command's schema, and that description counts.
 */
const MEANINGS = {
  accepted: "the newest release that the host accepted",
  activity: "the update that runs now: what it does, since when, and how far it is",
  agentVersion: "the version of the agent",
  alarms: "what is wrong with the host itself, with a code each",
  archives: "the archives that were removed, or would be",
  at: "when it was done or found",
  barrier: "the release that hosts have to become first",
  bootLoader: "what is known of the boot loader, and whether it can try a system once",
  booted: "the system that was booted",
  brought: "hosts whose reports were copied",
  channel: "the channel",
  channels: "what was found or copied for each channel",
  checks: "what was tried, each with its outcome",
  code: "the code of what is wrong",
  codes: "how many hosts have each code",
  committed: "the release that the host last committed",
  config: "the configuration file's text",
  copied: "what was copied, and what was there already",
  counts: "how many hosts have each standing",
  createdAt: "when the release was made",
  damaged: "damaged store paths, and what became of each",
  denied: "systems that failed here and are not tried again by themselves",
  difference: "what the release changes, against the release before",
  digest: "the digest of the manifest",
  disk: "free and total bytes of the store's file system",
  drift: "what somebody changed by hand",
  dryRun: "whether nothing was changed, because of --dry-run",
  earlier: "earlier releases whose closures this host keeps",
  entries: "what happened, the oldest first",
  epoch: "the epoch of the sequence numbers",
  error: "why the command failed: a code and a message",
  expiresAt: "until when the release is good",
  failingSnippets: "activation snippets that fail in the system that runs",
  failure: "the last update that failed, with the last lines of its output",
  features: "features of the format that the agent knows",
  formatVersion: "the version of the report's format",
  generation: "the profile's generation",
  hold: "whether and until when the host is held",
  holdsRebootSlot: "whether the host holds a slot of the FleetLock server",
  hostname: "the host's name in releases",
  hosts: "the hosts, one object each",
  keptArchives: "how many archives stay",
  lastPoll: "when the mirrors were last asked, and what they said",
  machineId: "what stands for the machine's identity",
  message: "what is wrong, as a sentence",
  mirrors: "the mirrors; where they were asked, with what each said",
  mode: "the activation mode",
  path: "the option's path",
  pendingReboot: "the system that a reboot makes complete",
  platform: "the host's kind of machine",
  preparedReboot: "whether the agent has prepared the next boot",
  profile: "what the system profile points at",
  pruned: "archives that were removed from DST",
  publicKey: "the host's key for reports",
  publicKeys: "the keys that are trusted to sign releases",
  refused: "reports that were not believed, and why",
  release: "the release in question: sequence, digest and times",
  revokedKeys: "keys that are never trusted",
  rollout: "start, waves and pause",
  running: "the running system",
  script: "the shell script's text",
  sequence: "the release's number",
  signedBy: "the names of the keys that signed it",
  state: "the state of the agent",
  storeKeys: "the keys that are trusted to sign store paths",
  targets: "the releases that hosts are compared with",
  toplevel: "the system",
  trust: "the releases that the host accepted, by channel",
  unfinishedRevert: "a way back that is not finished",
  unfinishedWayBack: "what the way back still has to do",
  user_data: "the cloud-init user data",
  waits: "what the release waits for, and until when",
};

/** Descriptions of types: what a key means says more. */
const GENERAL = /^$|^UTC time/;

const code = (value) => `\`${value}\``;

/** The part of `root` that a schema refers to, or the schema itself. */
function resolved(schema, root) {
  if (schema.$ref === undefined) return schema;
  const steps = schema.$ref.split("/").slice(1);
  return resolved(
    steps.reduce((part, step) => part[step], root),
    root,
  );
}

/** All forms that a schema allows, without those of its alternatives that only hold others. */
function formsOf(schema, root) {
  const found = resolved(schema, root);
  const alternatives = found.anyOf ?? found.oneOf;
  return alternatives ? alternatives.flatMap((one) => formsOf(one, root)) : [found];
}

function typeOf(schema, root) {
  const forms = formsOf(schema, root);
  return [...new Set(forms.map((form) => formName(form, root)))].join(" or ");
}

/** More values than these are left to the JSON Schema. */
const MAX_NAMED_VALUES = 6;

function formName(form, root) {
  if (Array.isArray(form.type)) {
    return form.type.map((type) => formName({ ...form, type }, root)).join(" or ");
  }
  if (form.enum?.length <= MAX_NAMED_VALUES) return form.enum.map(code).join(", ");
  if (form.const !== undefined) return code(JSON.stringify(form.const).replaceAll('"', ""));
  if (form.type === "array") return `list of ${typeOf(form.items ?? {}, root)}`;
  if (form.type === "string") return form.format === "date-time" ? "time" : "text";
  return form.type ?? "any value";
}

/**
 * Tables of the keys that a command's document has, one for each form of it. `schema` is its JSON
 * Schema, without the document of an error; `table` makes a Markdown table. Throws if nobody says
 * what a key means.
 */
export function outputTables(title, schema, table) {
  const forms = formsOf(schema, schema).filter(({ properties }) => properties !== undefined);
  return forms
    .map(({ properties, required = [] }) => {
      const rows = Object.entries(properties).map(([name, property]) => {
        const described = property.description ?? resolved(property, schema).description;
        const meaning = GENERAL.test(described ?? "") ? MEANINGS[name] : described;
        if (!meaning) {
          throw new Error(
            `${title} --json: describe ${name} in its schema, or in scripts/json-outputs.mjs`,
          );
        }
        const type = typeOf(property, schema);
        return [code(name), required.includes(name) ? type : `${type}, or absent`, meaning];
      });
      return table(["key", "type", "meaning"], rows);
    })
    .join("\n\nor:\n\n");
}
