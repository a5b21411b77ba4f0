import { describe, expect, test } from "vitest";
import * as z from "zod";
import {
  DEFAULT_CONFIG_FILE,
  parseNetworkSettings,
  parseSettings,
  settingsSchema,
  trustPolicyOf,
  type Settings,
} from "../../../agent/core/settings.ts";
import { failureOf } from "../../support/failure.ts";
import { takesAt } from "../../support/schema-bounds.ts";
import { secretKeyText, testKey } from "../../support/test-key.ts";

const KEY = testKey("fleet-1").publicKey.text;
const OTHER = testKey("fleet-2").publicKey.text;
const MINIMAL = { mirrors: ["https://mirror.example.org/nixos"], publicKeys: [KEY] };

function parse(changes: Record<string, unknown> = {}, systemHostname = "web1"): Settings {
  return parseSettings({ ...MINIMAL, ...changes }, systemHostname);
}

/** The message about a configuration that is refused. */
function refusal(changes: Record<string, unknown>): string {
  const failure = failureOf(() => parse(changes));
  expect(failure.code).toBe("CONFIG_INVALID");
  return failure.message;
}

describe("a configuration with mirrors and keys alone", () => {
  test("has a default for everything else", () => {
    const { publicKeys, ...rest } = parse();
    expect(publicKeys.map(({ text }) => text)).toEqual([KEY]);
    expect(rest).toMatchObject({
      hostname: "web1",
      channel: "stable",
      mirrors: MINIMAL.mirrors,
      threshold: 1,
      poll: { kind: "interval", interval: 900_000, jitter: 120_000 },
      activation: { timeout: 1_800_000, runner: "auto", attempts: 5 },
      health: {
        ...{ settle: 10_000, timeout: 120_000, interval: 5_000 },
        ...{ mirror: true, checks: [], releaseCommands: true },
      },
      reboot: { policy: "never", grace: 60_000 },
      generations: {},
      paths: {
        state: "/var/lib/nixos-pull",
        staging: "/var/lib/nixos-pull/staging",
        profile: "/nix/var/nix/profiles/system",
        gcRoots: "/nix/var/nix/gcroots/nixos-pull",
        currentSystem: "/run/current-system",
        bootedSystem: "/run/booted-system",
      },
      limits: {
        manifestBytes: 32 * 1024 ** 2,
        redirects: 5,
        connectTimeout: 15_000,
        stallTimeout: 60_000,
        importTimeout: 4 * 3_600_000,
        stagingBytes: 0,
        deltaNarBytes: 128 * 1024 ** 2,
        deltaTimeout: 10 * 60_000,
        reserveBytes: 256 * 1024 ** 2,
        retryBase: 60_000,
        retryMax: 6 * 3_600_000,
      },
      log: { level: "info", format: "auto" },
    });
    expect(rest.store).toBeUndefined();
    expect(rest.activation.mode).toBeUndefined();
  });

  test("is the same with empty sections", () => {
    const sections = {
      ...{ poll: {}, activation: {}, health: {}, reboot: {}, generations: {} },
      ...{ paths: {}, limits: {}, log: {} },
    };
    expect({ ...parse(sections), source: "" }).toEqual({ ...parse(), source: "" });
  });

  test("may name its schema for editors", () => {
    const settings = parse({ $schema: "./settings.schema.json" });
    expect({ ...settings, source: "" }).toEqual({ ...parse(), source: "" });
  });
});

describe("the source", () => {
  test("is the configuration as it was given, with the hostname filled in", () => {
    expect(JSON.parse(parse({}, "web7").source)).toEqual({ ...MINIMAL, hostname: "web7" });
    const given = { hostname: "db1", limits: { stallTimeout: "5s" }, log: { level: "debug" } };
    expect(JSON.parse(parse(given).source)).toEqual({ ...MINIMAL, ...given });
  });

  test("is read to the same settings on a system of another name", () => {
    const settings = parse({ poll: { interval: "1h" }, reboot: { policy: "now" } }, "web7");
    const again = parseSettings(JSON.parse(settings.source), "renamed");
    expect(again).toEqual({ ...settings, isNamedBySystem: false });
  });
});

