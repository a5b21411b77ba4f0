import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import * as z from "zod";
import { ACTIVATION_MODES, activationSchema } from "../../agent/core/formats/manifest.ts";
import { hostKeys, parseHostsFile } from "../../agent/operator/publish/host-spec.ts";
import { pollSchema } from "../../agent/core/schedule/poll-schedule.ts";
import { parseSettings, settingsSchema } from "../../agent/core/settings.ts";
import { PUBLIC_KEY, configFile, configured, evaluate, noNix } from "./nix.ts";

interface Option {
  readonly default: unknown;
  readonly hasDefault: boolean;
  readonly hasExample: boolean;
  readonly description: string;
}

interface SchemaNode {
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly required?: readonly string[];
  readonly items?: SchemaNode;
  readonly additionalProperties?: SchemaNode | boolean;
  readonly oneOf?: readonly SchemaNode[];
  readonly enum?: readonly string[];
  readonly const?: string;
  readonly default?: unknown;
}

/** A key of the configuration file, as the agent's schema has it. */
interface Key {
  readonly default: unknown;
  readonly required: boolean;
  readonly values: readonly string[];
}

/** Keys that operators rarely set: the module passes them on without an option. */
const FREEFORM = [
  "$schema",
  "store",
  "paths.staging",
  "paths.profile",
  "paths.gcRoots",
  "paths.machineId",
  "paths.currentSystem",
  "paths.runtime",
  "limits.manifestBytes",
  "limits.redirects",
  "limits.connectTimeout",
  "limits.stallTimeout",
  "limits.importTimeout",
  "limits.stagingBytes",
  "limits.deltaNarBytes",
  "limits.deltaTimeout",
  "limits.minRate",
  "limits.rateWindow",
  "limits.maxRate",
  "limits.reserveBytes",
  "limits.retryBase",
  "limits.retryMax",
];

function keysOf(node: SchemaNode, prefix = ""): [string, Key][] {
  return Object.entries(node.properties ?? {}).flatMap(([name, child]): [string, Key][] => {
    const key = {
      default: child.default,
      // In a schema of the input, what has a default is not required.
      required: node.required?.includes(name) ?? false,
      values: child.enum ?? (child.const === undefined ? [] : [child.const]),
    };
    const own: [string, Key] = [prefix + name, key];
    const below = `${prefix}${name}.`;
    if (child.items?.oneOf) return [own, ...variantKeysOf(child.items.oneOf, below)];
    if (child.items?.properties) return [own, ...keysOf(child.items, below)];
    const { additionalProperties: values } = child;
    if (typeof values === "object") return [own, ...keysOf(values, below)];
    if (child.properties === undefined) return [own];
    // An object without a default is an option itself: absent, or given with its keys.
    return [...(child.default === undefined ? [own] : []), ...keysOf(child, below)];
  });
}

/** Keys of a list's elements: what is not a key of each variant may be absent. */
function variantKeysOf(variants: readonly SchemaNode[], prefix: string): [string, Key][] {
  const all = variants.flatMap((variant) => keysOf(variant, prefix));
  return all.map(([name, key]) => {
    const alike = all.filter(([other]) => other === name).map(([, found]) => found);
    return [
      name,
      alike.length < variants.length
        ? { default: undefined, required: false, values: [] }
        : { ...key, values: alike.flatMap(({ values }) => values) },
    ];
  });
}

const schemaKeys = new Map(
  keysOf(z.toJSONSchema(settingsSchema, { io: "input", unrepresentable: "any" }) as SchemaNode),
);

const optionsBelow = async (attribute: string): Promise<Map<string, Option>> =>
  new Map(Object.entries((await evaluate(attribute)) as Record<string, Option>));

/** Whether a key is one of those that an assertion asks for, and so are empty by default. */
const isAsked = (name: string): boolean =>
  (schemaKeys.get(name)?.required ?? false) && !name.includes(".");

function credentialOf(type: string): string {
  return `credentials."https://releases.example.org" = { type = "${type}"; file = "/run/keys/mirror"; };`;
}

