import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import {
  loggedInUsers,
  shutdownInhibitors,
  warnUsers,
} from "../../../../agent/effects/systemd/logins.ts";
import { pathWith } from "../../../support/program-path.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const PATH = process.env["PATH"] ?? "";

/** Has these scripts found before other programs. */
async function putOnPath(scripts: Readonly<Record<string, string>>): Promise<void> {
  vi.stubEnv("PATH", `${await pathWith([], scripts)}:${PATH}`);
}

test("programs that inhibit a shutdown are named with their reasons; delays are none", async () => {
  const inhibitors = [
    ["shutdown:sleep", "backup", "dumps the database", "block", 0, 12],
    ["shutdown", "weak", "", "block-weak", 0, 13],
    ["shutdown", "NetworkManager", "turns off networks", "delay", 0, 14],
    ["sleep", "upower", "pauses", "block", 0, 15],
  ];
  const answer = JSON.stringify({ type: "a(ssssuu)", data: [inhibitors] });
  await putOnPath({ busctl: `cat <<'END'\n${answer}\nEND` });
  expect(await shutdownInhibitors()).toEqual(["backup (dumps the database)", "weak"]);
});

test("a host without logind has neither inhibitors nor users", async () => {
  await putOnPath({ busctl: "exit 1", loginctl: "exit 1" });
  expect(await shutdownInhibitors()).toEqual([]);
  expect(await loggedInUsers()).toEqual([]);
});

test("an answer that is no list of inhibitors is an error", async () => {
  await putOnPath({ busctl: "echo '{}'" });
  await expect(shutdownInhibitors()).rejects.toMatchObject({ code: "IO_FAILED" });
});

test("users with a session are named once; managers, greeters and closing sessions are none", async () => {
  const loginctl = `case $1 in
    list-sessions) printf '%s\n' ' 1 1000 alice seat0 tty1 active no -' c2 3 4 5;;
    show-session) printf 'Name=alice\nClass=user\nState=active\n\nName=gdm\nClass=greeter\nState=online\n\nName=bob\nClass=user\nState=closing\n\nName=alice\nClass=user-early\nState=online\n\nName=carol\nClass=manager\nState=online\n';;
  esac`;
  await putOnPath({ loginctl });
  expect(await loggedInUsers()).toEqual(["user alice"]);
});

test("everybody is told by wall, and nobody where there is none", async () => {
  const file = join(await temporaryDirectory(), "said");
  await putOnPath({ wall: `cat > ${file}` });
  await warnUsers("rebooting");
  expect(await readFile(file, "utf8")).toBe("rebooting\n");
  await putOnPath({ wall: "exit 1" });
  await warnUsers("rebooting");
});
