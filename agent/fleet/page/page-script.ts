/**
 * The page's script: filters, sorts and shortens the table. It reads nothing but what
 * stands in the page, and everything can be read without it. Its hash stands in the
 * page's content security policy.
 */
export const PAGE_SCRIPT = `
"use strict";
(() => {
  const SHOWN = 100;
  const body = document.querySelector("tbody");
  const rows = Array.from(body.rows);
  const chips = Array.from(document.querySelectorAll("button.chip"));
  const search = document.querySelector("input[type=search]");
  const count = document.querySelector("#count");
  const more = document.querySelector("#all");
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  let all = false;

  const apply = () => {
    const wanted = new Set(chips.filter((it) => it.getAttribute("aria-pressed") === "true").map((it) => it.dataset.standing));
    const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let matching = 0;
    for (const row of body.rows) {
      const fits = (wanted.size === 0 || wanted.has(row.dataset.standing)) && words.every((word) => texts.get(row).includes(word));
      if (fits) matching += 1;
      row.hidden = !fits || (!all && matching > SHOWN);
    }
    count.textContent = matching === rows.length ? rows.length + " hosts" : matching + " of " + rows.length + " hosts";
    more.hidden = all || matching <= SHOWN;
    more.textContent = "Show all " + matching;
  };

  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      apply();
    });
  }
  search.addEventListener("input", apply);
  more.addEventListener("click", () => { all = true; apply(); });

  const keyOf = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent;
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    // What is not known comes last.
    if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1;
    return a.localeCompare(b, "en", { numeric: true });
  };
  for (const button of document.querySelectorAll("button.sort")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of document.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const column = head.cellIndex;
      const keyed = Array.from(body.rows, (row) => [keyOf(row, column), row]);
      keyed.sort((a, b) => (up ? compare(a[0], b[0]) : compare(b[0], a[0])));
      body.append(...keyed.map(([, row]) => row));
      apply();
    });
  }
  for (const it of document.querySelectorAll("[data-needs-script]")) it.hidden = false;
  apply();
  document.documentElement.dataset.ready = "yes";
})();
`;