describe("reboots", () => {
  const window = { cron: "0 2 * * *", duration: "2h" };

  test("have a window that must be there for the policy window", () => {
    expect(refusal({ reboot: { policy: "window" } })).toContain(
      "reboot: expected a window, or maintenance.windows, together with the policy window",
    );
    expect(parse({ reboot: { policy: "window", window } }).reboot.window).toEqual({
      ...{ cron: "0 2 * * *", timezone: "UTC", duration: 7_200_000 },
    });
  });

  test("have a group of FleetLock that may be left out", () => {
    const fleetLock = { url: "https://lock.example.org/base" };
    expect(parse({ reboot: { fleetLock } }).reboot.fleetLock).toEqual({
      ...fleetLock,
      group: "default",
    });
    expect(refusal({ reboot: { fleetLock: { url: "ftp://lock.example.org" } } })).toContain(
      "reboot.fleetLock.url: ",
    );
    expect(refusal({ reboot: { fleetLock: { ...fleetLock, group: "a b" } } })).toContain(
      "reboot.fleetLock.group: ",
    );
  });
});

describe("values that are given", () => {
  test("count instead of the defaults, one by one", () => {
    const settings = parse({
      channel: "canary",
      activation: { mode: "boot" },
      limits: { redirects: 0, stallTimeout: "5s" },
      log: { level: "debug" },
    });
    expect(settings.channel).toBe("canary");
    expect(settings.activation).toMatchObject({ mode: "boot", timeout: 1_800_000 });
    expect(settings.limits).toMatchObject({ redirects: 0, stallTimeout: 5_000, retryBase: 60_000 });
    expect(settings.log).toEqual({ level: "debug", format: "auto" });
  });

  test("of the hostname count instead of the system's", () => {
    expect(parse({ hostname: "db1.example.org" }, "localhost").hostname).toBe("db1.example.org");
  });

  test("of the state directory move staging with it, unless that is given too", () => {
    expect(parse({ paths: { state: "/srv/pull" } }).paths.staging).toBe("/srv/pull/staging");
    const both = { state: "/srv/pull", staging: "/big/staging" };
    expect(parse({ paths: both }).paths.staging).toBe("/big/staging");
  });

  test("of a cron expression replace the interval, in UTC unless a zone is given", () => {
    expect(parse({ poll: { cron: "0 4 * * *" } }).poll).toEqual({
      ...{ kind: "cron", cron: "0 4 * * *", timezone: "UTC", jitter: 120_000 },
    });
    const zoned = { cron: "0 4 * * *", timezone: "Europe/Berlin", jitter: "0s" };
    expect(parse({ poll: zoned }).poll).toMatchObject({ timezone: "Europe/Berlin", jitter: 0 });
  });

  test.each([
    "https://mirror.example.org",
    "http://10.0.0.1:8080/a/b/",
    "http://[::1]/",
    "file:///srv/mirror",
    "file:///media/usb%20stick",
  ])("of the mirror %s are taken", (mirror) => {
    expect(parse({ mirrors: [mirror] }).mirrors).toEqual([mirror]);
  });
});

describe("trust", () => {
  test("is made of all keys and the threshold", () => {
    const policy = trustPolicyOf(parse({ publicKeys: [KEY, OTHER], threshold: 2 }));
    expect(policy.threshold).toBe(2);
    expect(policy.publicKeys.map(({ name }) => name)).toEqual(["fleet-1", "fleet-2"]);
  });

  test("cannot need more keys than there are", () => {
    expect(refusal({ threshold: 2 })).toBe(
      "threshold: expected a threshold no greater than the number of distinct publicKeys that are not revoked, found 2",
    );
  });

  test("counts a key that is listed twice, or under two names, once", () => {
    const alias = testKey("alias", "fleet-1").publicKey.text;
    expect(refusal({ publicKeys: [KEY, KEY], threshold: 2 })).toContain("threshold: ");
    expect(refusal({ publicKeys: [KEY, alias], threshold: 2 })).toContain("threshold: ");
    expect(parse({ publicKeys: [KEY, alias], threshold: 1 }).threshold).toBe(1);
  });

  test.each([0, -1, 0.5, "1", null])("has no threshold of %j", (threshold) => {
    expect(refusal({ threshold })).toContain("threshold: ");
  });

  test("refuses a secret key and says what it is", () => {
    const message = refusal({ publicKeys: [KEY, secretKeyText("fleet-2")] });
    expect(message).toContain("publicKeys[1]: ");
    expect(message).toContain("this is a SECRET key");
  });

  test("refuses a secret key without printing any of it", () => {
    const secret = secretKeyText("fleet-2");
    expect(refusal({ publicKeys: [secret] })).not.toContain(secret.slice(8, 24));
  });
});

