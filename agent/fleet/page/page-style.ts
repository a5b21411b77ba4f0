/** The page's style sheet; its hash stands in the page's content security policy. */
export const PAGE_STYLE = `
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #1b2430; --quiet: #5a6675; --rule: #dfe3e9; --field: #ffffff;
  --accent: #2457c5;
  --distrusted: #a0178a; --failing: #c4232b; --silent: #9a4a00; --missing: #4b5563; --drifted: #6d3fc4;
  --reboot: #0b6a8f; --waiting: #8a6100; --behind: #3d5a80; --current: #1a7f4b;
  --log: #f1f3f6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f141b; --card: #171e28; --ink: #e6ebf2; --quiet: #9aa7b8; --rule: #2a3442; --field: #10161f;
    --accent: #7aa5ff;
    --distrusted: #f07fdc; --failing: #ff7b7f; --silent: #f0a45d; --missing: #a5b0bf; --drifted: #b79bff;
    --reboot: #62c3ea; --waiting: #e6be55; --behind: #93b4dd; --current: #56c98c;
    --log: #0d1219;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
.wrap { max-width: 1240px; margin: 0 auto; padding: 24px 20px 48px; }
header { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: baseline; justify-content: space-between; margin-bottom: 16px; }
h1 { font-size: 22px; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 16px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 0; overflow-wrap: anywhere; }
p { margin: 0; }
.quiet, figcaption, .when { color: var(--quiet); }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 18px 20px; margin-bottom: 16px; }
.targets { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); margin-bottom: 16px; }
.targets .card { margin: 0; }
.headline { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 10px; margin-bottom: 2px; }
.big { font-size: 34px; line-height: 1.15; font-weight: 650; letter-spacing: -0.02em; font-variant-numeric: tabular-nums; }
.warn { color: var(--failing); font-weight: 600; }
.chart { margin: 14px 0 0; }
.plot { display: grid; grid-template-columns: auto 1fr; gap: 4px 8px; }
.plot svg { width: 100%; height: 150px; display: block; }
.y { display: flex; flex-direction: column; justify-content: space-between; text-align: right; margin: -8px 0; }
.x { grid-column: 2; display: flex; justify-content: space-between; }
.x, .y { font-size: 12px; color: var(--quiet); font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); fill: none; vector-effect: non-scaling-stroke; }
.area { fill: var(--current); opacity: 0.16; }
.line { stroke: var(--current); stroke-width: 2; fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
figcaption { font-size: 13px; margin-top: 8px; }
.bar { width: 100%; height: 18px; display: block; border-radius: 6px; overflow: hidden; background: var(--rule); }
.bar-distrusted { fill: var(--distrusted); } .bar-failing { fill: var(--failing); } .bar-silent { fill: var(--silent); }
.bar-missing { fill: var(--missing); } .bar-drifted { fill: var(--drifted); } .bar-reboot { fill: var(--reboot); }
.bar-waiting { fill: var(--waiting); } .bar-behind { fill: var(--behind); } .bar-current { fill: var(--current); }
.is-distrusted { color: var(--distrusted); } .is-failing { color: var(--failing); } .is-silent { color: var(--silent); }
.is-missing { color: var(--missing); } .is-drifted { color: var(--drifted); } .is-reboot { color: var(--reboot); }
.is-waiting { color: var(--waiting); } .is-behind { color: var(--behind); } .is-current { color: var(--current); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 8px; margin: 14px 0 0; padding: 0; }
.chip {
  font: inherit; font-size: 14px; color: var(--ink); background: none; border: 1px solid var(--rule); border-radius: 999px;
  padding: 4px 12px 4px 10px; display: inline-flex; align-items: center; gap: 8px; min-height: 34px;
}
button.chip { cursor: pointer; }
button.chip:hover { border-color: var(--quiet); }
.chip[aria-pressed="true"] { border-color: currentColor; box-shadow: inset 0 0 0 1px currentColor; }
.chip b { font-variant-numeric: tabular-nums; }
.dot { width: 10px; height: 10px; border-radius: 50%; background: currentColor; flex: none; }
.badge { display: inline-flex; align-items: center; gap: 6px; font-weight: 600; white-space: nowrap; }
.code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 13px; }
.codes { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: -4px 0 14px; padding: 0; list-style: none; }
.troubles { columns: 2 400px; column-gap: 12px; }
.trouble { border: 1px solid var(--rule); border-left: 4px solid var(--failing); border-radius: 8px; padding: 12px 14px; margin-bottom: 12px; break-inside: avoid; }
.trouble.distrusted { border-left-color: var(--distrusted); }
.trouble .head { display: flex; flex-wrap: wrap; gap: 2px 12px; align-items: baseline; justify-content: space-between; }
.trouble .facts { font-size: 13px; color: var(--quiet); margin-top: 2px; }
.trouble .note { margin-top: 6px; overflow-wrap: anywhere; }
/* Reversed, so that it starts scrolled to its end, where the reason usually is. */
.log { display: flex; flex-direction: column-reverse; margin-top: 8px; background: var(--log); border-radius: 6px; padding: 8px 10px; max-height: 190px; overflow-y: auto; }
.log pre { margin: 0; font-size: 12.5px; line-height: 1.45; white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--accent); margin-top: 8px; }
.more > summary { margin: 14px 0 12px; font-weight: 600; }
.tools { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; justify-content: space-between; margin-bottom: 12px; }
.tools h2 { margin: 0; }
#count { margin-right: auto; }
.tools label { display: flex; gap: 8px; align-items: center; flex: 0 1 300px; }
.tools input { font: inherit; color: inherit; background: var(--field); border: 1px solid var(--rule); border-radius: 8px; padding: 7px 10px; width: 100%; min-width: 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 8px 10px; border-top: 1px solid var(--rule); vertical-align: top; }
thead th { border-top: 0; color: var(--quiet); font-weight: 600; white-space: nowrap; padding-top: 0; }
tbody tr:hover { background: color-mix(in srgb, var(--rule) 35%, transparent); }
td.number { font-variant-numeric: tabular-nums; }
td.host { font-weight: 600; overflow-wrap: anywhere; min-width: 230px; }
td.why { color: var(--quiet); overflow-wrap: anywhere; min-width: 160px; max-width: 380px; }
td.why .code { color: var(--ink); display: block; }
.clip { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
td.seen, td.disk { white-space: nowrap; }
.sort { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
.sort::after { content: "\\2195"; margin-left: 4px; opacity: 0.35; }
[aria-sort="ascending"] .sort::after { content: "\\2191"; opacity: 1; }
[aria-sort="descending"] .sort::after { content: "\\2193"; opacity: 1; }
.meter { width: 64px; height: 6px; margin-left: 8px; border-radius: 3px; vertical-align: middle; }
.meter .track { fill: var(--rule); } .meter .used { fill: var(--quiet); }
.low .used { fill: var(--failing); } .low { color: var(--failing); }
.all { margin-top: 12px; }
footer { color: var(--quiet); font-size: 13px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
.visually-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
[hidden] { display: none !important; }
@media (max-width: 760px) {
  .wrap { padding: 16px 12px 32px; }
  .card { padding: 14px; border-radius: 8px; }
  .big { font-size: 28px; }
  .plot svg { height: 120px; }
  .x span:nth-child(2) { display: none; }
  .tools label { flex: 1 1 100%; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody { display: block; }
  tr { display: grid; grid-template-columns: 1fr auto; gap: 2px 12px; padding: 10px 0; border-top: 1px solid var(--rule); }
  td { display: block; border: 0; padding: 0; min-width: 0; }
  td.host { grid-column: 1; min-width: 0; } td.standing { grid-column: 2; text-align: right; }
  td.release::before { content: "release "; color: var(--quiet); }
  td.seen { text-align: right; color: var(--quiet); }
  td.why, td.flags { grid-column: 1 / -1; max-width: none; order: 1; }
  td.disk { grid-column: 1 / -1; color: var(--quiet); order: 2; }
  td.disk::before { content: "disk, free "; }
  td.seen::before { content: "seen "; }
  td:empty { display: none; }
  td.release:empty { display: block; } td.release:empty::before { content: "no release"; }
}
@media print {
  :root { color-scheme: light; }
  .tools label, .all { display: none; }
  .card, .trouble { break-inside: avoid; }
}
`;
