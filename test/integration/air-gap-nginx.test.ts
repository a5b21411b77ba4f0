import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { startNginx, type NginxServer } from "../../scripts/bench/support/nginx.mjs";
import { buildSystem } from "../support/closure.ts";
import { nixosPull } from "../support/nixos-pull.ts";
import { createHost, createOperator } from "../support/sandbox.ts";
import { temporaryDirectory } from "../support/temporary.ts";

async function nginxOver(directory: string): Promise<NginxServer> {
  const server = await startNginx(directory, join(await temporaryDirectory(), "nginx"));
  onTestFinished(() => {
    server.stop();
  });
  return server;
}

const ROW = { parts: 4, partBytes: 300_000 };

test("a site without a network is served by its own nginx, out of what a stick brought", async () => {
  const operator = await createOperator();
  const [first, second] = [
    await buildSystem({ ...ROW, generation: "1" }),
    await buildSystem({ ...ROW, generation: "2" }),
  ];
  await operator.publish({ web1: first });
  const home = await nginxOver(operator.mirror);
  const [stick, site] = [await temporaryDirectory(), await temporaryDirectory()];

  /** From the server at home to a stick, proved there, and on to the site's server. */
  const travel = async (): Promise<{ out: any; in: any }> => {
    const copied = async (from: string, to: string): Promise<any> => {
      const output = await nixosPull([
        ...["mirror", from, to, "--public-key", operator.publicKey, "--json"],
      ]);
      expect(output.exitCode, output.stderr).toBe(0);
      return JSON.parse(output.stdout).copied;
    };
    const out = await copied(home.url, stick);
    const proof = await nixosPull(["verify", stick, "--public-key", operator.publicKey]);
    expect(proof.exitCode, proof.stdout).toBe(0);
    return { out, in: await copied(stick, site) };
  };
  expect(await travel()).toMatchObject({ out: { archives: 1 }, in: { archives: 1 } });
  const server = await nginxOver(site);
  const host = await createHost({ mirrors: [server.url], publicKeys: [operator.publicKey] });
  const applied = await host.run("apply");
  expect(applied.exitCode, applied.stderr).toBe(0);
  expect(await host.profileToplevel()).toBe(first);

  await operator.publish({ web1: second });
  // The site hears of nothing until the stick comes.
  expect((await host.json("check")).value).toMatchObject({ decision: "active" });
  // The new paths alone, and a patch for the index.
  const news = await travel();
  expect(news).toMatchObject({
    out: { archives: 1, present: 1, patches: 1 },
    in: { archives: 1, present: 1, patches: 1 },
  });
  expect(news.out.bytes).toBeLessThan(100_000);
  const before = server.requests().length;
  const updated = await host.run("apply");
  expect(updated.exitCode, updated.stderr).toBe(0);
  expect(await host.profileToplevel()).toBe(second);
  const requests = server.requests().slice(before);
  expect(requests.filter(({ path }) => path.endsWith(".tar")).map(({ status }) => status)).toEqual(
    requests.filter(({ path }) => path.endsWith(".tar")).map(() => 206),
  );
  expect(requests.reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThan(100_000);
  expect((await host.json("check")).value).toMatchObject({ decision: "active" });
  expect(server.requests().at(-1)).toMatchObject({ status: 304 });

  // A stick that somebody altered brings nothing to the site.
  const manifest = join(stick, "channels/stable/manifest.json");
  const text = await readFile(manifest, "utf8");
  await writeFile(manifest, text.replace(/"payload": ?"e/, '"payload":"f'));
  const refused = await nixosPull(["mirror", stick, site, "--public-key", operator.publicKey]);
  expect(refused.exitCode).toBe(4);
  expect((await host.json("check")).value).toMatchObject({ decision: "active" });
});