describe("every error names the key, what was expected and what was found", () => {
  test.each<[Record<string, unknown>, string]>([
    [{ mirrors: undefined }, "mirrors: missing; expected array"],
    [{ mirrors: "https://x" }, 'mirrors: expected array, found "https://x"'],
    [{ mirrors: [] }, "mirrors: Too small: expected array to have >=1 items, found []"],
    [{ publicKeys: undefined }, "publicKeys: missing; expected array"],
    [{ publicKeys: [] }, "publicKeys: Too small: expected array to have >=1 items, found []"],
    [
      { publicKeys: ["fleet-1"] },
      "publicKeys[0]: expected a public key as NAME:BASE64; give the key itself",
    ],
    [{ publicKeys: [7] }, "publicKeys[0]: expected string, found 7"],
    [{ channel: "Stable" }, "channel: expected a channel name of lower-case letters"],
    [{ channel: "../other" }, 'found "../other"'],
    [{ hostname: "a b" }, 'hostname: expected a hostname, found "a b"'],
    [{ store: "local?root=/a b" }, "store: Invalid string: must match pattern"],
    [{ poll: { interval: "15" } }, "poll.interval: expected a duration"],
    [{ poll: { interval: 15 } }, "poll.interval: expected string, found 15"],
    [{ poll: { interval: "0s" } }, 'poll.interval: expected a duration of at least 1s, found "0s"'],
    [{ poll: { interval: "30d" } }, "poll.interval: expected a duration of at most 24d"],
    [{ poll: { jitter: "-1s" } }, 'found "-1s"'],
    [{ poll: { cron: 5 } }, "poll.cron: expected string, found 5"],
    [
      { poll: { cron: "0 25 * * *" } },
      'poll.cron: expected a cron expression of five or six fields with a valid hour, found "0 25 * * *"',
    ],
    [
      { poll: { cron: "0 2 * * *", timezone: "Mars" } },
      "poll.timezone: expected an IANA time zone",
    ],
    [{ poll: "15m" }, 'poll: expected object, found "15m"'],
    [{ activation: { mode: "reboot" } }, "activation.mode: "],
    [{ activation: { mode: "reboot" } }, 'found "reboot"'],
    [{ activation: { timeout: "0s" } }, "activation.timeout: expected a duration of at least 1s"],
    [{ limits: { manifestBytes: -1 } }, "limits.manifestBytes: "],
    [{ limits: { manifestBytes: 1.5 } }, "limits.manifestBytes: expected int, found 1.5"],
    [{ limits: { manifestBytes: 2 ** 31 } }, "found 2147483648"],
    [
      { limits: { redirects: 21 } },
      "limits.redirects: Too big: expected number to be <=20, found 21",
    ],
    [{ limits: { redirects: -1 } }, "limits.redirects: "],
    [{ limits: { stallTimeout: "0s" } }, "limits.stallTimeout: expected a duration of at least 1s"],
    [{ limits: { connectTimeout: "soon" } }, 'found "soon"'],
    [{ limits: { reserveBytes: "256M" } }, 'limits.reserveBytes: expected number, found "256M"'],
    [{ limits: { retryMax: null } }, "limits.retryMax: expected string, found null"],
    [{ log: { level: "trace" } }, "log.level: "],
    [{ log: { level: "trace" } }, 'found "trace"'],
    [{ log: { format: "xml" } }, "log.format: "],
  ])("%j", (changes, words) => {
    expect(refusal(changes)).toContain(words);
  });

  test("several at once, and how many more there are", () => {
    const message = refusal({
      ...{ channel: "X", hostname: "", threshold: 0, mirrors: [], publicKeys: [] },
      ...{ log: { level: 1, format: 2 } },
    });
    expect(message.split("; ")).toHaveLength(6);
    expect(message).toMatch(/; and \d+ more$/);
  });

  test.each([null, [], "text", 7])("a configuration that is %j", (json) => {
    const failure = failureOf(() => parseSettings(json, "web1"));
    expect(failure.code).toBe("CONFIG_INVALID");
    expect(failure.message).toBe(`top level: expected object, found ${JSON.stringify(json)}`);
  });
});