/** What a host's entry of a release gets of its configuration. */
async function releaseOf(says: string): Promise<unknown> {
  return evaluate("release", `{ services.nixos-pull.release = { ${says} }; }`);
}

describe.skipIf(noNix)("services.nixos-pull.release", () => {
  it("has an option for each key of a hosts file", async () => {
    const options = [...(await optionsBelow("options")).keys()].flatMap((name) =>
      name.startsWith("release.") ? [name.slice("release.".length)] : [],
    );
    const activation = Object.keys(activationSchema.shape).map((key) => `activation.${key}`);
    const keys = Object.keys(hostKeys).filter((key) => key !== "activation");
    const below = options.filter((name) => !name.startsWith("activation.checks."));
    expect(below.sort()).toEqual([...keys, ...activation].sort());
  });

  it("publishes a host that has the agent, and says nothing more by itself", async () => {
    const empty = {
      ...{ publish: false, groups: null, machineId: null },
      activation: { mode: null, specialisation: null, checks: null },
    };
    expect(await releaseOf("")).toEqual(empty);
    expect(await evaluate("release", configured())).toEqual({ ...empty, publish: true });
  });

  it("takes every mode of activation", async () => {
    for (const mode of ACTIVATION_MODES) {
      expect(await releaseOf(`activation.mode = "${mode}";`)).toMatchObject({
        activation: { mode },
      });
    }
  });

  it.each([
    ["groups", '[ "Canary" ]'],
    ["machineId", '"0123"'],
    ["activation.mode", '"kexec"'],
    ["activation.specialisation", '"a b"'],
    ["publish", '"yes"'],
  ])("refuses, as hosts files do, %s = %s", async (name, value) => {
    await expect(releaseOf(`${name} = ${value};`)).rejects.toThrow(
      `services.nixos-pull.release.${name}`,
    );
    const entry = merged({ system: "x.nix", activation: {} }, name, JSON.parse(value));
    expect(() => parseHostsFile({ web1: entry }, "hosts.json")).toThrow(/web1/);
  });
});

/** Values that are accepted only together with others. */
const NEEDED: Readonly<Record<string, string>> = {
  window: 'reboot = { policy = "window"; window = { cron = "0 3 * * *"; duration = "2h"; }; };',
  basic: credentialOf("basic"),
  bearer: credentialOf("bearer"),
  s3: 'mirrors = [ "s3://fleet" ]; credentials."s3://fleet" = { type = "s3"; file = "/run/keys/mirror"; };',
  "instance-role":
    'mirrors = [ "s3://fleet" ]; credentials."s3://fleet" = { type = "instance-role"; };',
  command: 'health.checks = [ { name = "a"; kind = "command"; command = [ "true" ]; } ];',
  http: 'health.checks = [ { name = "a"; kind = "http"; url = "http://localhost"; } ];',
  tcp: 'health.checks = [ { name = "a"; kind = "tcp"; host = "localhost"; port = 22; } ];',
};

