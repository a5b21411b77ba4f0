import { execFileSync } from "node:child_process";
import {
  chmod,
  chown,
  cp,
  link,
  lstat,
  mkdir,
  readFile,
  readdir,
  readlink,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { STICK_CONTENTS_FILE } from "../../../agent/core/formats/stick-contents.ts";
import { nixosPull, type CommandOutput } from "../../support/nixos-pull.ts";
import {
  publishReleases,
  sealManifest,
  type ReleaseSeries,
  type TestMirror,
} from "../../support/release-series.ts";
import { suiteDirectory } from "../../support/suite-directory.ts";
import { temporaryDirectory } from "../../support/temporary.ts";

/** Name of an unfinished archive that nobody wants any more. */
const OTHER = "0".repeat(64);

const directory = suiteDirectory();
let series: ReleaseSeries;
let draft: string;

/** Another directory of the operator's machine, to which links lead. */
let victim: string;
let before: readonly string[];
/** Release 2 comes from here. */
let source: TestMirror;
/** A stick or mirror with release 1, prepared by somebody else. */
let target: TestMirror;

beforeAll(async () => {
  series = await publishReleases(directory);
  draft = join(directory, "draft.json");
  await writeFile(draft, sealManifest({ ...series.manifests[2], sequence: 9 }, series.secretKey));
});

beforeEach(async () => {
  victim = join(await temporaryDirectory(), "victim");
  source = await series.mirror(2);
  target = await series.mirror(1);
  // What was published after the release in force is not known here, nor to the key's memory.
  await rm(join(directory, "key.memory"), { force: true });
  await rm(join(source.directory, ".publish/releases/stable/0-3.json"));
  for (const later of [2, 3]) await rm(at(`.publish/releases/stable/0-${later}.json`));
  // Whatever name is used below a link, something of that name could be lost.
  await mkdir(join(victim, "work-AbCdEf"), { recursive: true });
  await mkdir(join(victim, "stable"));
  const { tar } = namesOf(2);
  const files = ["precious", "work-AbCdEf/precious", "lock", "manifest.json", "web1.json"];
  for (const file of [...files, tar, `${OTHER}.tar`, "stable/manifest.json", "stable/0-1.json"]) {
    await writeFile(join(victim, file), `precious ${file}`);
  }
  before = await contentsOf(victim);
});

function namesOf(sequence: 1 | 2): { tar: string } {
  return { tar: basename(source.archiveFile(sequence)) };
}

/** Every file, directory and link below a directory, with what it holds. */
async function contentsOf(top: string): Promise<string[]> {
  const names = (await readdir(top, { recursive: true })).sort();
  return Promise.all(
    names.map(async (name) => {
      const path = join(top, name);
      const found = await lstat(path);
      if (found.isSymbolicLink()) return `${name} -> ${await readlink(path)}`;
      if (!found.isFile()) return `${name} ${found.mode.toString(8)}`;
      return `${name} ${found.mode.toString(8)} ${await readFile(path, "base64")}`;
    }),
  );
}

/** Puts a link in the place of whatever is there. */
async function plantLink(path: string, to: string): Promise<string> {
  await rm(path, { recursive: true, force: true });
  await mkdir(dirname(path), { recursive: true });
  await symlink(to, path);
  return path;
}

async function plantFifo(path: string): Promise<string> {
  await rm(path, { recursive: true, force: true });
  await mkdir(dirname(path), { recursive: true });
  execFileSync("mkfifo", [path]);
  return path;
}

/** The command ended with this code, named what was planted, and touched nothing that it leads to. */
async function expectRefusal(
  output: CommandOutput,
  planted: string,
  { code = "UNSAFE_FILE", exit = 7 }: { code?: string; exit?: number } = {},
): Promise<void> {
  expect(output.stderr).toContain(`${code}:`);
  expect(output.stderr).toContain(planted);
  expect(output.exitCode).toBe(exit);
  await expectUntouched();
}

async function expectUntouched(): Promise<void> {
  expect(await contentsOf(victim)).toEqual(before);
}

/** Commands that write to a mirror. */
const WRITERS: Record<string, () => Promise<CommandOutput>> = {
  mirror: () =>
    nixosPull([
      ...["mirror", source.directory, target.directory],
      ...["--public-key", series.publicKey],
    ]),
  "mirror --keep": () =>
    nixosPull([
      ...["mirror", source.directory, target.directory, "--keep", "1"],
      ...["--public-key", series.publicKey],
    ]),
  publish: () =>
    nixosPull([
      ...["publish", "--mirror", target.directory, "--key", series.keyFile],
      ...["--host", `web1=${series.toplevels[2]}`],
    ]),
  "publish --refresh": () =>
    nixosPull([...["publish", "--mirror", target.directory, "--key", series.keyFile, "--refresh"]]),
  "publish --from-draft": () =>
    nixosPull([
      ...["publish", "--mirror", target.directory, "--from-draft", draft],
      ...["--public-key", series.publicKey],
    ]),
  "sign MIRROR": () => nixosPull(["sign", target.directory, "--key", series.keyFile]),
  "release pause": () =>
    nixosPull([
      ...["release", "pause", "a test", "--mirror", target.directory, "--key", series.keyFile],
    ]),
  prune: () => nixosPull(["prune", target.directory, "--keep", "1"]),
};

/** Commands that only look at one. */
const DRY: Record<string, () => Promise<CommandOutput>> = {
  "mirror --dry-run": () =>
    nixosPull([
      ...["mirror", source.directory, target.directory, "--dry-run"],
      ...["--public-key", series.publicKey],
    ]),
  "prune --dry-run": () => nixosPull(["prune", target.directory, "--keep", "1", "--dry-run"]),
};

const EVERY = Object.keys({ ...WRITERS, ...DRY });
const ALL_WRITERS = Object.keys(WRITERS);
const COPIES = ["mirror"];

interface Plant {
  readonly what: string;
  /** Gives the path of what is there now. */
  readonly plant: () => Promise<string>;
  readonly commands: readonly string[];
}

const at = (name: string): string => join(target.directory, name);

const PLANTS: readonly Plant[] = [
  {
    what: "a link at .publish",
    plant: () => plantLink(at(".publish"), victim),
    commands: EVERY,
  },
  {
    what: "a link at .publish/lock",
    plant: () => plantLink(at(".publish/lock"), join(victim, "precious")),
    commands: EVERY,
  },
  {
    what: "a FIFO at .publish/lock",
    plant: () => plantFifo(at(".publish/lock")),
    commands: ["mirror", "prune --dry-run"],
  },
  {
    what: "a link at archives",
    plant: () => plantLink(at("archives"), victim),
    commands: ALL_WRITERS,
  },
  {
    what: "a link at channels",
    plant: () => plantLink(at("channels"), victim),
    commands: EVERY,
  },
  {
    what: "a link at channels/stable",
    plant: () => plantLink(at("channels/stable"), victim),
    commands: EVERY,
  },
  {
    what: "a link at the manifest",
    plant: () => plantLink(at("channels/stable/manifest.json"), join(victim, "precious")),
    commands: ["mirror", "publish", "sign MIRROR", "prune", "prune --dry-run"],
  },
  {
    what: "a FIFO at the manifest",
    plant: () => plantFifo(at("channels/stable/manifest.json")),
    commands: EVERY,
  },
  {
    what: "a link to an endless device at the manifest",
    plant: () => plantLink(at("channels/stable/manifest.json"), "/dev/zero"),
    commands: ["mirror", "sign MIRROR", "prune"],
  },
  {
    what: "a link at .publish/incoming",
    plant: () => plantLink(at(".publish/incoming"), victim),
    commands: COPIES,
  },
  {
    what: "a link at an unfinished archive",
    plant: () => plantLink(at(`.publish/incoming/${namesOf(2).tar}`), join(victim, "precious")),
    commands: COPIES,
  },
  {
    what: "a hard link at an unfinished archive",
    plant: async () => {
      const path = at(`.publish/incoming/${namesOf(2).tar}`);
      await mkdir(dirname(path), { recursive: true });
      await link(join(victim, "precious"), path);
      return path;
    },
    commands: COPIES,
  },
  {
    what: "a link at an archive",
    plant: () => plantLink(at(`archives/${namesOf(2).tar}`), join(victim, "precious")),
    commands: ["mirror", "mirror --dry-run"],
  },
  {
    what: "a link at .publish/releases",
    plant: () => plantLink(at(".publish/releases"), victim),
    commands: ["mirror", "publish", "publish --from-draft", "release pause", "prune"],
  },
  {
    what: "a link at a channel's retained releases",
    plant: () => plantLink(at(".publish/releases/stable"), victim),
    commands: ["mirror", "prune", "prune --dry-run"],
  },
  {
    what: "a link at a retained release",
    plant: () => plantLink(at(".publish/releases/stable/0-1.json"), join(victim, "precious")),
    commands: ["publish", "prune"],
  },
  {
    what: "a FIFO at a draft",
    plant: () => plantFifo(at(`.publish/drafts/stable/${OTHER}.json`)),
    commands: ["prune", "prune --dry-run"],
  },
  {
    what: "a link at the stick's list of contents",
    plant: () => plantLink(at(STICK_CONTENTS_FILE), join(victim, "precious")),
    commands: ["mirror", "prune"],
  },
];

describe.each(PLANTS)("$what is named and not followed", ({ plant, commands }) => {
  test.each(commands)("%s", async (name) => {
    if (name.startsWith("mirror")) await rm(at(`archives/${namesOf(2).tar}`));
    const planted = await plant();
    const was = await lstat(planted);
    const output = await (WRITERS[name] ?? DRY[name])?.();
    if (!output) throw new Error(`no command ${name}`);
    await expectRefusal(output, planted);
    // Nothing of ours came in its place.
    expect((await lstat(planted)).ino).toBe(was.ino);
  });
});

describe("what nobody of us put into .publish", () => {
  test("is named and left; our own leftovers are removed", async () => {
    const copy = at(`.publish/incoming/${OTHER}.tar`);
    await rm(at(`archives/${namesOf(2).tar}`));
    await mkdir(at(".publish/work-aB3dE9/deep"), { recursive: true });
    await mkdir(at(".publish/incoming"), { recursive: true });
    await writeFile(copy, "half an archive");
    await plantLink(at(".publish/work-aB3dE9/deep/link"), victim);

    const strange = [
      await plantLink(at(".publish/work-AbCdEf"), victim),
      at(".publish/work-2025-notes"),
      at(".publish/work-abc"),
      at(".publish/incoming/notes.txt"),
      await plantLink(at(`.publish/incoming/${"1".repeat(64)}.tar`), join(victim, "precious")),
    ];
    await mkdir(at(".publish/work-2025-notes"));
    await writeFile(at(".publish/work-abc"), "mine");
    await writeFile(at(".publish/incoming/notes.txt"), "mine");

    const { exitCode, stderr } = (await WRITERS["mirror"]?.()) ?? {};
    expect(exitCode, stderr).toBe(0);
    for (const path of strange) {
      expect(stderr).toContain(`${path} is not of nixos-pull, and is left as it is`);
      await lstat(path);
    }
    await expect(lstat(copy)).rejects.toThrow("ENOENT");
    await expect(lstat(at(".publish/work-aB3dE9"))).rejects.toThrow("ENOENT");
    await expectUntouched();
  });

  test("a link with an archive's name is not removed by prune", async () => {
    const path = await plantLink(at(`archives/${OTHER}.tar`), join(victim, "precious"));
    const { exitCode, stderr } = (await WRITERS["prune"]?.()) ?? {};
    expect(exitCode, stderr).toBe(0);
    expect(stderr).toContain(`${path} is not of nixos-pull`);
    expect(await readlink(path)).toBe(join(victim, "precious"));
    await expectUntouched();
  });
});

describe("--dry-run", () => {
  const watch = {
    NODE_OPTIONS: `--import=${fileURLToPath(new URL("../../support/write-watch.mjs", import.meta.url))}`,
  };
  const commands: [string, () => string[]][] = [
    [
      "mirror",
      () => ["mirror", source.directory, target.directory, "--public-key", series.publicKey],
    ],
    ["prune", () => ["prune", target.directory, "--keep", "1"]],
  ];

  test.each(commands)("%s opens nothing for writing", async (_, args) => {
    await rm(at(`archives/${namesOf(2).tar}`));
    const found = await contentsOf(target.directory);
    const dry = await nixosPull([...args(), "--dry-run"], watch);
    expect(dry.exitCode, dry.stderr).toBe(0);
    expect(dry.stderr).not.toContain("WRITES");
    expect(await contentsOf(target.directory)).toEqual(found);
    // The watch sees what the same command does without --dry-run.
    expect((await nixosPull(args(), watch)).stderr).toContain("WRITES");
  });

  test("mirror makes no directory that is not there", async () => {
    await rm(target.directory, { recursive: true });
    const dry = await DRY["mirror --dry-run"]?.();
    expect(dry?.exitCode, dry?.stderr).toBe(0);
    await expect(lstat(target.directory)).rejects.toThrow("ENOENT");
  });
});

describe("a mirror that is read", () => {
  const refusal = { code: "MIRROR_STATUS", exit: 5 };
  const from = (name: string): string => join(source.directory, name);
  const readers: [string, () => Promise<CommandOutput>][] = [
    ["mirror", () => WRITERS["mirror"]?.() ?? Promise.reject(new Error())],
    ["verify", () => nixosPull(["verify", source.directory, "--public-key", series.publicKey])],
  ];

  test.each(readers)("%s follows no link to a manifest", async (_, read) => {
    const kept = await readFile(source.manifestFile);
    await writeFile(from("elsewhere.json"), kept);
    const planted = await plantLink(source.manifestFile, "../../elsewhere.json");
    await expectRefusal(await read(), planted, refusal);
  });

  test.each(readers)("%s follows no link in the middle of a path", async (_, read) => {
    await cp(from("channels/stable"), from("elsewhere"), { recursive: true });
    const planted = await plantLink(from("channels/stable"), "../elsewhere");
    await expectRefusal(await read(), planted, refusal);
  });

  test.each(readers)("%s does not wait for a FIFO", async (_, read) => {
    const planted = await plantFifo(source.manifestFile);
    await expectRefusal(await read(), planted, refusal);
  });

  test.each(readers)("%s follows no link to a list of contents", async (_, read) => {
    const planted = await plantLink(from(STICK_CONTENTS_FILE), join(victim, "precious"));
    await expectRefusal(await read(), planted);
  });

  test("verify names a link to an archive", async () => {
    const archive = source.archiveFile(2);
    await cp(archive, from("elsewhere.tar"));
    await plantLink(archive, "../elsewhere.tar");
    const output = await nixosPull(["verify", source.directory, "--public-key", series.publicKey]);
    expect(output.stdout).toContain("found a symbolic link");
    expect(output.exitCode).toBe(5);
  });

  test("release show follows no link", async () => {
    const planted = await plantLink(source.manifestFile, join(victim, "precious"));
    const shown = await nixosPull(["release", "show", "--mirror", source.directory]);
    await expectRefusal(shown, planted);
  });
});

describe("a draft", () => {
  const KINDS: [string, (path: string) => Promise<string>][] = [
    ["a link", (path) => plantLink(path, join(victim, "precious"))],
    ["a FIFO", plantFifo],
    ["an endless device", (path) => plantLink(path, "/dev/zero")],
  ];

  test.each(KINDS)("that is %s is refused by sign", async (_, plant) => {
    const planted = await plant(join(await temporaryDirectory(), "draft.json"));
    await expectRefusal(await nixosPull(["sign", planted, "--key", series.keyFile]), planted);
  });

  test.each(KINDS)("that is %s is refused by publish --from-draft", async (_, plant) => {
    const planted = await plant(join(await temporaryDirectory(), "draft.json"));
    const output = await nixosPull([
      ...["publish", "--mirror", target.directory, "--from-draft", planted],
      ...["--public-key", series.publicKey],
    ]);
    await expectRefusal(output, planted);
  });

  test.each(KINDS)("is not written in the place of %s", async (_, plant) => {
    const planted = await plant(join(await temporaryDirectory(), "draft.json"));
    const was = (await lstat(planted)).ino;
    const output = await nixosPull([
      ...["publish", "--mirror", target.directory, "--key", series.keyFile, "--refresh"],
      ...["--draft", planted],
    ]);
    await expectRefusal(output, planted);
    expect((await lstat(planted)).ino).toBe(was);
  });

  test("that is a link to a genuine one is refused by verify", async () => {
    const planted = await plantLink(join(await temporaryDirectory(), "draft.json"), draft);
    const output = await nixosPull(["verify", planted, "--public-key", series.publicKey]);
    await expectRefusal(output, planted);
  });
});

describe("reports", () => {
  async function signedReport(): Promise<string> {
    const host = await series.host({ mirrors: [source.address] });
    const file = join(host.root, "report.json");
    const written = await host.run("report", "--out", file);
    expect(written.exitCode, written.stderr).toBe(0);
    return file;
  }

  const bring = (): Promise<CommandOutput> =>
    nixosPull(["mirror", source.directory, target.directory, "--reports"]);

  test("a link and a FIFO among them are named, and keep no other report back", async () => {
    const reports = join(source.directory, "reports");
    const planted = [
      await plantLink(join(reports, "a.json"), join(victim, "precious")),
      await plantFifo(join(reports, "b.json")),
    ];
    await cp(await signedReport(), join(reports, "web1.json"));
    const { exitCode, stdout } = await bring();
    expect(stdout).toContain("Brought 1 report (web1)");
    for (const path of planted) expect(stdout).toContain(`${path}  UNSAFE_FILE`);
    expect(exitCode).toBe(4);
    expect(await readdir(at("reports"))).toEqual(["web1.json"]);
    await expectUntouched();
  });

  test("a directory of reports that is a link is named, on both sides", async () => {
    const report = await signedReport();
    const planted = await plantLink(join(source.directory, "reports"), victim);
    await expectRefusal(await bring(), planted);
    await rm(planted);
    await mkdir(planted);
    await cp(report, join(planted, "web1.json"));
    const other = await plantLink(at("reports"), victim);
    await expectRefusal(await bring(), other);
  });

  test("a link in the place of a host's report is named and stays", async () => {
    const reports = join(source.directory, "reports");
    await mkdir(reports);
    await cp(await signedReport(), join(reports, "web1.json"));
    const planted = await plantLink(at("reports/web1.json"), join(victim, "web1.json"));
    const { exitCode, stdout } = await bring();
    expect(stdout).toContain(planted);
    expect(stdout).toContain("UNSAFE_FILE");
    expect(exitCode).toBe(4);
    expect(await readlink(planted)).toBe(join(victim, "web1.json"));
    await expectUntouched();
  });

  test("fleet follows no link and waits for no FIFO among them", async () => {
    const reports = join(source.directory, "reports");
    await plantLink(join(reports, "web2.json"), join(victim, "precious"));
    await plantFifo(join(reports, "web3.json"));
    await cp(await signedReport(), join(reports, "web1.json"));
    const { stdout, exitCode } = await nixosPull(["fleet", source.directory]);
    expect(stdout).toMatch(/web2[^]*found a symbolic link/);
    expect(stdout).toMatch(/web3[^]*found a FIFO/);
    expect(exitCode).toBe(0);
  });

  test("fleet names a directory of reports that is a link", async () => {
    const planted = await plantLink(join(source.directory, "reports"), victim);
    await expectRefusal(await nixosPull(["fleet", source.directory]), planted);
  });

  test.each(["reports", "reports/web1.json"])(
    "a host leaves none on a stick where %s is a link",
    async (name) => {
      const host = await series.host({ mirrors: [source.address], sticks: { reports: true } });
      const to = name === "reports" ? victim : join(victim, "web1.json");
      const planted = await plantLink(join(source.directory, name), to);
      const { exitCode, stderr } = await host.run("apply");
      expect(exitCode, stderr).toBe(0);
      expect(stderr).toContain("the report could not be left there");
      expect(stderr).toContain(planted);
      expect(await readlink(planted)).toBe(to);
      await expectUntouched();
    },
  );

  test("a host writes through no link in reports.directory", async () => {
    const inbox = await temporaryDirectory();
    const planted = await plantLink(join(inbox, "web1.json"), join(victim, "web1.json"));
    const host = await series.host({
      mirrors: [source.address],
      reports: { directory: inbox },
    });
    const agent = host.start("run");
    await agent.sees("the report could not be delivered");
    expect(agent.stderr()).toContain(planted);
    agent.child.kill("SIGTERM");
    await agent.ended;
    expect(await readlink(planted)).toBe(join(victim, "web1.json"));
    await expectUntouched();
  });
});

describe("the agent's own directories", () => {
  const refused = async (arrange: (state: string) => Promise<unknown>): Promise<string> => {
    const host = await series.host({ mirrors: [source.address] });
    await mkdir(`${host.state}.run`, { recursive: true });
    await arrange(host.state);
    const before = await host.profileToplevel();
    const { exitCode, stderr } = await host.run("apply");
    expect(stderr).toContain("STATE_UNSAFE:");
    expect(stderr).toContain("look at what lies there, then run `chown ");
    expect(exitCode).toBe(7);
    expect(await host.profileToplevel()).toBe(before);
    return stderr;
  };

  test("a state directory that others may write to is not used", async () => {
    expect(await refused((state) => chmod(state, 0o777))).toContain("found mode 777 of user");
  });

  test("a runtime directory that a group may write to is not used", async () => {
    const stderr = await refused((state) => chmod(`${state}.run`, 0o770));
    expect(stderr).toContain(".run: expected a directory of user");
  });

  test.runIf(process.geteuid?.() === 0)("nor one of another user", async () => {
    expect(await refused((state) => chown(state, 1234, 1234))).toContain("of user 1234");
    expect(await refused((state) => chown(`${state}.run`, 1234, 1234))).toContain("of user 1234");
  });
});
