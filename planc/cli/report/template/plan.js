// The page's own script. It reads the record beside it, and writes texts as text only.
const record = JSON.parse(document.getElementById("data").textContent);
const letters = "ABC";
const several = document.body.classList.contains("several");
const byId = (id) => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const count = (number) => number.toLocaleString("en-US");

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  return filled(made, attributes, children);
}

function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  return filled(made, attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

// a name that may break after each dot
function broken(text) {
  const code = element("code");
  text.split(".").forEach((part, i, parts) => {
    code.append(i < parts.length - 1 ? part + "." : part);
    if (i < parts.length - 1) code.append(element("wbr"));
  });
  return code;
}

// ---------------------------------------------------------------- theme

const themes = ["auto", "light", "dark"];

function remembered(value) {
  try {
    if (value === undefined) return localStorage.getItem("planc-theme");
    localStorage.setItem("planc-theme", value);
  } catch { /* a page without storage forgets */ }
  return null;
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").lastElementChild.textContent = theme;
}

function nextTheme() {
  const now = document.documentElement.dataset.theme || "auto";
  const next = themes[(themes.indexOf(now) + 1) % themes.length];
  setTheme(next);
  remembered(next);
}

// ---------------------------------------------------------------- table of groups

const body = byId("table").tBodies[0];
const rows = all("tr", body);
const words = record.groups.map((group) => [group.name, group.kind,
  ...group.nodes.flatMap(([, , tensors]) => tensors.map(([place]) => record.tensors[place][0])),
].join("\n").toLowerCase());
const chosen = { filter: "all", kind: "", text: "", key: null, falling: false };

function isShown(row) {
  const at = Number(row.dataset.group);
  return (chosen.filter === "all" || row.classList.contains(chosen.filter))
    && (!chosen.kind || record.groups[at].kind === chosen.kind)
    && chosen.text.toLowerCase().split(/\s+/).every((word) => words[at].includes(word));
}

function refresh() {
  let shown = 0;
  for (const row of rows) {
    row.hidden = !isShown(row);
    shown += !row.hidden;
    if (row.detail) row.detail.hidden = row.hidden;
  }
  byId("shown").textContent = shown < rows.length ? `${count(shown)} of ${count(rows.length)}` : "";
  byId("none").hidden = shown > 0 || rows.length === 0;
}

function value(row, key) {
  const cell = row.cells[key];
  return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
}

function compared(a, b) {
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
}

// first by falling numbers or rising names, then the other way, then in the network's order
function sortBy(header) {
  const key = Number(header.dataset.key);
  const first = header.classList.contains("n");
  if (chosen.key !== key) Object.assign(chosen, { key, falling: first });
  else if (chosen.falling === first) chosen.falling = !first;
  else chosen.key = null;
  for (const other of all("th[data-key]", byId("table"))) {
    const is = Number(other.dataset.key) === chosen.key;
    other.setAttribute("aria-sort", !is ? "none" : chosen.falling ? "descending" : "ascending");
  }
  const order = rows.map((row, i) => [chosen.key === null ? i : value(row, chosen.key), i]);
  order.sort(([a, i], [b, j]) => (chosen.falling ? compared(b, a) : compared(a, b)) || i - j);
  body.append(...order.flatMap(([, i]) => rows[i].detail ? [rows[i], rows[i].detail] : [rows[i]]));
}

function toggle(row, open = !row.detail) {
  const button = row.cells[0].querySelector("button");
  button.setAttribute("aria-expanded", open);
  if (open && !row.detail) {
    const cell = element("td", { colspan: row.cells.length });
    cell.append(...details(record.groups[Number(row.dataset.group)]));
    row.detail = element("tr", { class: "detail" }, cell);
    row.after(row.detail);
  } else if (!open && row.detail) {
    row.detail.remove();
    delete row.detail;
  }
}

function reveal(at) {
  if (rows[at].hidden) reset();
  toggle(rows[at], true);
  rows[at].scrollIntoView({ block: "center" });
  rows[at].cells[0].querySelector("button").focus({ preventScroll: true });
}

function reset() {
  byId("search").value = "";
  Object.assign(chosen, { text: "", kind: "", filter: "all" });
  if (byId("kind")) byId("kind").value = "";
  pressed();
  refresh();
}

function pressed() {
  for (const button of all("[data-filter]")) {
    button.setAttribute("aria-pressed", button.dataset.filter === chosen.filter);
  }
}

// ---------------------------------------------------------------- tables on demand

const after = several ? [...letters].slice(0, record.plans).map((letter) => `after ${letter}`) : ["after"];
const tables = {
  tensors: [["tensor", "before", ...after], () => record.tensors
    .filter(([, , ...sizes]) => sizes.some((size) => size !== 0))
    .map(([name, before, ...sizes]) => [name, dims(before),
      ...sizes.map((size) => size === null ? "–" : size ? dims(size) : "same")])],
  attributes: [["attribute", "before", ...after], () => record.attributes],
  outputs: [["output", "before", ...after], () => record.outputs],
  constraints: [["constraint", "reason"], () => record.constraints],
};

function fill(holder) {
  const [headings, lines] = tables[holder.dataset.table];
  if (holder.querySelector("table")) return;
  const prose = holder.dataset.table === "constraints";
  const cells = (line) => line.map((text, i) => i && !prose
    ? element("td", { class: "n" }, text) : element("td", {}, i ? text : broken(text)));
  const head = headings.map((text, i) => element("th", i && !prose ? { class: "n" } : {}, text));
  holder.append(element("table", {}, element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...lines().map((line) => element("tr", {}, ...cells(line))))));
}

