import { execFileSync, spawnSync } from "node:child_process";
import { mkdir, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createHost, createOperator, type Operator, type SandboxHost } from "../support/sandbox.ts";

const hasAge = spawnSync("age", ["--version"]).error === undefined;
const PLAINTEXT = "correct horse battery staple, in the clear";

/**
 * A system as agenix and sops-nix make them: ciphertext in the store, decrypted by the
 * activation with a key that is the host's alone.
 */
async function systemWithSecret(
  { directory }: Operator,
  recipient: string,
  generation: string,
): Promise<string> {
  execFileSync("age", ["--encrypt", "-r", recipient, "-o", join(directory, "password.age")], {
    input: PLAINTEXT,
  });
  const file = join(directory, `system-${generation}.nix`);
  await writeFile(
    file,
    `derivation {
      name = "nixos-system-web1-${generation}";
      system = builtins.currentSystem;
      builder = "/bin/sh";
      secret = ./password.age;
      switch = builtins.toFile "switch-to-configuration" ''
        #!/bin/sh
        set -eu
        PATH=$PATH:/usr/bin:/bin
        root=$NIXOS_PULL_SANDBOX_ROOT
        toplevel=$(cd "$(dirname "$0")/.." && pwd)
        mkdir -p "$root/run/secrets"
        (umask 077; age --decrypt -i "$root/etc/host-key" -o "$root/run/secrets/password" "$toplevel/secret")
        ln -sfn "$toplevel" "$root/run/current-system"
      '';
      args = [ "-euc" "PATH=/usr/bin:/bin; mkdir -p $out/bin $out/etc/systemd/system; echo '[Service]' > $out/etc/systemd/system/nixos-pull.service; ln -s $secret $out/secret; cp $switch $out/bin/switch-to-configuration; chmod +x $out/bin/switch-to-configuration" ];
    }`,
  );
  return file;
}

/** A host with a key of its own; gives the recipient that secrets are encrypted for. */
async function hostWithKey(
  operator: Operator,
  kind: "age" | "ssh",
): Promise<{ host: SandboxHost; recipient: string }> {
  const mirrors = [`file://${operator.mirror}`];
  const host = await createHost({ mirrors, publicKeys: [operator.publicKey] });
  const key = join(host.root, "etc/host-key");
  await mkdir(join(host.root, "etc"));
  if (kind === "ssh") {
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", key]);
    return { host, recipient: (await readFile(`${key}.pub`, "utf8")).trim() };
  }
  execFileSync("age-keygen", ["-o", key], { stdio: "ignore" });
  return { host, recipient: execFileSync("age-keygen", ["-y", key], { encoding: "utf8" }).trim() };
}

/** Whether a file below a directory holds the text. */
async function holds(directory: string, text: string): Promise<boolean> {
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    if ((await readFile(join(entry.parentPath, entry.name))).includes(text)) return true;
  }
  return false;
}

describe.skipIf(!hasAge)("a secret that is encrypted for a host", () => {
  test.each(["age", "ssh"] as const)(
    "is ciphertext on the mirror and in the store, and in the clear on the host alone (%s key)",
    async (kind) => {
      const operator = await createOperator();
      const { host, recipient } = await hostWithKey(operator, kind);
      const file = await systemWithSecret(operator, recipient, "1");
      const published = await operator.publish({ web1: file }, "--compression", "none");
      expect(published.stderr).not.toContain("key");
      const applied = await host.run("apply");
      expect(applied.exitCode, applied.stderr).toBe(0);

      const secret = join(host.root, "run/secrets/password");
      expect(await readFile(secret, "utf8")).toBe(PLAINTEXT);
      expect((await stat(secret)).mode & 0o777).toBe(0o600);
      // The NARs are not compressed: what they hold can be searched for.
      for (const place of [operator.mirror, join(host.root, "nix/store"), host.state]) {
        expect(await holds(place, PLAINTEXT)).toBe(false);
      }
      for (const place of [operator.mirror, join(host.root, "nix/store")]) {
        expect(await holds(place, "age-encryption.org/v1")).toBe(true);
      }
    },
  );

  test("that was encrypted for another host ends in a rollback", async () => {
    const operator = await createOperator();
    const { host, recipient } = await hostWithKey(operator, "age");
    await operator.publish({ web1: await systemWithSecret(operator, recipient, "1") });
    expect((await host.run("apply")).exitCode).toBe(0);
    const before = await host.profileToplevel();

    const other = await hostWithKey(operator, "age");
    await operator.publish({ web1: await systemWithSecret(operator, other.recipient, "2") });
    const applied = await host.run("apply");
    expect(applied.exitCode).toBe(8);
    expect(applied.stderr).toContain("ACTIVATION_FAILED");
    expect(await host.profileToplevel()).toBe(before);
    expect(await readFile(join(host.root, "run/secrets/password"), "utf8")).toBe(PLAINTEXT);
  });
});
