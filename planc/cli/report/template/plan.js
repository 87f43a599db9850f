"use strict";
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

// ---------------------------------------------------------------- details of a group

function details(group) {
  const parts = [];
  if (group.mixing) parts.push(element("p", {}, `Mixing: ${group.mixing}.`));
  const present = group.sides.map((side, i) => [side, i]).filter(([side]) => side);
  const units = figure("Units", ...present.flatMap(([side, i]) => strips(side, i)),
    ...present.map(([side, i]) => unitText(side, i)));
  const scores = present.filter(([side]) => side.scores).map(([side, i]) => histogram(side, i));
  parts.push(element("div", { class: scores.length ? "pair" : "" }, units, ...scores));
  parts.push(figure("Tensors of the group", graph(group), members(group)));
  return parts;
}

function figure(title, ...children) {
  return element("figure", {}, element("h3", {}, title), ...children);
}

function plan(i) {
  return several ? element("b", { class: `letter plan${i}` }, letters[i]) : "";
}

function marks(side) {
  const bytes = atob(side.bits);
  const found = new Uint8Array(side.size);
  for (let i = 0; i < side.size && side.bits; i++) found[i] = bytes.charCodeAt(i >> 3) >> (i & 7) & 1;
  return found;
}

function strips(side, i) {
  const gone = marks(side);
  const cells = side.size / side.rows;
  const lines = side.rows <= 16 ? side.rows : 1;
  const drawings = [];
  for (let row = 0; row < lines; row++) {
    const part = lines === side.rows ? gone.subarray(row * cells, (row + 1) * cells) : gone;
    drawings.push(strip(part, several ? `plan${i}` : "unit", lines > 4 ? 7 : 18));
  }
  return drawings;
}

function unitText(side, i) {
  const rows = side.rows > 1 ? ` in ${side.rows} rows` : "";
  const text = ` ${count(side.removed)} of ${count(side.size)}${rows} removed: ${ranges(marks(side))}`;
  return element("figcaption", {}, plan(i), side.removed ? text : " none removed");
}

// a column for each unit, or for a bin of units where they are many, as high as its removed share
function strip(gone, kind, height) {
  const columns = Math.min(gone.length, 256);
  const sums = new Float64Array(columns), sizes = new Float64Array(columns);
  gone.forEach((is, unit) => {
    const column = Math.floor(unit * columns / gone.length);
    sums[column] += is;
    sizes[column] += 1;
  });
  let path = "";
  for (let from = 0, to = 0; from < columns; from = to) {
    const share = sums[from] / sizes[from];
    while (to < columns && sums[to] / sizes[to] === share) to++;
    if (share) path += `M${from} 1h${to - from}v-${+share.toFixed(3)}h-${to - from}z`;
  }
  return drawn("svg", { class: "strip", viewBox: `0 0 ${columns} 1`, preserveAspectRatio: "none",
    height, "aria-hidden": "true" }, drawn("path", { class: kind, d: path }));
}

function ranges(gone) {
  const found = [];
  for (let i = 0; i < gone.length; i++) {
    if (!gone[i]) continue;
    const from = i;
    while (gone[i + 1]) i++;
    found.push(from === i ? `${from}` : `${from}–${i}`);
  }
  const more = found.length > 24 ? `, … and ${count(found.length - 24)} more ranges` : "";
  return found.slice(0, 24).join(", ") + more;
}

const rounded = (score) => Number(score.toPrecision(3)).toString().replace("-", "−");

function histogram(side, i) {
  const s = side.scores;
  const scale = s.log ? Math.log : (score) => score;
  const place = (score) => s.high > s.low
    ? 100 * (scale(score) - scale(s.low)) / (scale(s.high) - scale(s.low)) : 0;
  const tallest = Math.max(...s.kept.map((kept, bin) => kept + s.removed[bin]));
  const bars = [], step = 100 / s.kept.length;
  const bar = (kind, bin, from, number) => number && bars.push(drawn("rect", { class: kind,
    x: `${bin * step + 0.15}%`, width: `${step - 0.3}%`, y: 110 - 100 * (from + number) / tallest,
    height: 100 * number / tallest }));
  s.kept.forEach((kept, bin) => {
    bar("gone", bin, 0, s.removed[bin]);
    bar(several ? `plan${i}` : "kept", bin, s.removed[bin], kept);
  });
  const lines = [drawn("line", { class: "base", x1: 0, x2: "100%", y1: 110.5, y2: 110.5 })];
  if (s.at !== null) {
    const x = `${place(s.at)}%`;
    lines.push(drawn("line", { class: "threshold", x1: x, x2: x, y1: 0, y2: 110 }));
  } else if (s.over) {
    bars.unshift(drawn("rect", { class: "overlap", x: `${place(s.kept_from)}%`, y: 0, height: 110,
      width: `${place(s.removed_to) - place(s.kept_from)}%` }));
  }
  const ends = [drawn("text", { x: 0, y: 126 }, rounded(s.low)),
    drawn("text", { x: "100%", y: 126, "text-anchor": "end" }, rounded(s.high)),
    drawn("text", { x: "50%", y: 126, "text-anchor": "middle" }, s.log ? "score, logarithmic" : "score")];
  const shape = drawn("svg", { height: 132, role: "img", "aria-label": "Distribution of scores" },
    ...bars, ...lines, ...ends);
  return figure("Scores", shape, element("figcaption", {}, plan(i), " ", scoreText(s)));
}