describe.skipIf(noNix)("services.nixos-pull.settings", () => {
  it("has an option, or a place in the freeform list, for every key of the agent", async () => {
    const options = await optionsBelow("settingsOptions");
    expect([...options.keys(), ...FREEFORM].sort()).toEqual([...schemaKeys.keys()].sort());
  });

  it("has the agent's defaults", async () => {
    for (const [name, option] of await optionsBelow("settingsOptions")) {
      const key = schemaKeys.get(name);
      // An assertion asks for what is required, with a better text than the module system's.
      const expected = isAsked(name) ? [] : (key?.default ?? null);
      // The agent asks the system for its name; the module knows it.
      if (name === "hostname") expect(option.default).toBe("nixos");
      else expect(option.default, name).toEqual(expected);
    }
  });

  it("gives every option a description, a default and an example", async () => {
    for (const attribute of ["options", "settingsOptions"]) {
      for (const [name, option] of await optionsBelow(attribute)) {
        // Elements of the same type as `settings.health.checks`.
        if (name.startsWith("release.activation.checks.")) continue;
        const hasDefault = !(schemaKeys.get(name)?.required ?? false) || isAsked(name);
        expect(option, name).toMatchObject({ hasDefault, hasExample: true });
        expect(option.description, name).toMatch(/^[A-Z`].*[.\n]$/s);
      }
    }
  });

  it("takes every value of the agent's enumerations", async () => {
    for (const [name, { values }] of schemaKeys) {
      for (const value of FREEFORM.includes(name) ? [] : values) {
        const json = await configFile(configured(NEEDED[value] ?? `${name} = "${value}";`));
        expect(() => parseSettings(json, "gateway"), `${name} = ${value}`).not.toThrow();
      }
    }
  });

  it.each([
    ["channel", '"Stable"'],
    ["channel", '"a/b"'],
    ["hostname", '"-gateway"'],
    ["mirrors", '[ "ftp://releases.example.org" ]'],
    ["mirrors", '[ "https://releases.example.org/?a=b" ]'],
    ["mirrors", '[ "file://host/mnt" ]'],
    ["threshold", "0"],
    ["poll.interval", '"15 minutes"'],
    ["poll.jitter", "2"],
    ["activation.mode", '"reboot"'],
    ["activation.attempts", "0"],
    ["health.settle", '"soon"'],
    ["reboot.policy", '"later"'],
    ["generations.keep", "1"],
    ["paths.state", '"var/lib/nixos-pull"'],
    ["paths.state", '"/srv/a?b"'],
    ["log.level", '"loud"'],
    ["storeKeys", '"builder-1"'],
    ["tls.caFile", '"ca.pem"'],
    ["reports.url", '"file:///mnt/usb"'],
    ["statusSocket.path", '"status.socket"'],
    ["metrics.textfile", '"/var/lib/node-exporter/nixos-pull.txt"'],
    ["metrics.listen", '"0.0.0.0:9184"'],
    ["metrics.listen", '"localhost:65536"'],
    ["mirrors", '[ "https://user:secret@releases.example.org" ]'],
    ["reports.url", '"https://user:secret@releases.example.org/reports"'],
    ["poll.interval", '"0s"'],
    ["activation.timeout", '"0h0m"'],
    ["health.timeout", '"00s"'],
    ["hooks.timeout", '"0s"'],
    ["clock", '"maybe"'],
    ["activation.confirm", '"always"'],
    ["hooks.preActivate", "[ ]"],
    ["hooks.timeout", '"soon"'],
    ["maintenance.windows", '"nightly"'],
    ["drift", '"adopt"'],
    ["contentAddressed", '"trusted"'],
  ])("refuses, as the agent does, %s = %s", async (name, value) => {
    await expect(configFile(configured(`${name} = ${value};`))).rejects.toThrow(
      `services.nixos-pull.settings.${name}`,
    );
    const json = (await configFile(configured())) as Record<string, unknown>;
    // These values read the same in Nix and in JSON.
    const changed = merged(json, name, JSON.parse(value));
    expect(() => parseSettings(changed, "gateway")).toThrow(name);
  });

  it.each([
    "hourly",
    "0 3 * *",
    "0 3 * * * * *",
    "60 3 * * *",
    "0 24 * * *",
    "0 3 32 * *",
    "0 3 * 13 *",
    "0 3 * * 8",
    "5/10 3 * * *",
    "*/0 3 * * *",
  ])("refuses the cron expression %s before the agent is started", async (cron) => {
    await expect(configFile(configured(`poll.cron = "${cron}";`))).rejects.toThrow("poll.cron");
  });

  it.each([
    "0 3 * * *",
    "30 0 3 * * *",
    "@daily",
    "*/15 22-2 1-7,15 jan,MAR-12 mon-FRI",
    "0-30/10,59 3 L * ?",
    "0 3 LW,15W,L-3 * *",
    "0 3 ? * 6#1,5L,0,7",
  ])("takes the cron expression %s, as the agent does", async (cron) => {
    const json = (await configFile(configured(`poll.cron = "${cron}";`))) as { poll: object };
    expect(json.poll).toMatchObject({ cron });
    expect(pollSchema.safeParse({ cron }).error).toBeUndefined();
  });
});

function merged(json: Record<string, unknown>, name: string, value: unknown): unknown {
  const [first = "", ...rest] = name.split(".");
  const below = json[first] as Record<string, unknown>;
  return { ...json, [first]: rest.length === 0 ? value : merged(below, rest.join("."), value) };
}

describe.skipIf(noNix)("/etc/nixos-pull/config.json", () => {
  it("is accepted by the agent for the README's minimal configuration", async () => {
    const readme = await readFile(new URL("../../nixos-module/README.md", import.meta.url), "utf8");
    const [, example = ""] = /## Minimal configuration\s+```nix\n(.*?)```/s.exec(readme) ?? [];
    const named = `{ imports = [ (${example}) ]; networking.hostName = "gateway"; }`;
    const { source: _, ...settings } = parseSettings(await configFile(named), "other");
    expect(settings).toMatchObject({
      hostname: "gateway",
      channel: "stable",
      threshold: 1,
      mirrors: ["https://releases.example.org"],
      poll: { kind: "interval" },
    });
    const minimal = parseSettings(
      {
        hostname: "gateway",
        mirrors: settings.mirrors,
        publicKeys: settings.publicKeys.map((key) => key.text),
      },
      "other",
    );
    expect(settings).toEqual({ ...minimal, source: undefined });
  });

  it("has no name for a host that the network names", async () => {
    const nameless = `{ imports = [ (${configured()}) ]; networking.hostName = ""; }`;
    expect(await configFile(nameless)).not.toHaveProperty("hostname");
  });

  it("is checked by the agent while the system is built, unless that is turned off", async () => {
    expect(await evaluate("check", configured())).toMatchObject({
      "nixos-pull/config.json": expect.stringContaining('nixos-pull config --config "$configFile"'),
    });
    const unchecked = `{ imports = [ (${configured()}) ]; services.nixos-pull.checkConfig = false; }`;
    expect(await evaluate("check", unchecked)).toMatchObject({ "nixos-pull/config.json": null });
  });

  it("holds every option that is set", async () => {
    const json = await configFile(
      configured(`
        hostname = "gateway-07.example.org";
        poll = { cron = "0 3 * * *"; timezone = "Europe/Berlin"; jitter = "30m"; };
        activation = { mode = "boot"; timeout = "1h30m"; attempts = 3; };
        health = {
          settle = "30s";
          checks = [
            { name = "website"; kind = "http"; url = "http://localhost/"; status = 204; }
            { name = "database"; kind = "tcp"; host = "localhost"; port = 5432; timeout = "3s"; }
          ];
        };
        reboot = {
          policy = "window";
          window = { cron = "0 3 * * *"; duration = "2h"; };
          fleetLock = { url = "https://fleetlock.example.org"; group = "gateways"; };
        };
        generations.keep = 10;
      `),
    );
    expect(parseSettings(json, "gateway")).toMatchObject({
      hostname: "gateway-07.example.org",
      poll: { kind: "cron", cron: "0 3 * * *", timezone: "Europe/Berlin", jitter: 30 * 60_000 },
      activation: { mode: "boot", timeout: 90 * 60_000, attempts: 3 },
      health: {
        settle: 30_000,
        checks: [
          { ...{ name: "website", kind: "http", timeout: "10s" }, status: 204 },
          { ...{ name: "database", kind: "tcp", timeout: "3s" }, port: 5432 },
        ],
      },
      reboot: {
        policy: "window",
        window: { cron: "0 3 * * *", timezone: "UTC", duration: 2 * 60 * 60_000 },
        fleetLock: { url: "https://fleetlock.example.org", group: "gateways" },
      },
      generations: { keep: 10 },
    });
  });

  it("holds the host's own rules", async () => {
    const json = await configFile(
      configured(`
        maintenance.windows = [
          { cron = "0 2 * * 6,0"; timezone = "Europe/Berlin"; duration = "3h"; }
          { cron = "0 22 * * *"; duration = "30m"; }
        ];
        reboot.policy = "window";
        activation.confirm = "required";
        hooks = { preActivate = [ "/bin/drain" "--all" ]; onFailure = [ "/bin/tell" ]; timeout = "30s"; };
        drift = "revert";
        contentAddressed = "unsigned";
      `),
    );
    expect(parseSettings(json, "gateway")).toMatchObject({
      maintenance: {
        windows: [
          { cron: "0 2 * * 6,0", timezone: "Europe/Berlin", duration: 3 * 60 * 60_000 },
          { cron: "0 22 * * *", timezone: "UTC", duration: 30 * 60_000 },
        ],
      },
      reboot: { policy: "window" },
      activation: { confirm: "required" },
      hooks: { preActivate: ["/bin/drain", "--all"], onFailure: ["/bin/tell"], timeout: 30_000 },
      drift: "revert",
      contentAddressed: "unsigned",
    });
  });

  it("holds what concerns trust, in the agent's words", async () => {
    const json = await configFile(
      configured(`
        storeKeys = [ "${PUBLIC_KEY}" ];
        health.releaseCommands = true;
        credentials."https://releases.example.org" = { type = "basic"; credential = "mirror"; };
        tls = { caFile = "/etc/ca.pem"; certFile = "/run/cert.pem"; keyFile = "/run/key.pem"; };
        reports = { directory = "/mnt/usb/reports"; url = "https://releases.example.org/reports"; };
        statusSocket = { path = "/run/nixos-pull/status.socket"; group = "monitoring"; };
        metrics = { textfile = "/var/lib/node-exporter/nixos-pull.prom"; listen = "[::1]:9184"; };
        clock = "ignore";
      `),
    );
    expect(parseSettings(json, "gateway")).toMatchObject({
      storeKeys: [{ text: PUBLIC_KEY }],
      health: { releaseCommands: true },
      credentials: { "https://releases.example.org": { type: "basic", credential: "mirror" } },
      tls: { keyFile: "/run/key.pem" },
      reports: { url: "https://releases.example.org/reports" },
      statusSocket: { group: "monitoring" },
      metrics: { textfile: "/var/lib/node-exporter/nixos-pull.prom", listen: "[::1]:9184" },
      clock: "ignore",
    });
  });

  it.each([
    ['metrics.textfile = "/var/lib/node-exporter/nixos-pull.prom";', "textfile"],
    ['metrics.listen = "127.0.0.1:9184";', "listen"],
    ['metrics.listen = "localhost:65535";', "listen"],
  ])("has metrics where they are asked for: %s", async (text, key) => {
    const { metrics } = parseSettings(await configFile(configured(text)), "gateway");
    expect(Object.keys(metrics)).toEqual([key]);
    expect(text).toContain(Object.values(metrics)[0]);
    expect(parseSettings(await configFile(configured()), "gateway").metrics).toEqual({});
  });

  it.each(["1s", "10m0s", "0h30m", "007s"])("takes the duration %s", async (duration) => {
    const json = await configFile(configured(`activation.timeout = "${duration}";`));
    expect(parseSettings(json, "gateway").activation.timeout).toBeGreaterThan(0);
  });

  it("passes on keys without an option, beside those that have one", async () => {
    const json = await configFile(
      configured('limits.redirects = 3; paths.staging = "/srv/staging"; later.key = [ 1 true ];'),
    );
    expect(json).toMatchObject({
      limits: { redirects: 3 },
      paths: { staging: "/srv/staging", state: "/var/lib/nixos-pull" },
      later: { key: [1, true] },
    });
  });

  it("leaves out what is null", async () => {
    const json = await configFile(configured("store = null; limits.redirects = null;"));
    expect(JSON.stringify(json)).not.toContain("null");
    expect(() => parseSettings(json, "gateway")).not.toThrow();
  });

  it("merges definitions of several modules by priority", async () => {
    const json = await configFile(`{ lib, ... }: { imports = [
      ${configured()}
      { services.nixos-pull.settings = {
          mirrors = lib.mkForce [ "file:///mnt/usb" ];
          channel = lib.mkDefault "canary";
          limits = lib.mkIf true { redirects = lib.mkDefault 3; };
        };
      }
      { services.nixos-pull.settings.limits.redirects = 4; }
    ]; }`);
    expect(json).toMatchObject({
      mirrors: ["file:///mnt/usb"],
      channel: "canary",
      limits: { redirects: 4 },
    });
  });
});