describe("keys that nobody reads are refused", () => {
  test.each<[string, Record<string, unknown>, string]>([
    ["at the top", { mirror: "https://x" }, 'top level: unknown key "mirror"'],
    ["in poll", { poll: { intervall: "1m" } }, 'poll: unknown key "intervall"'],
    ["in activation", { activation: { reboot: true } }, 'activation: unknown key "reboot"'],
    ["in health", { health: { check: [] } }, 'health: unknown key "check"'],
    ["in reboot", { reboot: { when: "now" } }, 'reboot: unknown key "when"'],
    ["in generations", { generations: { max: 3 } }, 'generations: unknown key "max"'],
    ["in paths", { paths: { Profile: "/x" } }, 'paths: unknown key "Profile"'],
    ["in limits", { limits: { timeout: "1s" } }, 'limits: unknown key "timeout"'],
    ["in log", { log: { colour: true } }, 'log: unknown key "colour"'],
  ])("%s", (_, changes, words) => {
    expect(refusal(changes)).toBe(words);
  });

  test("also by the name of __proto__", () => {
    const json = JSON.parse(
      `{"__proto__":{"threshold":0},${JSON.stringify(MINIMAL).slice(1)}`,
    ) as unknown;
    const failure = failureOf(() => parseSettings(json, "web1"));
    expect(failure.message).toBe('top level: unknown key "__proto__"');
  });
});

describe("when to poll", () => {
  test("is an interval or a cron expression, not both", () => {
    expect(refusal({ poll: { interval: "1m", cron: "* * * * *" } })).toContain(
      "poll: expected an interval or a cron expression, not both",
    );
  });

  test("has a time zone only with a cron expression", () => {
    expect(refusal({ poll: { timezone: "UTC" } })).toContain(
      "poll: expected a time zone only together with a cron expression",
    );
  });
});

describe("an address that is no mirror is refused", () => {
  test.each([
    "mirror.example.org",
    "/srv/mirror",
    "ftp://mirror.example.org",
    "s3://bucket?token=x",
    "ssh://host/mirror",
    "https://",
    "https://mirror.example.org/?token=x",
    "https://mirror.example.org/#top",
    "file://server/share",
    "javascript:alert(1)",
    "",
  ])("%j", (mirror) => {
    const message = refusal({ mirrors: [MINIMAL.mirrors[0], mirror] });
    expect(message).toContain("mirrors[1]: expected an https://, http:// or file:/// address");
    expect(message).toContain(`found ${JSON.stringify(mirror)}`);
  });

  test("by hand in seventeen copies", () => {
    expect(refusal({ mirrors: Array(17).fill(MINIMAL.mirrors[0]) })).toContain("mirrors: Too big");
  });

  test.each(["file:///srv%2Fmirror", "file:///srv/%zz"])(
    "%s, which stands for no path",
    (mirror) => {
      expect(refusal({ mirrors: [mirror] })).toContain("mirrors[0]: ");
    },
  );
});

describe("paths", () => {
  const names = [
    ...["state", "staging", "profile", "gcRoots", "currentSystem", "bootedSystem", "boot"],
  ];

  test.each(names)("of %s are absolute and without what Nix reads as syntax", (name) => {
    const bad = [
      "",
      "relative",
      "./x",
      "~/x",
      "/a b",
      "/a?b",
      "/a#b",
      "/a%20b",
      "/a\tb",
      "/a\n",
      1,
    ];
    for (const path of bad) {
      expect(refusal({ paths: { [name]: path } })).toContain(`paths.${name}: expected `);
    }
    const good = "/srv/a-b_c.d+e@f:g=h";
    expect(parse({ paths: { [name]: good } }).paths).toMatchObject({ [name]: good });
  });
});

describe("the system's own hostname", () => {
  test.each(["", "-", "a b", "a_", "(none)"])("is refused as %j unless one is set", (hostname) => {
    const failure = failureOf(() => parse({}, hostname));
    expect(failure.code).toBe("CONFIG_INVALID");
    expect(failure.message).toContain(
      `hostname: the system's hostname ${JSON.stringify(hostname)}`,
    );
    expect(parse({ hostname: "web1" }, hostname).hostname).toBe("web1");
  });
});

