import { describeTarget, type FleetTarget } from "../../core/fleet/fleet.ts";
import { describeAge } from "../../core/text/time-span.ts";
import { markup, type Markup } from "./markup.ts";

const WIDTH = 1000;
const HEIGHT = 240;
/** Most points of the line. With more hosts, some are left out. */
const MAX_POINTS = 400;

/**
 * A rollout's progress as a curve: how many hosts ran the release at each time. Labels are HTML
 * beside the drawing, so that they can be read on a phone.
 */
export function progressChart(target: FleetTarget, now: Date): Markup {
  const stamps = target.committed.map((stamp) => Date.parse(stamp));
  const first = stamps[0];
  const last = stamps.at(-1);
  if (first === undefined || last === undefined) {
    return markup`<p class="quiet">No host has reported when it switched to this release.</p>`;
  }
  const start = Math.min(first, target.createdAt === null ? first : Date.parse(target.createdAt));
  // Once all hosts run the release, later times show nothing new.
  const arrived = target.onTarget >= target.hosts;
  const end = Math.max(arrived ? last + (last - start) * 0.08 : now.getTime(), start + 60_000);
  const x = (time: number): number =>
    round(((clamp(time, start, end) - start) / (end - start)) * WIDTH);
  const y = (count: number): number => round(HEIGHT - (count / Math.max(1, target.hosts)) * HEIGHT);
  const steps = thinned(stamps).map(({ time, count }) => `H${x(time)}V${y(count)}`);
  const line = `M0 ${HEIGHT}${steps.join("")}H${WIDTH}`;
  const middle = target.hosts % 2 === 0 ? target.hosts / 2 : null;
  return markup`<figure class="chart">
  <div class="plot">
    <div class="y" aria-hidden="true"><span>${target.hosts}</span><span>${middle}</span><span>0</span></div>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label="${`${describeTarget(target)}; ${milestones(target, stamps, now)}`}">
      <path class="grid" d="M0 0.5H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT - 0.5}H${WIDTH}"/>
      <path class="area" d="${line}V${HEIGHT}Z"/>
      <path class="line" d="${line}"/>
    </svg>
    <div class="x" aria-hidden="true">${[start, (start + end) / 2, end].map(
      (time) => markup`<span>${axisTime(time, end - start)}</span>`,
    )}</div>
  </div>
  <figcaption>${milestones(target, stamps, now)}</figcaption>
</figure>`;
}

/** The curve in words. */
function milestones(target: FleetTarget, stamps: readonly number[], now: Date): string {
  const at = (time: number | undefined): string =>
    time === undefined ? "" : stampText(new Date(time).toISOString());
  const half = Math.ceil(target.hosts / 2);
  const all = stamps.length >= target.hosts;
  return [
    `first host ${at(stamps[0])}`,
    ...(stamps.length >= half && half > 1 && target.hosts > 2
      ? [`half ${at(stamps[half - 1])}`]
      : []),
    all
      ? `all ${at(stamps.at(-1))}`
      : `latest ${at(stamps.at(-1))} (${ago(new Date(stamps.at(-1) ?? 0).toISOString(), now)})`,
  ].join(" · ");
}

/** `3 h ago`. */
export function ago(time: string, now: Date): string {
  const age = describeAge(time, now);
  return age === "now" || age.startsWith("in ") ? age : `${age} ago`;
}

/** `2026-11-24 07:36 UTC`. */
export function stampText(time: string): string {
  const text = new Date(time).toISOString();
  return `${text.slice(0, 10)} ${text.slice(11, 16)} UTC`;
}

function axisTime(time: number, span: number): string {
  const text = new Date(time).toISOString();
  const [day, clock] = [text.slice(5, 10), text.slice(11, span < 300_000 ? 19 : 16)];
  return span < 86_400_000 ? clock : `${day} ${clock}`;
}

function thinned(stamps: readonly number[]): { time: number; count: number }[] {
  const step = Math.max(1, Math.ceil(stamps.length / MAX_POINTS));
  return stamps
    .map((time, at) => ({ time, count: at + 1 }))
    .filter(({ count }) => count % step === 0 || count === stamps.length);
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
