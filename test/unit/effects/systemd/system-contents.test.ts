import { mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { machine } from "node:os";
import { expect, test } from "vitest";
import { platformOf } from "../../../../agent/core/formats/platform.ts";
import {
  hasAgentIn,
  platformIn,
  systemContentsOf,
} from "../../../../agent/effects/systemd/system-contents.ts";
import { samplePath } from "../../../support/sample-release.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const TOPLEVEL = samplePath("nixos-system-web1-1");

/** The contents of a system with these files. */
async function systemWith(files: Readonly<Record<string, string>>) {
  const root = await temporaryDirectory();
  for (const [name, text] of Object.entries(files)) {
    const path = join(root, TOPLEVEL, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
  }
  const contents = systemContentsOf({ realPath: (path) => join(root, path) });
  return { contents, units: join(root, TOPLEVEL, "etc/systemd/system") };
}

test("a unit is defined by its text and its drop-ins", async () => {
  const { contents } = await systemWith({
    "etc/systemd/system/web.service": "[Service]",
    "etc/systemd/system/web.service.d/b.conf": "B=1",
    "etc/systemd/system/web.service.d/a.conf": "A=1",
  });
  expect(await contents.unitDefinition(TOPLEVEL, "web.service")).toBe("[Service]\nA=1\nB=1");
});

test("an instance is defined by its template, with the drop-ins of both", async () => {
  const { contents } = await systemWith({
    "etc/systemd/system/web@.service": "[Service]",
    "etc/systemd/system/web@.service.d/all.conf": "ALL=1",
    "etc/systemd/system/web@3.service.d/one.conf": "ONE=1",
  });
  expect(await contents.unitDefinition(TOPLEVEL, "web@3.service")).toBe("[Service]\nALL=1\nONE=1");
});

test("a unit that is not there or masked has no definition", async () => {
  const { contents, units } = await systemWith({ "etc/systemd/system/web.service": "" });
  await symlink("/dev/null", join(units, "masked.service"));
  expect(await contents.unitDefinition(TOPLEVEL, "masked.service")).toBeNull();
  expect(await contents.unitDefinition(TOPLEVEL, "other.service")).toBeNull();
  expect(await contents.unitDefinition(samplePath("another"), "web.service")).toBeNull();
});

test("inhibitors are read if the system has them", async () => {
  const { contents } = await systemWith({ "switch-inhibitors": '{"dbus":"broker"}' });
  expect(await contents.inhibitors(TOPLEVEL)).toEqual(new Map([["dbus", "broker"]]));
  expect(await contents.inhibitors(samplePath("another"))).toBeNull();
});

test("a system has the name of its agent's configuration, else its hostname, else none", async () => {
  const config = { "etc/nixos-pull/config.json": '{"hostname":"edge.example.org"}' };
  const hostname = { "etc/hostname": "edge\n" };
  for (const [files, name] of [
    [{ ...config, ...hostname }, "edge.example.org"],
    [hostname, "edge"],
    [{}, null],
  ] as const) {
    const { contents } = await systemWith(files);
    expect(await contents.name(TOPLEVEL)).toBe(name);
  }
});

test("a system has the specialisations that are links to store paths", async () => {
  const debug = samplePath("nixos-system-web1-debug");
  const { contents, units } = await systemWith({ "specialisation/note": "no system" });
  const directory = join(units, "../../../specialisation");
  await symlink(debug, join(directory, "debug"));
  await symlink("/etc/passwd", join(directory, "other"));
  expect(await contents.specialisations(TOPLEVEL)).toEqual(new Map([["debug", debug]]));
  const { contents: none } = await systemWith({});
  expect(await none.specialisations(TOPLEVEL)).toEqual(new Map());
});

test("a system has an agent if it has its unit, and that is not masked", async () => {
  const root = await temporaryDirectory();
  expect(await hasAgentIn(root)).toBe(false);
  const units = join(root, "etc/systemd/system");
  await mkdir(units, { recursive: true });
  await symlink("/dev/null", join(units, "nixos-pull.service"));
  expect(await hasAgentIn(root)).toBe(false);
  const { units: whole } = await systemWith({ "etc/systemd/system/nixos-pull.service": "" });
  expect(await hasAgentIn(join(whole, "../../.."))).toBe(true);
});

test.each([
  ["its file says so", { system: "aarch64-linux" }, "aarch64-linux"],
  ["the file ends with a line", { system: "aarch64-linux\n" }, "aarch64-linux"],
  ["nothing says so", { "bin/switch-to-configuration": "#!/bin/sh\n" }, null],
  ["the file says something else", { system: "../../etc" }, null],
  ["there is nothing", { "nixos-version": "1" }, null],
])("the platform of a system is known if %s", async (_, files, expected) => {
  const { units } = await systemWith(files);
  expect(await platformIn(join(units, "../../.."))).toBe(expected);
});

test("the platform of a system without the file is that of its switch program", async () => {
  const { units } = await systemWith({ "nixos-version": "1" });
  const root = join(units, "../../..");
  await mkdir(join(root, "bin"));
  await symlink(process.execPath, join(root, "bin/switch-to-configuration"));
  expect(await platformIn(root)).toBe(platformOf(machine()));
});