describe("the host's own rules", () => {
  test("are none where none are given", () => {
    const { maintenance, hooks, drift, activation } = parse({});
    expect({ maintenance, hooks, drift, confirm: activation.confirm }).toEqual({
      maintenance: { windows: [], jitter: 300_000 },
      hooks: { timeout: 300_000 },
      drift: "keep",
      confirm: "none",
    });
  });

  test("may be given, and the windows are those of reboots too", () => {
    const windows = [{ cron: "0 2 * * *", timezone: "Europe/Berlin", duration: "2h" }];
    const hooks = { preActivate: ["/bin/drain", "--all"], timeout: "30s" };
    const reboot = { policy: "window" };
    expect(parse({ maintenance: { windows }, hooks, reboot, drift: "revert" })).toMatchObject({
      maintenance: { windows: [{ ...windows[0], duration: 7_200_000 }] },
      hooks: { preActivate: ["/bin/drain", "--all"], timeout: 30_000 },
      drift: "revert",
    });
  });

  test.each([
    [{ maintenance: { windows: [{ cron: "0 2 * *", duration: "1h" }] } }, "windows[0].cron"],
    [{ maintenance: { windows: [{ cron: "0 2 * * *" }] } }, "windows[0].duration"],
    [{ reboot: { window: { cron: "0 26 * * *", duration: "1h" } } }, "reboot.window.cron"],
    [{ hooks: { preActivate: [] } }, "hooks.preActivate"],
    [{ hooks: { postCommit: "reboot" } }, "hooks.postCommit"],
    [{ hooks: { timeout: "61m" } }, "hooks.timeout"],
    [{ drift: "adopt" }, "drift"],
    [{ activation: { confirm: true } }, "activation.confirm"],
  ])("are refused by their key: %j", (settings, key) => {
    expect(refusal(settings)).toContain(key);
  });
});

describe("the settings for web servers alone", () => {
  const CREDENTIAL = { type: "bearer", file: "/run/token" } as const;

  test("need neither a key nor a mirror, and have the same defaults", () => {
    const { limits, tls, credentials } = parse();
    expect(parseNetworkSettings({})).toEqual({ limits, tls, credentials });
  });

  test("keep what is given", () => {
    const credentials = { "https://reports.example.org/in": CREDENTIAL };
    const tls = { caFile: "/etc/ca.pem", certFile: undefined, keyFile: undefined };
    expect(parseNetworkSettings({ tls, credentials })).toMatchObject({
      ...{ credentials, tls: { caFile: "/etc/ca.pem" } },
    });
  });

  test("send no secret in the clear", () => {
    const credentials = { "http://reports.example.org/in": CREDENTIAL };
    const failure = failureOf(() => parseNetworkSettings({ credentials }));
    expect(failure.code).toBe("CONFIG_INVALID");
    expect(failure.message).toMatch(/^credentials: expected https:/);
  });
});

