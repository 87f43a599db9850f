"use strict";
// Details of a group: its units, the distribution of its scores, and the graph of its tensors.

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

