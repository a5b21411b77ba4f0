// Rules about what lies on a host, by examples: mounts, units, boot directories, times, Nix.
import { expect, test } from "vitest";
import { judgeBoot, type BootFacts } from "../../../../agent/core/doctor/boot.ts";
import { judgeDisks, judgeSecret } from "../../../../agent/core/doctor/files.ts";
import { mountOf } from "../../../../agent/core/doctor/file-facts.ts";
import { judgeNixVersion, judgeWayBack } from "../../../../agent/core/doctor/store.ts";
import {
  judgeMirrorClock,
  judgeReleaseTimes,
  judgeSynchronisation,
} from "../../../../agent/core/doctor/time.ts";
import { judgeUnits } from "../../../../agent/core/doctor/units.ts";
import { goodUnit } from "../../../support/memory-host.ts";

const MOUNTS = [
  "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
  "30 22 8:1 /nix/store /nix/store ro,relatime shared:2 - ext4 /dev/sda1 rw",
  "31 22 0:30 / /srv/a\\040b rw,nosuid - tmpfs tmpfs rw,size=1024k",
  "32 22 8:2 / /boot rw shared:3 master:1 - vfat /dev/sda2 rw",
  "33 32 8:3 / /boot ro - vfat /dev/sda3 ro,errors=remount-ro",
].join("\n");

test("the mount of a path is the deepest one, and of two at one place the later", () => {
  expect(mountOf("/var/lib", MOUNTS)).toMatchObject({ mountPoint: "/", readOnly: false });
  expect(mountOf("/nix/store/x", MOUNTS)).toEqual({
    ...{ mountPoint: "/nix/store", type: "ext4", readOnly: false, mountedReadOnly: true },
  });
  expect(mountOf("/srv/a b/c", MOUNTS)).toMatchObject({ type: "tmpfs" });
  expect(mountOf("/boot", MOUNTS)).toMatchObject({ readOnly: true });
  expect(mountOf("/bootable", MOUNTS)).toMatchObject({ mountPoint: "/" });
  expect(mountOf("/", "")).toBeNull();
});

test("a store that is mounted read-only over itself can be written to, a state directory not", () => {
  const mount = mountOf("/nix/store", MOUNTS);
  const space = { free: 10, fileSystem: "1" };
  const outcomes = judgeDisks(
    ["store", "state"].map((what) => ({ what, path: `/${what}`, mount, space })),
    { reserveBytes: 0 },
  ).map(({ id, outcome }) => `${id} ${outcome}`);
  expect(outcomes).toEqual(["disk.writable passed", "disk.writable failed", "disk.space passed"]);
});

test("a file system that holds two of the places is judged once for its room", () => {
  const mount = mountOf("/", MOUNTS);
  const disk = (what: string, fileSystem: string) => ({
    ...{ what, path: `/${what}`, mount, space: { free: 5, fileSystem, total: 9 } },
  });
  const disks = [disk("store", "1"), disk("state", "2"), disk("staging", "2")];
  const subjects = judgeDisks(disks, { reserveBytes: 6 }).flatMap(({ id, subject }) =>
    id === "disk.space" ? [subject] : [],
  );
  expect(subjects).toEqual(["/store", "/state, /staging"]);
});

const SECRET = { kind: "file", mode: 0o600, uid: 0, size: 9, readable: true } as const;

test.each([
  ["its owner's alone", SECRET, true, "passed"],
  ["for a group", { ...SECRET, mode: 0o640 }, true, "failed"],
  ["for all", { ...SECRET, mode: 0o604 }, true, "failed"],
  ["empty", { ...SECRET, size: 0 }, true, "failed"],
  ["a directory", { ...SECRET, kind: "directory" } as const, true, "failed"],
  ["another user's", { ...SECRET, readable: false }, false, "untried"],
])("a secret that is %s", (_, facts, isRoot, outcome) => {
  expect(judgeSecret("/etc/secret", facts, isRoot).outcome).toBe(outcome);
});

const BOOT: BootFacts = {
  loader: { name: "systemd-boot", cannotTry: null },
  directory: "/boot",
  file: { kind: "directory", mode: 0o700, uid: 0, size: 0, readable: true },
  mount: { mountPoint: "/boot", type: "vfat", readOnly: false, mountedReadOnly: false },
  ...{ fstab: [], free: 100, kernelBytes: 100 },
};