describe("every key", () => {
  /** The paths of all keys in a JSON schema, with their descriptions. */
  function keysOf(schema: any, path = ""): [string, string][] {
    const below = Object.entries<any>(schema.properties ?? {}).flatMap(([key, value]) => [
      [`${path}${key}`, String(value.description ?? "")] as [string, string],
      ...keysOf(value, `${path}${key}.`),
    ]);
    const items = schema.items ? keysOf(schema.items, `${path}[].`) : [];
    return [...below, ...items];
  }

  test("says what it is for, in a sentence", () => {
    const keys = keysOf(z.toJSONSchema(settingsSchema, { io: "input" }));
    expect(keys.length).toBeGreaterThan(70);
    const silent = keys.filter(([, text]) => !/^.{7,}\.$/.test(text)).map(([key]) => key);
    // Health checks say the host and the port of a connection by their names alone.
    expect(silent.filter((key) => !key.startsWith("health.checks"))).toEqual([]);
  });

  const ADDRESS = "https://mirror.example.org/nixos";
  const times = (count: number, value: unknown): unknown[] => Array<unknown>(count).fill(value);
  const long = (length: number): string => "x".repeat(length);
  const full = {
    ...MINIMAL,
    ...{ storeKeys: [KEY], revokedKeys: [OTHER], clock: "ignore", store: "local?root=/x" },
    credentials: { [ADDRESS]: { type: "basic", file: "/secret" } },
    tls: { caFile: "/ca", certFile: "/cert", keyFile: "/key" },
    reports: { directory: "/reports", url: "https://reports.example.org" },
    sticks: { watch: "1s", reports: true },
    statusSocket: { path: "/socket", group: "users" },
    metrics: { textfile: "/m.prom", listen: "127.0.0.1:9184" },
    activation: { attempts: 1, runner: "child", confirm: "required" },
    reboot: {
      ...{ policy: "now", grace: "0s", window: { cron: "0 2 * * *", duration: "1h" } },
      fleetLock: { url: "https://lock.example.org", group: "a.b-9", id: "web1" },
    },
    maintenance: { windows: [{ cron: "0 2 * * *", duration: "1h" }], jitter: "0s" },
    hooks: { preActivate: ["a"], postCommit: ["b"], postRollback: ["c"], timeout: "1h" },
    generations: { keep: 2 },
    paths: { runtime: "/run/x", machineId: "/etc/id" },
    limits: { minRate: 0, maxRate: 0, rateWindow: "1s", stagingBytes: 0 },
    log: { level: "error", format: "json" },
  };
  const takes = (path: string, value: unknown): boolean =>
    takesAt(settingsSchema, full, path, value);

  test("may be given", () => {
    expect(settingsSchema.safeParse(full).error?.issues).toBeUndefined();
    for (const place of [
      ...["tls", "reports", "sticks", "statusSocket", "metrics", "maintenance", "hooks"],
      ...["reboot.fleetLock"],
    ]) {
      expect(takes(`${place}.more`, 1), place).toBe(false);
    }
    expect(takes("credentials", { [ADDRESS]: { type: "basic", file: "/x", more: 1 } })).toBe(false);
  });

  test.each<[path: string, good: unknown[], bad: unknown[]]>([
    ["mirrors", [[ADDRESS, ...times(15, "file:///a")]], [times(17, ADDRESS)]],
    ["publicKeys", [times(32, KEY)], [times(33, KEY), []]],
    ["storeKeys", [times(32, KEY)], [times(33, KEY), []]],
    ["revokedKeys", [[], times(32, OTHER)], [times(33, OTHER)]],
    ["clock", ["strict"], ["lax"]],
    ["store", ["x"], ["", "a b", "a\n"]],
    ["tls.caFile", ["/a"], ["a", "/"]],
    ["tls.certFile", ["/b"], ["b", undefined]],
    ["tls.keyFile", ["/b"], ["b", undefined]],
    ["reports.directory", ["/r", undefined], ["r"]],
    ["reports.url", ["http://127.0.0.1:80/", undefined], ["file:///reports", "ftp://a"]],
    ["sticks.watch", ["0s", "1d"], ["soon"]],
    ["sticks.reports", [false], ["yes"]],
    ["statusSocket.path", ["/s"], ["s", undefined]],
    ["statusSocket.group", [long(64), undefined], ["", long(65)]],
    ["metrics.textfile", ["/a/b.prom"], ["/a/b.txt", "/a.prom.bak", "b.prom"]],
    ["metrics.listen", ["127.1.20.255:1", "[::1]:65535", "localhost:80"], ["0.0.0.0:80"]],
    ["metrics.listen", [], ["127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1", "127.0.01.1:80"]],
    ["metrics.listen", [], ["x127.0.0.1:80", "localhost:80x", "127.0.0:80", "127.0.0.1234:80"]],
    ["activation.attempts", [1, 100], [0, 101, 1.5]],
    ["activation.runner", ["auto", "systemd"], ["ssh"]],
    ["activation.confirm", ["none"], ["yes"]],
    ["activation.mode", ["switch", "test"], ["kexec"]],
    ["reboot.policy", ["never", "window"], ["soon"]],
    ["reboot.grace", ["0s", "1h"], ["-1s"]],
    ["reboot.fleetLock.group", ["A"], ["", "a b", "a\n", "ä"]],
    ["reboot.fleetLock.id", ["x", undefined], [""]],
    ["reboot.fleetLock.url", ["http://127.0.0.1"], [undefined, "http://a:b@c"]],
    ["maintenance.windows", [[], times(32, full.maintenance.windows[0])], []],
    ["maintenance.windows", [], [times(33, full.maintenance.windows[0])]],
    ["maintenance.jitter", ["1h"], ["x"]],
    ["hooks.preActivate", [times(64, "a"), [long(4096)]], [times(65, "a"), [long(4097)], []]],
    ["hooks.timeout", ["1s", "60m"], ["0s", "3601s"]],
    ["generations.keep", [2, 9], [1, 2.5]],
    ["paths.runtime", ["/run/y"], ["y"]],
    ["paths.machineId", ["/id"], ["id"]],
    ["limits.manifestBytes", [0, 1024 ** 3], [1024 ** 3 + 1]],
    ["limits.redirects", [0, 20], [21, 0.5]],
    ...["minRate", "maxRate", "stagingBytes", "deltaNarBytes", "reserveBytes"].map(
      (key): [string, unknown[], unknown[]] => [`limits.${key}`, [0, 2 ** 40], [-1, 0.5]],
    ),
    ...["rateWindow", "deltaTimeout", "importTimeout", "retryBase", "retryMax"].map(
      (key): [string, unknown[], unknown[]] => [`limits.${key}`, ["1s"], ["0s", "soon"]],
    ),
    ["log.level", ["debug", "info", "warn"], ["trace"]],
    ["log.format", ["auto", "text"], ["xml"]],
    ["drift", ["keep", "revert"], ["adopt"]],
  ])("%s is bounded", (path, good, bad) => {
    for (const value of good) expect(takes(path, value), JSON.stringify(value)).toBe(true);
    for (const value of bad) expect(takes(path, value), JSON.stringify(value)).toBe(false);
  });

  test.each<[Record<string, unknown>, string]>([
    [{ tls: { certFile: "/a" } }, "tls: expected certFile and keyFile together"],
    [{ statusSocket: { group: "a" } }, "statusSocket: expected a path together with a group"],
    [{ metrics: { textfile: "/a" } }, "metrics.textfile: expected a name that ends with .prom"],
    [{ metrics: { textfile: "a.prom" } }, "metrics.textfile: expected an absolute path"],
    [{ metrics: { listen: "x" } }, "expected a loopback address and a port, such as 127.0.0.1:"],
    [
      { metrics: { listen: "localhost:99999" } },
      "metrics.listen: expected a port of at most 65535",
    ],
    [{ reports: { url: "file:///a" } }, "reports.url: expected https:// or http://"],
    [{ hooks: { timeout: "2h" } }, "hooks.timeout: expected a duration of at most 1h"],
    [{ revokedKeys: [KEY] }, "expected a threshold no greater than"],
    [
      { storeKeys: [OTHER], revokedKeys: [OTHER] },
      "storeKeys: expected at least one key that is not revoked",
    ],
  ])("is refused in words: %j", (changes, words) => {
    expect(refusal(changes)).toContain(words);
  });
});

