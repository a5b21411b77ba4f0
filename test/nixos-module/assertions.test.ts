import { describe, expect, it } from "vitest";
import { generateKey } from "../../agent/core/signing-key.ts";
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
    ["a state directory that only begins like a volatile one", 'paths.state = "/runtime/pull";'],
  ])("accept %s", async (_, settings) => {
    expect(await failures(settings)).toEqual([]);
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
    ["state in /tmp", 'paths.state = "/tmp";', /paths\.state` is \/tmp, .*reboot/],
  ])("refuse %s, and say what to do", async (_, settings, text) => {
    const found = await failures(settings);
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(text);
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
