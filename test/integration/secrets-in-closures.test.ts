import { generateKeyPairSync } from "node:crypto";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { SYSTEM_FILE } from "../support/closure.ts";
import { createOperator, type Operator } from "../support/sandbox.ts";
import { nixosPull, type CommandOutput } from "../support/nixos-pull.ts";

const PRIVATE_KEY = generateKeyPairSync("rsa", { modulusLength: 2048 })
  .privateKey.export({ format: "pem", type: "pkcs8" })
  .toString();

/** A file whose system holds `key.pem` below a store path that is called `name`. */
async function systemHolding({ directory }: Operator, name: string): Promise<string> {
  const tree = join(directory, "tree");
  await mkdir(join(tree, "conf"), { recursive: true });
  await writeFile(join(tree, "conf/key.pem"), PRIVATE_KEY);
  await writeFile(join(tree, "conf/readme"), "nothing here\n");
  const file = join(directory, "system.nix");
  await writeFile(
    file,
    `let
      tree = builtins.path { path = ./tree; name = "${name}"; };
      system = (import ${SYSTEM_FILE} { }).system;
    in
    derivation {
      name = "nixos-system-web1-25.05";
      system = builtins.currentSystem;
      builder = "/bin/sh";
      args = [ "-euc" "PATH=/usr/bin:/bin; mkdir $out; ln -s \${system}/bin $out/bin; ln -s \${system}/etc $out/etc; ln -s \${tree} $out/tree" ];
    }`,
  );
  return file;
}

function publish(
  { mirror, keyFile, directory }: Operator,
  file: string,
  ...args: string[]
): Promise<CommandOutput> {
  const cache = join(directory, "cache");
  return nixosPull([
    ...["publish", "--mirror", mirror, "--key", keyFile, "--cache", cache],
    ...["--host", `web1=${file}`, ...args],
  ]);
}

test("a private key in a configuration stops the publish, again and again, until it is named", async () => {
  const operator = await createOperator();
  const file = await systemHolding(operator, "site-config");
  for (let attempt = 0; attempt < 2; attempt++) {
    const refused = await publish(operator, file);
    expect(refused.exitCode).toBe(10);
    expect(refused.stderr).toContain("SECRET_IN_CLOSURE");
    expect(refused.stderr).toMatch(
      /\/nix\/store\/\w+-site-config\/conf\/key\.pem: PEM private key/,
    );
    expect(refused.stderr).not.toContain("readme");
    expect(await readdir(operator.mirror)).not.toContain("channels");
    expect(await readdir(join(operator.mirror, "archives"))).toEqual([]);
  }

  const other = await publish(operator, file, "--allow-secrets", "site-config/other");
  expect(other.stderr).toContain("SECRET_IN_CLOSURE");

  const named = await publish(operator, file, "--allow-secrets", "site-config/conf/key.pem");
  expect(named).toMatchObject({ exitCode: 0, stderr: expect.not.stringContaining("key.pem") });

  // What has been published is no secret any more.
  expect(await publish(operator, file)).toMatchObject({ exitCode: 0 });
});

test("a package's test key is a warning", async () => {
  const operator = await createOperator();
  const published = await publish(operator, await systemHolding(operator, "tls-tests-1.2"));
  expect(published.exitCode).toBe(0);
  expect(published.stderr).toMatch(/-tls-tests-1\.2\/conf\/key\.pem: PEM private key/);
});