describe("credentials", () => {
  const ADDRESS = MINIMAL.mirrors[0] ?? "";
  const secret = { type: "bearer", file: "/secret" };
  const refused = (mirror: string, credential: unknown, mirrors = [mirror]): string =>
    refusal({ mirrors, credentials: { [mirror]: credential } });

  test("are for mirrors that are configured, and are a file or a credential of systemd", () => {
    const credentials = { [ADDRESS]: secret };
    expect(parse({ credentials }).credentials).toEqual(credentials);
    const named = { [ADDRESS]: { type: "basic", credential: `A.b_c:-${"9".repeat(93)}` } };
    expect(parse({ credentials: named }).credentials).toEqual(named);
    expect(refused("https://other.example.org", secret, [ADDRESS])).toContain(
      "credentials: expected addresses that stand in mirrors",
    );
    for (const both of [{ type: "basic" }, { ...secret, credential: "x" }]) {
      expect(refused(ADDRESS, both)).toContain("expected either a file or a credential");
    }
    for (const credential of ["", "a b", "9".repeat(101), "a/b", "x\n"]) {
      expect(refused(ADDRESS, { type: "basic", credential })).toContain(
        "credential: expected a credential's name",
      );
    }
    expect(refused(ADDRESS, { type: "digest", file: "/x" })).toContain(".type: ");
  });

  test.each(["http://127.0.0.1/a", "http://127.20.3.4:80/", "http://[::1]:80", "http://localhost"])(
    "may go to %s, which is no network",
    (mirror) => {
      expect(parse({ mirrors: [mirror], credentials: { [mirror]: secret } })).toBeDefined();
    },
  );

  test.each([
    ...["http://mirror.example.org", "http://128.0.0.1", "http://localhost.example.org"],
    ...["http://127.0.0.1.example.org", "http://xlocalhost", "file:///mirror", "http://[::2]"],
  ])("do not go to %s in the clear", (mirror) => {
    expect(refused(mirror, secret)).toContain(
      "credentials: expected https:// mirrors: a secret would go over the network in the clear",
    );
  });
});

