import { describe, expect, it } from "vitest";
import { generateKey } from "../../agent/core/formats/signing-key.ts";
import { configured, evaluate, noNix, PUBLIC_KEY } from "./nix.ts";

const failures = async (settings: string): Promise<string[]> =>
  (await evaluate("failures", configured(settings))) as string[];

const pair = generateKey("releases-2");

describe.skipIf(noNix)("the module's assertions", () => {
  it.each([
    ["nothing beyond the minimum", ""],
    ["a key with the newline of its file", `publicKeys = [ "${PUBLIC_KEY}\\n" ];`],
    ["two of two keys", `publicKeys = [ "${PUBLIC_KEY}" "${pair.public}" ]; threshold = 2;`],
    ["a cron expression alone", 'poll.cron = "0 3 * * *";'],
    [
      "reboots in the maintenance windows",
      'reboot.policy = "window"; maintenance.windows = [ { cron = "0 3 * * *"; duration = "1h"; } ];',
    ],
    [
      "credentials on https and on loopback",
      `mirrors = [ "https://a" "http://127.0.0.1:8080" ];
       credentials = {
         "https://a" = { type = "basic"; file = "/a"; };
         "http://127.0.0.1:8080" = { type = "bearer"; credential = "b"; };
       };`,
    ],
    [
      "credentials for buckets",
      `mirrors = [ "s3://fleet/a?region=eu-west-1" "s3://fleet?endpoint=http://127.0.0.1:9000" ];
       credentials = {
         "s3://fleet/a?region=eu-west-1" = { type = "s3"; file = "/a"; profile = "fleet"; };
         "s3://fleet?endpoint=http://127.0.0.1:9000" = { type = "instance-role"; };
       };`,
    ],
    [
      "a complete check of each kind",
      `health.checks = [
         { name = "a"; kind = "command"; command = [ "true" ]; }
         { name = "b"; kind = "http"; url = "http://localhost"; status = 204; }
         { name = "c"; kind = "tcp"; host = "localhost"; port = 22; }
       ];`,
    ],
    ["reports on a stick", 'mirrors = [ "file:///mnt/usb" ]; sticks.reports = true;'],
    ["a state directory that only begins like a volatile one", 'paths.state = "/runtime/pull";'],
  ])("accept %s", async (_, settings) => {
    expect(await failures(settings)).toEqual([]);
  });

  it("refuse a system that cannot be switched", async () => {
    const configuration = `{ imports = [ (${configured("")}) ]; system.switch.enable = false; }`;
    expect(await evaluate("failures", configuration)).toEqual([
      expect.stringMatching(/system\.switch\.enable` is off.*Turn it on/s),
    ]);
  });

  it.each([
    ["no mirror", "mirrors = [ ];", /mirrors` is empty.*Name at least one/s],
    ["no key", "publicKeys = [ ];", /publicKeys` is empty.*NAME:BASE64/s],
    [
      "a secret key",
      `publicKeys = [ "${pair.secret}" ];`,
      /holds a SECRET key \(releases-2\).*make a new pair/s,
    ],
    [
      "a secret key without its name",
      `publicKeys = [ "${pair.secret.replace("releases-2:", "")}" ];`,
      /holds a SECRET key \(one without a name\)/,
    ],
    [
      "a key that lost a character",
      `publicKeys = [ "${pair.public.slice(0, -2)}=" ];`,
      /no public key \(releases-2\).*44 characters/s,
    ],
    ["more signatures than keys", "threshold = 2;", /threshold` is 2, but .*1 distinct.*Lower/s],
    [
      "a secret key that is to sign store paths",
      `storeKeys = [ "${pair.secret}" ];`,
      /holds a SECRET key \(releases-2\)/,
    ],
    [
      "more signatures than keys that are not revoked",
      `publicKeys = [ "${PUBLIC_KEY}" "${pair.public}" ]; revokedKeys = [ "old:${pair.public.replace("releases-2:", "")}" ]; threshold = 2;`,
      /1 distinct key\(s\) that are not revoked/,
    ],
    [
      "a private key in the Nix store",
      'tls = { certFile = "/etc/c"; keyFile = "/nix/store/00000000000000000000000000000000-key.pem"; };',
      /-key.pem is to be secret, but everyone.*outside of it/s,
    ],
    [
      "more signatures than distinct keys",
      `publicKeys = [ "${PUBLIC_KEY}" "other${PUBLIC_KEY}" ]; threshold = 2;`,
      /1 distinct/,
    ],
    [
      "an interval and a cron expression",
      'poll = { interval = "1h"; cron = "0 3 * * *"; };',
      /poll\.interval` and .*poll\.cron` are both set.*Keep one/s,
    ],
    [
      "reboots in a window that is never open",
      'reboot.policy = "window";',
      /reboot\.policy` is "window", but neither .*reboot\.window` nor\s.*maintenance\.windows` is set.*Say when/s,
    ],
    [
      "state in /run",
      'paths.state = "/run/nixos-pull";',
      /paths\.state` is \/run\/nixos-pull, .*reboot/,
    ],
    [
      "a credential that names no secret",
      'credentials."https://releases.example.org" = { type = "basic"; };',
      /credentials` for https:\/\/releases\.example\.org needs exactly one.*Name a credential/s,
    ],
    [
      "a credential that names two secrets",
      'credentials."https://releases.example.org" = { type = "basic"; credential = "a"; file = "/a"; };',
      /needs exactly one of `credential` and\s+`file`/,
    ],
    [
      "a credential of no mirror",
      'credentials."https://other.example.org" = { type = "basic"; file = "/a"; };',
      /has https:\/\/other\.example\.org, which .*mirrors` does not.*exactly as in mirrors/s,
    ],
    [
      "a secret that goes over the network in the clear",
      'mirrors = [ "http://m" ]; credentials."http://m" = { type = "basic"; file = "/a"; };',
      /http:\/\/m would go over the network in the clear.*https:\/\//s,
    ],
    [
      "keys for a bucket that go over the network in the clear",
      `mirrors = [ "s3://fleet?endpoint=http://store" ];
       credentials."s3://fleet?endpoint=http://store" = { type = "s3"; file = "/a"; };`,
      /endpoint=http:\/\/store would go over the network in the clear/s,
    ],
    [
      "a password for a bucket",
      'mirrors = [ "s3://fleet" ]; credentials."s3://fleet" = { type = "basic"; file = "/a"; };',
      /for s3:\/\/fleet has a type of another kind of mirror/,
    ],
    [
      "a role with a file",
      `mirrors = [ "s3://fleet" ];
       credentials."s3://fleet" = { type = "instance-role"; file = "/a"; };`,
      /for s3:\/\/fleet needs exactly one.*`instance-role` has neither/s,
    ],
    ["a certificate without its key", 'tls.certFile = "/c";', /only together.*other one too/s],
    [
      "a socket's group without a socket",
      'statusSocket.group = "monitoring";',
      /without .*statusSocket\.path`.*Say where/s,
    ],
    [
      "a time zone without a cron expression",
      'poll.timezone = "Europe/Berlin";',
      /without .*poll\.cron`.*leave the time zone null/s,
    ],
    [
      "a check without what it needs",
      'health.checks = [ { name = "db"; kind = "tcp"; host = "localhost"; } ];',
      /fit together: db: port is missing\./,
    ],
    [
      "a check with what is another kind's",
      'health.checks = [ { name = "web"; kind = "http"; url = "http://localhost"; command = [ "true" ]; } ];',
      /web: command is of another kind than http.*keys of its own kind/s,
    ],
    ["no key for store paths", "storeKeys = [ ];", /storeKeys` has no key.*leave it null/s],
    [
      "store keys that are all revoked",
      `storeKeys = [ "${pair.public}" ]; revokedKeys = [ "${pair.public}" ];`,
      /storeKeys` has no key that is not revoked/,
    ],
    [
      "reports on sticks where no mirror is one",
      "sticks.reports = true;",
      /no address in .*mirrors` begins with\s+file:\/\/.*Add the directory/s,
    ],
    ["state in /tmp", 'paths.state = "/tmp";', /paths\.state` is \/tmp, .*reboot/],
  ])("refuse %s, and say what to do", async (_, settings, text) => {
    const found = await failures(settings);
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(text);
  });

  it.each([
    ["health.mirror = false;", /releases? that\s+cuts this host off.*add a check/s],
    [
      'reboot.window = { cron = "0 3 * * *"; duration = "1h"; };',
      /reboot\.window` has no effect.*Set the policy to "window"/s,
    ],
    [
      'reboot.fleetLock.url = "https://fleetlock.example.org";',
      /reboot\.fleetLock` has no effect.*"window" or "now"/s,
    ],
  ])("warn of what has no effect or takes the net away: %s", async (settings, text) => {
    expect(await failures(settings)).toEqual([]);
    expect(await evaluate("warnings", configured(settings))).toEqual([expect.stringMatching(text)]);
  });

  it.each([
    'mirrors = [ "file:///mnt/usb" ]; health.mirror = false;',
    'health = { mirror = false; checks = [ { name = "a"; kind = "tcp"; host = "gw"; port = 22; } ]; };',
    'reboot = { policy = "now"; fleetLock.url = "https://fleetlock.example.org"; };',
  ])("do not warn of %s", async (settings) => {
    expect(await evaluate("warnings", configured(settings))).toEqual([]);
  });

  it("never repeat a secret", async () => {
    const { secret } = pair;
    const base64 = secret.replace("releases-2:", "");
    for (const text of [secret, base64, `${base64}:releases-2`]) {
      const found = await failures(`publicKeys = [ "${text}" ];`);
      expect(found.join()).not.toContain(secret.slice(20, 60));
    }
  });

  it("warn of a credential that nobody loads", async () => {
    const settings =
      'credentials."https://releases.example.org" = { type = "bearer"; credential = "token"; };';
    expect(await evaluate("warnings", configured(settings))).toEqual([
      expect.stringMatching(/names the systemd credential token/),
    ]);
    const loaded = `{ imports = [ (${configured(settings)}) ]; services.nixos-pull.credentialFiles.token = "/run/t"; }`;
    expect(await evaluate("warnings", loaded)).toEqual([]);
  });

  it("warn where system.autoUpgrade works on the same system", async () => {
    const both = `{ imports = [ ${configured()} ]; system.autoUpgrade.enable = true; }`;
    expect(await evaluate("warnings", both)).toEqual([
      expect.stringContaining("Turn one of them off"),
    ]);
    expect(await evaluate("warnings", configured())).toEqual([]);
  });
});
