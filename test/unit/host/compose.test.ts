import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { hashMachineId } from "../../../agent/core/machine-id.ts";
import { parseSettings, type Settings } from "../../../agent/core/settings.ts";
import { EMPTY_RECORD } from "../../../agent/core/update/record.ts";
import { DirectoryMirror } from "../../../agent/effects/mirror/directory-mirror.ts";
import { HttpMirror } from "../../../agent/effects/mirror/http-mirror.ts";
import { sandboxManager, systemdManager } from "../../../agent/effects/systemd/service-manager.ts";
import { composeTools, mirrorsOf } from "../../../agent/host/compose.ts";
import { failureOf } from "../../support/failure.ts";
import { lockServer } from "../../support/lock-server.ts";
import { recordingLog } from "../../support/recording-log.ts";
import { sampleDigest } from "../../support/sample-release.ts";
import { temporaryDirectory } from "../../support/temporary.ts";
import { testKey } from "../../support/test-key.ts";

/** Settings of a host whose files are all below one directory. */
function settingsIn(directory: string, config: object = {}): Settings {
  return parseSettings(
    {
      ...{ mirrors: ["file:///mnt/stick"], publicKeys: [testKey("fleet-1").publicKey.text] },
      store: `local?root=${directory}`,
      paths: {
        state: join(directory, "state"),
        staging: join(directory, "staging"),
        runtime: join(directory, "run"),
        gcRoots: join(directory, "roots"),
        machineId: join(directory, "machine-id"),
        boot: join(directory, "boot"),
      },
      ...config,
    },
    "web1",
  );
}

const composed = (settings: Settings, options = {}) =>
  composeTools(settings, recordingLog(), options);

describe("the mirrors", () => {
  test("are of the kind that their address says, in the settings' order", () => {
    const mirrors = ["https://a.example.org/", "file:///mnt/stick"];
    const made = mirrorsOf(settingsIn("/nowhere", { mirrors }));
    expect(made.map(({ address }) => address)).toEqual(mirrors);
    expect(made[0]).toBeInstanceOf(HttpMirror);
    expect(made[1]).toBeInstanceOf(DirectoryMirror);
  });

  test("have an address that is understood", () => {
    const settings = { ...settingsIn("/nowhere"), mirrors: ["ftp://a.example.org/"] };
    const error = failureOf(() => mirrorsOf(settings));
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.message).toMatch(/^mirrors: expected .*https/);
  });
});

describe("the tools of a host", () => {
  test("leave this machine's systemd alone if another store is meant", async () => {
    const directory = await temporaryDirectory();
    const tools = composed(settingsIn(directory));
    expect(tools.services).toBe(sandboxManager);
    expect(await tools.bootLoader.look()).toMatchObject({ name: null });
    expect(await tools.bootLoader.kernelPlace()).toMatchObject({
      directory: join(directory, "boot"),
    });
    expect([tools.isService, tools.rebootLock]).toEqual([false, null]);
    expect(tools.ownProgram[0]).toBe(process.execPath);
  });

  test("use systemd if the settings say so", () => {
    const activation = { runner: "systemd" };
    const tools = composed(settingsIn("/nowhere", { activation }), { isService: true });
    expect(tools.services).toBe(systemdManager);
    expect(tools.isService).toBe(true);
    const child = composed(
      settingsIn("/nowhere", { store: "auto", activation: { runner: "child" } }),
    );
    expect(child.services).toBe(sandboxManager);
  });

  test("keep their files where the settings say", async () => {
    const directory = await temporaryDirectory();
    const identity = "0123456789abcdef0123456789abcdef\n";
    await writeFile(join(directory, "machine-id"), identity);
    const tools = composed(settingsIn(directory));
    expect(await tools.machineId()).toBe(hashMachineId(identity));
    await tools.state.prepare();
    await mkdir(join(directory, "roots"), { recursive: true });
    const memory = { channel: "stable", sequence: 7, digest: sampleDigest("7") };
    const createdAt = "2026-02-01T00:00:00.000Z";
    await tools.state.save({ ...EMPTY_RECORD, trust: [{ ...memory, createdAt }] });
    expect(JSON.parse(await readFile(join(directory, "roots.trust.json"), "utf8"))).toMatchObject({
      value: [memory],
    });
    expect(tools.locks.fileOf("agent")).toContain(join(directory, "state"));
    expect((await tools.hostKey()).publicKey.name).toBe("host-web1");
    await tools.files.write("x.json", {});
    await tools.commands.hold({ at: createdAt, until: null, reason: null });
    await tools.spool.write({
      envelope: "{}",
      targets: [{ target: "url", failures: 0, retryAt: createdAt }],
    });
    await tools.history.append({ at: createdAt, event: "Held", state: "Idle" });
    const files = await readdir(join(directory, "state"));
    expect(files).toEqual(
      expect.arrayContaining(["x.json", "hold.json", "report.pending.json", "state.json"]),
    );
  });

  test("take a slot of the FleetLock server by the name that the settings give", async () => {
    const { url, asked } = await lockServer();
    const fleetLock = { url, group: "web" };
    await composed(settingsIn("/nowhere", { reboot: { fleetLock } })).rebootLock?.take();
    const named = { ...fleetLock, id: "rack 7" };
    await composed(settingsIn("/nowhere", { reboot: { fleetLock: named } })).rebootLock?.take();
    expect(asked.map(({ body }) => body)).toEqual([
      { client_params: { id: "web1", group: "web" } },
      { client_params: { id: "rack 7", group: "web" } },
    ]);
  });

  test("abandon a fetch with all that it left", async () => {
    const directory = await temporaryDirectory();
    const staging = join(directory, "staging");
    const archive = sampleDigest("archive");
    await mkdir(join(staging, archive, "nar"), { recursive: true });
    await composed(settingsIn(directory)).closures.abandon();
    expect(await readdir(directory)).not.toContain("staging");
  });
});