// ---------------------------------------------------------------- wiring

function move(step) {
  const shown = rows.filter((row) => !row.hidden).sort((a, b) => a.rowIndex - b.rowIndex);
  const now = shown.findIndex((row) => row.contains(document.activeElement)
    || row.detail?.contains(document.activeElement));
  const next = shown[Math.min(shown.length - 1, Math.max(0, now + step))];
  next?.cells[0].querySelector("button").focus();
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select");
  const focused = event.target.closest?.("#table tbody");
  if (event.key === "Escape" && event.target === byId("search")) { reset(); event.target.blur(); }
  else if (event.key === "Escape") rows.forEach((row) => toggle(row, false));
  else if (event.target === byId("search") && event.key === "ArrowDown") move(1);
  else if (typing) return;
  else if (event.key === "/") byId("search").focus();
  else if (event.key === "t") nextTheme();
  else if (focused && event.key === "ArrowDown") move(1);
  else if (focused && event.key === "ArrowUp") move(-1);
  else return;
  event.preventDefault();
}

function begin() {
  for (const row of rows) {
    row.classList.add("row");
    const name = row.cells[0].firstElementChild;
    const button = element("button", { type: "button", "aria-expanded": "false" });
    name.replaceWith(button);
    button.append(name);
    row.addEventListener("click", () => getSelection().isCollapsed && toggle(row));
  }
  for (const header of all("th[data-key]", byId("table"))) {
    const button = element("button", { type: "button" }, ...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sortBy(header));
  }
  for (const button of all("[data-filter]")) {
    button.addEventListener("click", () => { chosen.filter = button.dataset.filter; pressed(); refresh(); });
  }
  byId("search").addEventListener("input", (event) => { chosen.text = event.target.value; refresh(); });
  byId("kind")?.addEventListener("change", (event) => { chosen.kind = event.target.value; refresh(); });
  all(".columns g").forEach((g) => g.addEventListener("click", () => reveal(Number(g.dataset.group))));
  for (const holder of all("details[data-table]")) {
    const [, lines] = tables[holder.dataset.table];
    const total = holder.dataset.table === "tensors" ? null : lines().length;
    if (total === 0) holder.hidden = true;
    if (total) holder.firstElementChild.append(`: ${count(total)}`);
    holder.addEventListener("toggle", () => fill(holder));
  }
  for (const id of ["tools", "keys", "theme"]) byId(id).hidden = false;
  byId("theme").addEventListener("click", nextTheme);
  document.addEventListener("keydown", key);
  const facts = document.querySelector(".facts");
  let open = facts.open;
  addEventListener("beforeprint", () => { open = facts.open; facts.open = true; });
  addEventListener("afterprint", () => { facts.open = open; });
  const theme = remembered();
  setTheme(themes.includes(theme) ? theme : "auto");
}

begin();
