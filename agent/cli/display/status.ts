import { describePosition } from "../../core/formats/manifest.ts";
import { memoryOf, rememberedPosition } from "../../core/release/acceptance.ts";
import { describeHold } from "../../core/schedule/hold.ts";
import { sanitize } from "../../core/text/sanitize.ts";
import type { Times } from "../../core/text/times.ts";
import { describeDrift } from "../../core/update/drift.ts";
import { tellingLines } from "../../core/update/switch-output.ts";
import type { Activity } from "../../host/report/activity.ts";
import type { HostStatus } from "../../host/report/host-status.ts";
import { describeEvent } from "./event-words.ts";
import { describeVerdict, describeWait } from "./finding.ts";
import { headlineOf, type Headline } from "./headline.ts";
import { HostWords } from "./host-words.ts";
import { styled, table, type Line, type Screen, type Style, type Text } from "./screen.ts";

/** A fact for people: what it is about, and what it is. */
type Fact = readonly [string, Text];

/** What stands before a headline. */
const MARK: Record<Style, string> = {
  ...{ good: "●", busy: "●", waiting: "○", bad: "✗" },
  ...{ strong: "●", dim: "●" },
};

/**
 * The status for people, in lines: what matters first, then what wants a person, then the rest.
 * Each fact is said once.
 */
export function describeStatus(status: HostStatus, times: Times, screen: Screen): Line[] {
  const words = new HostWords(times, systemsOf(status));
  const headline = shaded(headlineOf(status, words), status);
  const { style, text, more } = headline;
  const alarms = status.alarms.map((it): Fact => ["ALARM", styled("bad", words.reason(it))]);
  const facts = [
    ...alarms,
    ...waitFacts(status, headline, words),
    ...systemFacts(status, headline, words),
    ...pollFacts(status, words),
    ...pastFacts(status, headline, words),
    ...agentFacts(status.activity),
    ["machine id", styled("dim", status.machineId ?? "none")] satisfies Fact,
  ];
  const rows = facts.map(([name, fact]): Text[] => [
    styled(name === "ALARM" ? "bad" : "dim", name),
    fact,
  ]);
  const head: Text[][] = [
    [styled(style, MARK[style]), styled("strong", text)],
    ...more.map((it) => ["", it]),
  ];
  return [...table(head, screen, { gap: 1 }), "", ...table(rows, screen)];
}

/** All systems that a status names. */
function systemsOf({ host, record, drift, lastPoll }: HostStatus): (string | null | undefined)[] {
  const { committed, earlier = [], denied, pendingReboot, state } = record;
  return [
    ...[host.profile, host.running, host.booted, committed?.toplevel, drift?.expected],
    ...[drift?.found, lastPoll?.release?.toplevel, pendingReboot?.release.toplevel],
    ...("release" in state ? [state.release.toplevel] : []),
    ...("target" in state ? [state.target.toplevel] : []),
    ...("baseline" in state ? [state.baseline.running, state.baseline.profile] : []),
    ...[...denied, ...earlier].map(({ toplevel }) => toplevel),
  ];
}

/** A headline looks no better than the host is: alarms, and no agent that would follow anything. */
function shaded(headline: Headline, { activity, alarms }: HostStatus): Headline {
  const isAlone =
    activity.service === null && activity.update === null && headline.tells !== "stopped";
  const warning =
    "No agent runs: no release is followed until the service `nixos-pull run` is started.";
  const more = [...headline.more, ...(isAlone ? [warning] : [])];
  if (alarms.length > 0) return { ...headline, style: "bad", more };
  return isAlone && headline.style === "good"
    ? { ...headline, style: "waiting", more }
    : { ...headline, more };
}

/** What is waited for, and until when, as far as the headline does not say it. */
function waitFacts(
  { lastPoll, hold, drift }: HostStatus,
  { tells }: Headline,
  words: HostWords,
): Fact[] {
  const isTold = tells === "waits" || tells === "hold";
  // The hold of the last poll may have ended since.
  const waits = (isTold ? [] : (lastPoll?.waits ?? [])).filter(
    ({ reason }) => reason !== "HELD" || hold.kind !== "none",
  );
  const isHeld = waits.some(({ reason }) => reason === "HELD");
  return [
    ...waits.map((it): Fact => ["waits", describeWait(it, words)]),
    ...(hold.kind !== "none" && tells !== "hold" && !isHeld
      ? [["hold", words.message(describeHold(hold))] satisfies Fact]
      : []),
    ...(drift && tells !== "drift"
      ? [["drift", words.message(describeDrift(drift))] satisfies Fact]
      : []),
  ];
}

