"use strict";

// Without script a page shows everything, in the order in which it was written.
const LONG = 30; // rows; a longer table shows its first and a button for the rest

function cellOrder(cell) {
  const given = cell.dataset.order;
  const text = (cell.firstChild?.textContent ?? "").trim();
  if (given !== undefined) return Number(given);
  const number = /^[+-]?\d[\d,.]*/.exec(text);
  return number ? Number(number[0].replaceAll(",", "")) : text;
}

// Numbers before words before empty cells.
function compare(a, b) {
  const kinds = [a, b].map((x) => (typeof x === "number" ? 0 : x ? 1 : 2));
  if (kinds[0] !== kinds[1]) return kinds[0] - kinds[1];
  return kinds[0] === 0 ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(table, column, descending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, order: cellOrder(row.cells[column]) }));
  rows.sort((a, b) => {
    if (a.order === "" || b.order === "") return compare(a.order, b.order);
    return descending ? compare(b.order, a.order) : compare(a.order, b.order);
  });
  body.append(...rows.map((x) => x.row));
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    head.removeAttribute("aria-sort");
    if (place === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  });
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      // The first click shows large numbers first, and words from A.
      const first = [...table.tBodies[0].rows].map((row) => cellOrder(row.cells[column]));
      const numbers = first.some((x) => typeof x === "number");
      sortBy(table, column, before ? before === "ascending" : numbers);
    });
  });
}

function makeShort(table) {
  const rows = table.tBodies[0].rows.length;
  if (rows <= LONG) return;
  const box = table.closest(".scroll");
  const tools = document.createElement("div");
  tools.className = "tools";
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "Find a row";
  search.setAttribute("aria-label", `Find a row of ${table.getAttribute("aria-label") ?? "the table"}`);
  const button = document.createElement("button");
  button.type = "button";
  const show = (short) => {
    table.classList.toggle("short", short);
    button.setAttribute("aria-expanded", String(!short));
    button.textContent = short ? `Show all ${rows} rows` : "Show fewer rows";
  };
  button.addEventListener("click", () => show(!table.classList.contains("short")));
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    table.classList.toggle("searched", wanted !== "");
    for (const row of table.tBodies[0].rows) {
      row.classList.toggle("found", row.cells[0].textContent.toLowerCase().includes(wanted));
    }
  });
  show(true);
  tools.append(search, button);
  box.before(tools);
}

// A box that scrolls can be scrolled from the keyboard.
function noteBoxes() {
  for (const box of document.querySelectorAll(".scroll")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

// A link into a fold opens it.
function openTarget() {
  const id = decodeURIComponent(location.hash.slice(1));
  let fold = id && document.getElementById(id)?.closest("details");
  while (fold) {
    fold.open = true;
    fold = fold.parentElement.closest("details");
  }
  if (id) document.getElementById(id)?.scrollIntoView();
}

for (const table of document.querySelectorAll("table")) {
  if (table.tHead && table.tBodies[0]?.rows.length > 1) makeSortable(table);
  if (table.tBodies[0]) makeShort(table);
}
noteBoxes();
openTarget();
addEventListener("resize", noteBoxes);
addEventListener("hashchange", openTarget);
document.addEventListener("toggle", noteBoxes, true);
