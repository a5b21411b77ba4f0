import { createHash } from "node:crypto";
import {
  STANDINGS,
  describeCounts,
  describeFailed,
  type Fleet,
  type FleetHost,
  type FleetTarget,
  type Standing,
} from "../../core/fleet/fleet.ts";
import { describePosition } from "../../core/formats/manifest.ts";
import { Markup, markup } from "./markup.ts";
import { PAGE_SCRIPT } from "./page-script.ts";
import { PAGE_STYLE } from "./page-style.ts";
import { ago, progressChart, stampText } from "./progress-chart.ts";

/** How many failing hosts have an open card. The other cards are one click away. */
const OPEN_CARDS = 12;
/** Most cards of failing hosts. Further hosts are only in the table. */
const MAX_CARDS = 300;
const NEWLINE = new Markup("\n");
/** A disk is marked if less than this share of it is free. */
const LOW_DISK = 0.1;

/**
 * The fleet as one HTML page that needs no other file and no network. Nothing that hosts report
 * is ever run: the content security policy allows this style and this script by their hashes, and
 * nothing else.
 */
export function fleetPage(fleet: Fleet, options: { refreshSeconds?: number } = {}): string {
  const now = new Date(fleet.at);
  const { refreshSeconds } = options;
  const policy = [
    "default-src 'none'",
    `style-src '${hashOf(PAGE_STYLE)}'`,
    `script-src '${hashOf(PAGE_SCRIPT)}'`,
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ");
  const page = markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${new Markup(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
${refreshSeconds !== undefined && markup`<meta http-equiv="refresh" content="${refreshSeconds}">`}
<title>${titleOf(fleet)}</title>
<style>${new Markup(PAGE_STYLE)}</style>
</head>
<body>
<div class="wrap">
<header>
<h1>Fleet</h1>
<p class="when">as of <time datetime="${fleet.at}">${stampText(fleet.at)}</time></p>
</header>
<main>
<div class="targets">${fleet.targets.map((target) => targetCard(target, now))}</div>
${standingsCard(fleet)}
${troublesCard(fleet, now)}
${hostsCard(fleet, now)}
</main>
<footer>Written by nixos-pull from signed reports. Times are the hosts' own.</footer>
</div>
<script>${new Markup(PAGE_SCRIPT)}</script>
</body>
</html>
`;
  return page.text;
}

function hashOf(text: string): string {
  return `sha256-${createHash("sha256").update(text).digest("base64")}`;
}

function titleOf({ counts, hosts }: Fleet): string {
  const bad = counts.distrusted + counts.failing;
  return bad > 0 ? `${bad} failing of ${hosts.length} hosts` : `Fleet of ${hosts.length} hosts`;
}

function targetCard(target: FleetTarget, now: Date): Markup {
  const { onTarget, hosts, position, channel, createdAt, expiresAt, expired } = target;
  const share = hosts === 0 ? 0 : Math.floor((onTarget / hosts) * 100);
  return markup`<section class="card">
<div class="headline"><span class="big">${onTarget}&thinsp;/&thinsp;${hosts}</span><span>hosts run release ${describePosition(position)} of ${channel}${hosts > 0 && ` (${share} %)`}</span></div>
<p class="quiet">${
    target.signed
      ? markup`published ${timeText(createdAt, now)}, ${
          expired
            ? markup`<span class="warn">expired ${timeText(expiresAt, now)}</span>`
            : markup`good until ${stampText(expiresAt ?? "")}`
        }`
      : "the newest release that any host accepted; no manifest was given"
  }</p>
${progressChart(target, now)}
</section>`;
}

function standingsCard({ hosts, counts }: Fleet): Markup {
  const present = STANDINGS.filter((standing) => counts[standing] > 0);
  let left = 0;
  const parts = present.map((standing) => {
    const width = (counts[standing] / Math.max(1, hosts.length)) * 1000;
    const part = markup`<rect class="bar-${standing}" x="${round(left)}" y="0" width="${round(Math.max(width, 2))}" height="10"/>`;
    left += width;
    return part;
  });
  return markup`<section class="card">
<h2>Hosts by state</h2>
<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="${describeCounts(counts)}">${parts}</svg>
<ul class="legend" aria-label="Show only hosts that are">${present.map(
    (standing) =>
      markup`<li><button type="button" class="chip" aria-pressed="false" data-standing="${standing}" title="${MEANINGS[standing]}"><span class="dot is-${standing}"></span>${standing} <b>${counts[standing]}</b></button></li>`,
  )}</ul>
</section>`;
}

const MEANINGS: Readonly<Record<Standing, string>> = {
  distrusted: "Its report cannot be trusted",
  failing: "It reports that something is wrong",
  silent: "Its last report is too old",
  missing: "The release names it, but it never reported",
  drifted: "Somebody changed it by hand",
  reboot: "It has to reboot to complete the release",
  waiting: "The release waits for a window, its wave or a person",
  behind: "It is on its way to the release",
  current: "It runs what it should",
};

function troublesCard({ hosts, codes }: Fleet, now: Date): Markup | null {
  const troubles = hosts.filter(
    ({ standing }) => standing === "distrusted" || standing === "failing",
  );
  if (troubles.length === 0) return null;
  const cards = troubles.slice(0, MAX_CARDS).map((host) => troubleCard(host, now));
  const rest = cards.slice(OPEN_CARDS);
  const beyond = troubles.length - cards.length;
  return markup`<section class="card">
<h2>Failing (${troubles.length})</h2>
${
  troubles.length > 1 &&
  markup`<ul class="codes">${codes.map(
    ({ code, hosts: number }) => markup`<li><span class="code">${code}</span> × ${number}</li>`,
  )}</ul>`
}
<div class="troubles">${cards.slice(0, OPEN_CARDS)}</div>
${
  rest.length > 0 &&
  markup`<details class="more"><summary>${rest.length} more failing hosts</summary><div class="troubles">${rest}</div>${
    beyond > 0 && markup`<p class="quiet">and ${beyond} more, in the table</p>`
  }</details>`
}
</section>`;
}

function troubleCard(host: FleetHost, now: Date): Markup {
  const { standing, code, note, release, failure, lastSeen } = host;
  const lines = failure?.lastLines ?? [];
  // The report may have another reason by now: then show both.
  const earlier = failure?.message && failure.message !== note && !note?.includes(failure.message);
  return markup`<article class="trouble ${standing}">
<div class="head"><h3>${host.hostname}</h3><span class="badge is-${standing}"><span class="code">${code}</span></span></div>
<p class="facts">${release === null ? "no release yet" : `on release ${release}`} · seen ${timeText(lastSeen, now)}</p>
<p class="note">${note}</p>
${earlier && markup`<p class="note">${failure.code}: ${failure.message}</p>`}
${failure && (lines.length > 0 || failure.wayBack !== undefined) && markup`<p class="facts">${describeFailed(failure)}</p>`}
${failure?.wayBack !== undefined && markup`<p class="note">Way back: ${failure.wayBack}</p>`}
${
  lines.length > 0 &&
  markup`<div class="log" tabindex="0" role="group" aria-label="Last lines of the update of ${host.hostname}"><pre class="code">${lines.map(
    (line, at) => markup`${at > 0 && NEWLINE}${line}`,
  )}</pre></div>`
}
</article>`;
}

const COLUMNS = ["Host", "State", "Release", "Why", "Last seen", "Notes", "Disk free"];

function hostsCard({ hosts }: Fleet, now: Date): Markup {
  return markup`<section class="card">
<div class="tools"><h2>All hosts</h2><span id="count" class="quiet" role="status">${hosts.length} hosts</span>
<label data-needs-script hidden><span class="visually-hidden">Search hosts</span><input type="search" placeholder="Search hosts, codes, notes" autocomplete="off"></label></div>
<table>
<thead><tr>${COLUMNS.map((name) => markup`<th scope="col"><button type="button" class="sort">${name}</button></th>`)}</tr></thead>
<tbody>
${hosts.map((host) => hostRow(host, now))}
</tbody>
</table>
<button type="button" id="all" class="chip all" hidden>Show all</button>
</section>`;
}

function hostRow(host: FleetHost, now: Date): Markup {
  const { standing, release, code, note, lastSeen, disk } = host;
  const free = disk && disk.total > 0 ? disk.free / disk.total : null;
  return markup`<tr data-standing="${standing}"><td class="host">${host.hostname}</td><td class="standing" data-key="${STANDINGS.indexOf(standing)}"><span class="badge is-${standing}"><span class="dot"></span>${standing}</span></td><td class="release number">${release}</td><td class="why">${code !== null && markup`<span class="code">${code}</span>`}${note !== null && markup`<span class="clip" title="${note}">${note}</span>`}</td><td class="seen" data-key="${lastSeen === null ? "" : Date.parse(lastSeen)}">${timeText(lastSeen, now)}</td><td class="flags">${flagsOf(host)}</td><td class="disk${free !== null && free < LOW_DISK && " low"}" data-key="${free === null ? "" : round(free * 1000)}">${disk && free !== null && diskText(disk, free)}</td></tr>
`;
}

function flagsOf({ rebootNeeded, drifted, channel, onTarget }: FleetHost): Markup {
  const flags = [
    rebootNeeded && "reboot needed",
    drifted && "drifted",
    onTarget === null && channel !== null && "in no release",
  ];
  return markup`${flags.filter(Boolean).join(", ")}`;
}

function diskText(disk: { free: number; total: number }, free: number): Markup {
  const used = Math.round((1 - free) * 100);
  return markup`<span title="${gibibytes(disk.free)} of ${gibibytes(disk.total)}">${gibibytes(disk.free)}</span><svg class="meter" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label="${used} % used"><rect class="track" x="0" y="0" width="100" height="6"/><rect class="used" x="0" y="0" width="${used}" height="6"/></svg>`;
}

function gibibytes(bytes: number): string {
  const value = bytes / 1024 ** 3;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} GiB`;
}

function timeText(time: string | null, now: Date): Markup {
  if (time === null) return markup`never`;
  return markup`<time datetime="${time}" title="${stampText(time)}">${ago(time, now)}</time>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