/** What the host is. */
function systemFacts(status: HostStatus, { tells }: Headline, words: HostWords): Fact[] {
  const { record, host, channel, bootLoader, drift } = status;
  const { committed, earlier, trust, pendingReboot, state } = record;
  const { profile, generation, running, specialisation, booted } = host;
  const memory = memoryOf(trust, channel);
  const accepted = memory ? describePosition(rememberedPosition(memory)) : null;
  const position = committed
    ? describePosition({ ...committed, epoch: committed.epoch ?? 0 })
    : null;
  const number = generation === null ? "" : `, generation ${generation}`;
  const special = specialisation === undefined ? "" : `, specialisation ${specialisation}`;
  const none = earlier ? "none: no release brought the system that runs" : "none applied yet";
  const facts: Fact[] = [
    [
      "release",
      committed
        ? `${position} of ${committed.channel}, ${committed.mode}, ${words.times.clock(committed.at)}`
        : none,
    ],
  ];
  if (accepted !== null && accepted !== position) {
    facts.push(["accepted", `up to ${accepted}`]);
  }
  if (profile === running) {
    const system = running === null ? "none" : words.system(running);
    facts.push(["system", `${system}${special}${number}`]);
  } else {
    facts.push(["running", running === null ? "unknown" : `${words.system(running)}${special}`]);
    facts.push([
      "boot default",
      profile === null ? "unknown" : `${words.system(profile)}${number}`,
    ]);
  }
  if (booted && booted !== running && (pendingReboot ?? drift))
    facts.push(["booted", words.system(booted)]);
  if (pendingReboot && tells !== "reboot") {
    const { sequence } = pendingReboot.release;
    const why = pendingReboot.wayBack
      ? `only a boot leads back from release ${sequence}`
      : `release ${sequence} waits for it`;
    facts.push(["reboot", styled("waiting", `REBOOT NEEDED: ${why}`)]);
  }
  const can =
    bootLoader.cannotTry === null
      ? "can try a system by one boot"
      : `cannot try a system by one boot: ${bootLoader.cannotTry}`;
  facts.push(["boot loader", `${bootLoader.name ?? "unknown"}; ${can}`]);
  if (state.name !== "Idle") facts.push(["state", state.name]);
  return facts;
}

/** What the last poll found on which mirror. */
function pollFacts({ lastPoll }: HostStatus, words: HostWords): Fact[] {
  if (!lastPoll) return [["last poll", "none yet"]];
  const { at, error, mirrors, archives } = lastPoll;
  const why = error === null || words.hasSaid(error) ? "" : `: ${words.reason(error)}`;
  const served = new Map(archives.map((it) => [it.mirror, it]));
  return [
    ["last poll", `${words.times.ago(at)}${why}`],
    ...mirrors.map((verdict): Fact => {
      const { mirror, code, message = "" } = verdict;
      const has = code === undefined ? describeVerdict(verdict) : words.reason({ code, message });
      const archive = served.get(mirror);
      const failed =
        archive?.code === undefined
          ? ""
          : `; its archives, ${words.times.ago(archive.at)}: ` +
            words.reason({ code: archive.code, message: archive.message ?? "" });
      return ["mirror", `${mirror}: ${has}${failed}`];
    }),
  ];
}

/** So many denials are shown, the last ones. */
const SHOWN_DENIALS = 3;
/** So many of the lines of one switch are shown; the history has all that are kept. */
const SHOWN_LINES = 12;
const MAX_LINE = 400;

/** What happened before, if somebody should know it. */
function pastFacts(status: HostStatus, { tells }: Headline, words: HostWords): Fact[] {
  const { record, wayBack, lastImport, lastSwitches, lastPoll } = status;
  const facts: Fact[] = [];
  if (wayBack) {
    const { at, event, sequence, message } = wayBack;
    const from = sequence === undefined ? "" : `, from release ${sequence}`;
    const failed = event.endsWith("Failed") ? "FAILED: " : "";
    facts.push(["way back", `${words.times.ago(at)}${from}: ${failed}${words.once(message)}`]);
  }
  const isWaiting = (lastPoll?.waits.length ?? 0) > 0;
  const isAhead = isWaiting && lastImport?.sequence === lastPoll?.release?.sequence;
  if (lastImport && (lastImport.deltas || isAhead)) {
    const { at, sequence, deltas } = lastImport;
    const by = deltas ? `, ${deltas.used} paths by deltas, ${deltas.failed} deltas of no use` : "";
    facts.push(["downloaded", `release ${sequence}, ${words.times.ago(at)}${by}`]);
  }
  const denied = record.denied.filter(
    (it) => tells !== "denial" || it.toplevel !== lastPoll?.release?.toplevel,
  );
  for (const { toplevel, specialisation, reason, at } of denied.slice(-SHOWN_DENIALS)) {
    const special = specialisation ? `, specialisation ${specialisation}` : "";
    const what = `${words.system(toplevel)}${special}, ${words.times.ago(at)}`;
    facts.push(["denied", `${what}: ${words.reason(reason)}`]);
  }
  if (lastSwitches.some((it) => isTelling(it, status))) {
    facts.push(...lastSwitches.flatMap((it) => switchFacts(it, words)));
  }
  return facts;
}

/** Whether a person should see what a switch printed: it did not go smoothly, or is under way. */
function isTelling(
  { code, message, mode, sequence }: HostStatus["lastSwitches"][number],
  { record: { state } }: HostStatus,
): boolean {
  const isNow = "release" in state && state.release.sequence === sequence;
  return code !== undefined || message !== undefined || mode === "dry-activate" || isNow;
}

/** An event of the last attempt with what its switch printed. */
function switchFacts(entry: HostStatus["lastSwitches"][number], words: HostWords): Fact[] {
  const { at, sequence, lastLines } = entry;
  const release = sequence === undefined ? "" : `, release ${sequence}`;
  const lines = tellingLines(lastLines, SHOWN_LINES);
  return [
    ["switch", `${words.times.ago(at)}${release}: ${describeEvent(entry, words)}`],
    ...lines.map((line): Fact => ["", `| ${sanitize(line, MAX_LINE)}`]),
  ];
}

/** Which processes of the agent run; that none does is in the headline. */
function agentFacts({ service, update }: Activity): Fact[] {
  if (service !== null) {
    const at = update === service ? ", polling or updating now" : "";
    const other = update !== null && update !== service ? `; process ${update} updates now` : "";
    return [["agent", `runs as process ${service}${at}${other}`]];
  }
  if (update === null) return [];
  return [["agent", `process ${update} updates now; the service does not run`]];
}