test.each<[string, Partial<BootFacts>, string]>([
  ["mounted, with room", {}, "boot.loader passed, boot.directory passed, boot.space passed"],
  ["too small", { free: 99 }, "boot.loader passed, boot.directory passed, boot.space failed"],
  [
    "part of the root file system, with GRUB",
    {
      loader: { name: "GRUB", cannotTry: null },
      mount: { mountPoint: "/", type: "ext4", readOnly: false, mountedReadOnly: false },
    },
    "boot.loader passed, boot.directory passed, boot.space passed",
  ],
  [
    "not mounted, with systemd-boot",
    {
      mount: { mountPoint: "/", type: "ext4", readOnly: false, mountedReadOnly: false },
    },
    "boot.loader passed, boot.directory failed",
  ],
  [
    "not mounted, and in fstab",
    {
      loader: { name: null, cannotTry: "unknown" },
      mount: { mountPoint: "/", type: "ext4", readOnly: false, mountedReadOnly: false },
      fstab: ["/boot"],
    },
    "boot.loader passed, boot.directory failed",
  ],
  ["nowhere", { file: null }, "boot.loader passed, boot.directory failed"],
  [
    "not needed in a container",
    { file: null, kernelBytes: null },
    "boot.loader passed, boot.directory passed",
  ],
  ["not known", { directory: null }, "boot.loader passed, boot.directory untried"],
])("a boot directory that is %s", (_, change, expected) => {
  const results = judgeBoot({ ...BOOT, ...change });
  expect(results.map(({ id, outcome }) => `${id} ${outcome}`).join(", ")).toBe(expected);
});

test("how to mount a directory for booting is said", () => {
  const [, directory] = judgeBoot({ ...BOOT, directory: "/boot/efi-x", file: null });
  expect(directory?.advice).toBe("mount it: `systemctl start boot-efi\\x2dx.mount`");
});

test("a unit of a name that systemd does not know is told with what to do", () => {
  const [agent] = judgeUnits([{ ...goodUnit("nixos-pull.service"), load: "not-found" }]);
  expect(agent).toMatchObject({ outcome: "failed", found: "nixos-pull.service is not there" });
  expect(agent?.advice).toContain("services.nixos-pull.enable");
});

test("a clock may be a quarter of an hour from the mirror's", () => {
  const ours = new Date("2026-02-01T12:00:00Z");
  const judged = (minutes: number): string =>
    judgeMirrorClock("m", new Date(ours.getTime() - minutes * 60_000), ours).outcome;
  expect([0, 15, -15, 16, -16].map(judged)).toEqual([
    ...["passed", "passed", "passed", "failed", "failed"],
  ]);
  const behind = judgeMirrorClock("m", new Date("2026-02-01T13:00:00Z"), ours);
  expect(behind.found).toContain("this host is 60 min behind the mirror");
  expect(judgeMirrorClock("m", null, ours).outcome).toBe("untried");
});

test("a site without time needs no time server", () => {
  expect(judgeSynchronisation({ synchronised: false, service: false }, "ignore").outcome).toBe(
    "passed",
  );
  const waiting = judgeSynchronisation({ synchronised: false, service: true }, "strict");
  expect(waiting).toMatchObject({ outcome: "failed" });
  expect(waiting.advice).toContain("timesync-status");
});

test("a release is judged by its times, or by why it was refused for them", () => {
  const now = new Date("2026-02-01T12:00:00Z");
  const times = { createdAt: "2026-02-01T09:00:00Z", expiresAt: "2026-02-11T12:00:00Z" };
  expect(judgeReleaseTimes(times, [], now).found).toBe("created 3 hours ago, expires in 10 days");
  const refusal = { code: "CLOCK_BEHIND", message: "behind" } as const;
  expect(judgeReleaseTimes(null, [refusal], now)).toMatchObject({ code: "CLOCK_BEHIND" });
  const other = { code: "SIGNATURE_THRESHOLD", message: "x" } as const;
  expect(judgeReleaseTimes(null, [other], now).outcome).toBe("untried");
});

test.each([
  ["nix (Nix) 2.8.0", "passed"],
  ["nix (Lix, like Nix) 2.91.1", "passed"],
  ["nix (Nix) 3.0.0", "passed"],
  ["nix (Nix) 2.7.9", "failed"],
  ["nix (Nix) 1.11", "failed"],
  ["something", "untried"],
])("%s has %s", (text, outcome) => {
  expect(judgeNixVersion(text).outcome).toBe(outcome);
});

test("a host with one generation has no way back yet, one with more has lost it", () => {
  expect(judgeWayBack([], 1).outcome).toBe("passed");
  expect(judgeWayBack([], 3)).toMatchObject({ outcome: "failed" });
  const lost = { what: "generation 2", isValid: false };
  expect(judgeWayBack([lost], 3).found).toBe("Nix does not know generation 2");
  expect(judgeWayBack([lost, { what: "/nix/store/x", isValid: true }], 3).outcome).toBe("passed");
});