describe("keys that count", () => {
  test("for store paths are those of releases, unless there are others, without revoked ones", () => {
    const names = (changes: Record<string, unknown>): string[] =>
      parse(changes).storeKeys.map(({ name }) => name);
    expect(names({ publicKeys: [KEY, OTHER] })).toEqual(["fleet-1", "fleet-2"]);
    expect(names({ publicKeys: [KEY], storeKeys: [OTHER] })).toEqual(["fleet-2"]);
    expect(names({ publicKeys: [KEY, OTHER], revokedKeys: [OTHER] })).toEqual(["fleet-1"]);
    expect(names({ storeKeys: [KEY, OTHER], revokedKeys: [OTHER] })).toEqual(["fleet-1"]);
  });

  test("for store paths, if they are apart, leave release keys no commands unless a setting does", () => {
    const allows = (changes: Record<string, unknown>): boolean =>
      parse(changes).health.releaseCommands;
    expect(allows({})).toBe(true);
    expect(allows({ storeKeys: [OTHER] })).toBe(false);
    expect(allows({ storeKeys: [OTHER], health: { releaseCommands: true } })).toBe(true);
    expect(allows({ health: { releaseCommands: false } })).toBe(false);
  });

  test("for releases are told with the revoked ones", () => {
    const policy = trustPolicyOf(parse({ publicKeys: [KEY, OTHER], revokedKeys: [OTHER] }));
    expect(policy.revokedKeys?.map(({ name }) => name)).toEqual(["fleet-2"]);
    expect(refusal({ publicKeys: [KEY, OTHER], revokedKeys: [OTHER], threshold: 2 })).toContain(
      "threshold: ",
    );
  });
});

test("the second copy of the state lies in /run, or beside a state directory of one's own", () => {
  expect(parse().paths.runtime).toBe("/run/nixos-pull");
  expect(parse({ paths: { state: "/srv/pull" } }).paths.runtime).toBe("/srv/pull.run");
  expect(parse({ paths: { state: "/srv/pull", runtime: "/x" } }).paths.runtime).toBe("/x");
  expect(parse().paths.machineId).toBe("/etc/machine-id");
});

test("the rest of what is not given", () => {
  expect(parse()).toMatchObject({
    ...{ revokedKeys: [], credentials: {}, tls: {}, reports: {}, statusSocket: {}, metrics: {} },
    ...{ sticks: { watch: 5_000, reports: false }, clock: "strict", generations: {} },
    limits: { minRate: 1024, rateWindow: 60_000, maxRate: 0 },
  });
  expect(DEFAULT_CONFIG_FILE).toBe("/etc/nixos-pull/config.json");
});

describe("credentials for buckets", () => {
  const S3 = "s3://fleet/mirror?region=eu-central-1";
  const withCredential = (mirror: string, credential: Record<string, unknown>) => ({
    mirrors: [mirror],
    credentials: { [mirror]: credential },
  });

  test.each([
    [S3, { type: "s3", file: "/keys" }],
    [S3, { type: "s3", credential: "keys", profile: "fleet" }],
    [S3, { type: "instance-role" }],
    ["s3://fleet?endpoint=http://127.0.0.1:9000", { type: "s3", file: "/keys" }],
  ])("%s takes %o", (mirror, credential) => {
    const settings = parse(withCredential(mirror, credential));
    expect(settings.credentials).toEqual({ [mirror]: credential });
  });

  test.each([
    [S3, { type: "basic", file: "/keys" }, "s3 and instance-role for s3:// mirrors"],
    ["https://a", { type: "instance-role" }, "s3 and instance-role for s3:// mirrors"],
    [S3, { type: "s3" }, "either a file or a credential"],
    [S3, { type: "instance-role", file: "/keys" }, "neither with the type instance-role"],
    ["https://a", { type: "bearer", file: "/a", profile: "b" }, "a profile only with the type s3"],
    [
      "s3://fleet?endpoint=http://store.example.org",
      { type: "s3", file: "/keys" },
      "a secret would go over the network in the clear",
    ],
  ])("%s does not take %o", (mirror, credential, message) => {
    expect(refusal(withCredential(mirror, credential))).toContain(message);
  });

  test("reports go to no bucket", () => {
    expect(refusal({ reports: { url: S3 } })).toContain("expected https:// or http://");
  });
});