function scoreText(s) {
  if (s.at !== null) return `Threshold ${rounded(s.at)}: every removed unit scores below every kept one.`;
  if (s.over) {
    return `${count(s.over)} removed unit${s.over === 1 ? "" : "s"} above the lowest kept score,`
      + ` ${rounded(s.kept_from)}: shaded.`;
  }
  return s.removed_to === null ? "No unit is removed." : "Scores of removed and kept units meet.";
}

// ---------------------------------------------------------------- graph of a group

const dims = (shape) => shape.length ? shape.join(" × ") : "scalar";
const MOST = 8, HIGH = 44, WIDE = 300, GAP = 70, MIDDLE = 220;

function shapes(place) {
  const [name, before, ...after] = record.tensors[place];
  const changed = !several && after[0] ? ` → ${dims(after[0])}` : "";
  return `${name.split(".").pop()} ${dims(before)}${changed}`;
}

function cut(text, most) {
  return text.length > most ? "…" + text.slice(text.length - most + 1) : text;
}

function box(x, y, module, tensors) {
  const first = shapes(tensors[0][0]);
  const more = tensors.length > 1 ? ` +${tensors.length - 1}` : "";
  return drawn("g", {}, drawn("title", {}, [module, ...tensors.map(([place]) => shapes(place))].join("\n")),
    drawn("rect", { x, y, width: WIDE, height: HIGH - 8, rx: 5 }),
    drawn("text", { class: "name", x: x + 10, y: y + 15 }, cut(module || "(the model itself)", 38)),
    drawn("text", { x: x + 10, y: y + 29 }, (first.length > 44 ? first.slice(0, 43) + "…" : first) + more));
}

function side(nodes, x, middle, from, to) {
  const shown = nodes.length > MOST ? nodes.slice(0, MOST - 1) : nodes;
  const lines = shown.length + (nodes.length > shown.length);
  const top = middle - lines * HIGH / 2;
  const parts = shown.flatMap(([module, , tensors], i) => {
    const y = top + i * HIGH + HIGH / 2 - 4, end = middle + (i - (lines - 1) / 2) * 4;
    const [a, b] = from === null ? [x + WIDE, to] : [from, x];
    const [ya, yb] = from === null ? [y, end] : [end, y];
    const bend = (a + b) / 2;
    return [drawn("path", { d: `M${a} ${ya}C${bend} ${ya} ${bend} ${yb} ${b} ${yb}` }),
      box(x, top + i * HIGH, module, tensors)];
  });
  if (nodes.length > shown.length) {
    parts.push(drawn("text", { x: x + 10, y: top + (lines - 1) * HIGH + 22 },
      `and ${nodes.length - shown.length} more modules`));
  }
  return parts;
}

function graph(group) {
  const of = (role) => group.nodes.filter(([, kind]) => kind === role);
  const [writers, carriers, readers] = [of("writes"), of("carries"), of("reads")];
  const carried = carriers.slice(0, carriers.length > 6 ? 5 : 6);
  const hubHigh = 52 + (carriers.length ? 20 : 0) + 16 * carriers.length ** 0 * carried.length
    + (carriers.length > carried.length ? 16 : 0);
  const lines = Math.min(MOST, Math.max(writers.length, readers.length, 1));
  const high = Math.max(hubHigh, lines * HIGH) + 24, middle = 22 + (high - 24) / 2;
  const left = WIDE + GAP, right = left + MIDDLE, top = middle - hubHigh / 2;
  const texts = [group.sides.map((s) => s ? `${count(s.size)} → ${count(s.size - s.removed)}` : "–")
    .slice(0, 1)[0] + ` ${group.kind}`];
  const hub = [drawn("rect", { class: "hub", x: left, y: top, width: MIDDLE, height: hubHigh, rx: 7 }),
    drawn("text", { class: "strong", x: left + 12, y: top + 20 }, several
      ? `${count(group.sides.find(Boolean).size)} ${group.kind}` : texts[0]),
    drawn("text", { x: left + 12, y: top + 37 }, cut(group.name, 32))];
  carried.forEach(([module], i) => hub.push(drawn("text", { class: "name", x: left + 12,
    y: top + 75 + 16 * i }, drawn("title", {}, module), cut(module || "(the model itself)", 27))));
  if (carriers.length) hub.push(drawn("text", { x: left + 12, y: top + 58 }, "carried through"));
  if (carriers.length > carried.length) {
    hub.push(drawn("text", { x: left + 12, y: top + 75 + 16 * carried.length },
      `and ${carriers.length - carried.length} more modules`));
  }
  const titles = [["written by", 0, writers], ["read by", right + GAP, readers]]
    .map(([text, x, nodes]) => drawn("text", { x, y: 11 }, nodes.length ? text : ""));
  return drawn("svg", { class: "graph", viewBox: `0 0 ${right + GAP + WIDE} ${high}`, role: "img",
    "aria-label": `${writers.length} modules write the group, ${readers.length} read it` },
    ...titles, ...side(writers, 0, middle, null, left), ...side(readers, right + GAP, middle, right, null),
    ...hub);
}

function members(group) {
  const found = group.nodes.flatMap(([, , tensors]) => tensors);
  const list = element("ul", {}, ...found.map(([place, dim]) => element("li", {},
    broken(record.tensors[place][0]), ` dimension ${dim}`)));
  return element("details", {}, element("summary", {}, `${count(found.length)} dimensions of tensors`), list);
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
  const theme = remembered();
  setTheme(themes.includes(theme) ? theme : "auto");
}

begin();
