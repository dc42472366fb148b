// Pieces that several panels are made of. Names and cells become text nodes, and nothing else.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "class") node.className = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child || child === 0));
  return node;
}

export const fill = (node, ...children) => node.replaceChildren(...children.flat(Infinity).filter(Boolean));

export const count = (n) => n.toLocaleString("en");
export const counted = (n, noun, plural = `${noun}s`) => `${count(n)} ${n === 1 ? noun : plural}`;

// A number with `digits` digits; whole ones in full.
export function number(value, digits = 5) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  let text;
  if (Number.isInteger(value) && size < 1e12) text = size < 1e4 ? String(value) : count(value);
  else if (size >= 1e9 || (size < 1e-4 && size > 0)) text = value.toExponential(Math.min(3, digits - 1));
  else if (size >= 10 ** (digits - 1)) text = count(Math.round(value));
  else text = String(Number(value.toPrecision(digits)));
  return text.replace("-", "−").replace("e−", "e-");
}

export const percent = (share) =>
  `${share > 0 && share < 0.0995 ? Number((100 * share).toPrecision(2)) : Math.round(100 * share)} %`;

// A contribution in nats: two decimals are enough to compare, and columns of them line up.
export function nats(share) {
  const text = Math.abs(share) < 0.005 ? "0" : Math.abs(share) < 1000 ? share.toFixed(2) : number(share, 3);
  return text.replace("-", "−");
}

// A cell as a reader knows it.
export function cell(value, type, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "missing";
  if (typeof value === "number") {
    if (type === "time" && Math.abs(value) < 8e12) return new Date(1000 * value).toISOString().slice(0, 16).replace("T", " ");
    return number(value, digits);
  }
  if (typeof value === "boolean") return value ? "true" : "false";
  if (type === "time") return String(value).replace("T", " ").replace(/:00(\.0+)?(Z|\+00:00)?$/, "");
  return String(value);
}

export const isMissing = (value) => value === null || value === undefined || Number.isNaN(value);

const LONGEST = 120; // characters of a cell; its title has all

export function cellNode(tag, value, type, digits) {
  const text = cell(value, type, digits);
  const missing = isMissing(value);
  const kind = type === "time" ? "timestamp" : typeof value === "number" || missing ? "figure" : "text";
  const shown = text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text;
  return el(tag, { class: `${kind}${missing ? " missing" : ""}`, title: text.length > 9 ? text : null }, shown);
}

// The name of a column, cut by the style sheet where it is long, and whole on request.
export const name = (text) => el("span", { class: "name", title: text }, text || "(no name)");

// Rows of few columns and many lines are sequences: one line per column, and time from the left.
const isSequence = (shape) => shape.length === 2 && shape[1] <= 6 && shape[0] >= 3 * shape[1];

// A canvas with a row's cells as an image, between black and white at `low` and `high`.
export function picture(values, shape, [low, high], label, canvas = el("canvas", { role: "img" })) {
  if (isSequence(shape)) return sequence(values, shape, [low, high], label, canvas);
  const [height, width] = shape;
  const depth = shape.slice(2).reduce((a, b) => a * b, 1);
  paint(canvas, width, height, (k) => {
    const first = k * depth;
    let [r, g, b] = [0, 1, 2].map((part) => values[first + part]);
    if (depth !== 3) {
      let sum = 0;
      for (let part = 0; part < depth; part++) sum += values[first + part];
      r = g = b = sum / depth;
    }
    const shade = (value) => (255 * (value - low)) / (high - low || 1);
    return isMissing(r) || isMissing(g) ? [0, 0, 0, 0] : [shade(r), shade(g), shade(b), 255];
  });
  canvas.className = "picture";
  canvas.setAttribute("aria-label", label);
  canvas.classList.toggle("smooth", Math.max(width, height) > 200);
  // Very long or flat images are squeezed.
  canvas.style.aspectRatio = Math.min(4, Math.max(0.5, width / height));
  return canvas;
}

const LINES = ["#56b4e9", "#f08a3c", "#2fb58a", "#e58cc0", "#e0c040", "#b9c0c7"];

function sequence(values, [length, depth], [low, high], label, canvas) {
  [canvas.width, canvas.height] = [240, 100];
  const context = canvas.getContext("2d");
  for (let part = 0; part < depth; part++) {
    context.beginPath();
    context.strokeStyle = LINES[part];
    context.lineWidth = 3;
    let down = false;
    for (let k = 0; k < length; k++) {
      const value = values[k * depth + part];
      const at = [5 + (230 * k) / (length - 1), 5 + (90 * (high - value)) / (high - low || 1)];
      if (isMissing(value)) down = false;
      else if (down) context.lineTo(...at);
      else context.moveTo(...at);
      down = !isMissing(value);
    }
    context.stroke();
  }
  canvas.className = "picture smooth";
  canvas.setAttribute("aria-label", label);
  return canvas;
}

// Contributions of pixels to the anomaly score: orange above zero, blue below.
export function heat(values, shape, label) {
  const [height, width] = shape;
  const depth = shape.slice(2).reduce((a, b) => a * b, 1);
  const sums = Float64Array.from({ length: width * height }, (_, k) => {
    let sum = 0;
    for (let part = 0; part < depth; part++) sum += values[k * depth + part] ?? 0;
    return sum;
  });
  const most = sums.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
  const canvas = el("canvas", { role: "img" });
  const colour = (k) => [...(sums[k] > 0 ? [213, 94, 0] : [0, 114, 178]), 255 * Math.sqrt(Math.abs(sums[k]) / most)];
  if (isSequence(shape)) paint(canvas, height, width, (k) => colour((k % height) * width + Math.floor(k / height)));
  else paint(canvas, width, height, colour);
  canvas.style.aspectRatio = isSequence(shape) ? 2.4 : Math.min(4, Math.max(0.5, width / height));
  canvas.className = "picture heat";
  canvas.setAttribute("aria-label", label);
  return canvas;
}

function paint(canvas, width, height, colour) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let k = 0; k < width * height; k++) image.data.set(colour(k), 4 * k);
  context.putImageData(image, 0, 0);
}

export const captioned = (node, text) => el("figure", {}, node, el("figcaption", {}, text));

// A bar from the middle, to the right for what is above 0; `share` from -1 to 1.
export function bar(share, label) {
  const inner = el("i", { class: share < 0 ? "below" : "above" });
  inner.style.width = `${50 * Math.min(1, Math.abs(share))}%`;
  inner.style[share < 0 ? "right" : "left"] = "50%";
  return el("span", { class: "bar", role: "img", "aria-label": label }, inner);
}

export function table(caption, titles, rows, attributes = {}) {
  return el(
    "table",
    attributes,
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, titles.map(([title, kind]) => el("th", { scope: "col", class: kind }, title)))),
    el("tbody", {}, rows),
  );
}

// How far a column's cell is from its reconstruction, in the column's own spread.
export function distance(column, a, b) {
  if (isMissing(a) || isMissing(b) || !column.seen) return -1;
  if (column.type === "time") return Math.abs(Date.parse(a) - Date.parse(b)) / 1000 / (column.spread || 1);
  if (typeof a !== "number" || typeof b !== "number") return a === b ? 0 : 1;
  return Math.abs(a - b) / (column.spread || 1);
}

// Observed and reconstructed cells, the biggest differences first.
export function comparison(about, cells, others, { most, other, caption }) {
  const own = about.columns.filter((column) => column.own);
  const order = own
    .map((column, i) => [distance(column, cells[i], others[i]), i])
    .sort((a, b) => b[0] - a[0]);
  const rows = order.slice(0, most).map(([far, i]) =>
    el(
      "tr",
      { class: far >= 1 ? "far" : "" },
      el("th", { scope: "row" }, name(own[i].name)),
      cellNode("td", cells[i], own[i].type),
      own[i].seen ? cellNode("td", others[i], own[i].type) : el("td", { class: "missing" }, "not used"),
    ),
  );
  const titles = [["column"], ["observed", "figure"], [other, "figure"]];
  return table(caption, titles, rows, { class: "comparison" });
}

// A row's number, and its name if it has one.
export function called(row) {
  return `Row ${count(row.row)}${row.name === null ? "" : ` (${row.name})`}`;
}

// A row's standing: number, name, score, p-value, label.
export function standing(row) {
  const anomaly = row.label < 0;
  return [
    el("strong", {}, called(row)),
    el("span", { class: `label ${anomaly ? "anomaly" : "normal"}` }, anomaly ? "anomaly" : "normal"),
    el("span", { class: "figures" }, `score ${number(row.score)}, p-value ${number(row.p_value, 3)}`),
  ];
}

// Each column's share of minus the score; together with the base they are minus the score.
export function reasons(about, row, why, most) {
  const parts = [];
  if (about.image) {
    const { row_shape: shape, range } = about;
    parts.push(
      el(
        "div",
        { class: "pictures" },
        captioned(picture(why.observed, shape, range, `Row ${row.row}, observed`), "observed"),
        captioned(picture(why.expected, shape, range, `Row ${row.row}, expected`), "expected"),
        captioned(heat(why.contribution, shape, "Contribution of each pixel: orange lowers the row's score, blue raises it"), "contribution"),
      ),
    );
  } else {
    parts.push(contributions(about, why, most));
  }
  const minus = -row.score;
  parts.push(
    el(
      "p",
      { class: "sum" },
      "base ",
      el("data", { class: "base", value: why.base }, number(why.base)),
      " + columns ",
      el("data", { class: "columns", value: why.sum }, number(why.sum)),
      " = ",
      el("data", { class: "total", value: minus }, number(minus)),
      ", minus the score",
    ),
  );
  return parts;
}

function contributions(about, why, most) {
  const types = new Map(about.columns.filter((c) => c.own).map((c) => [c.name, c]));
  const order = why.contribution.map((share, i) => [share, i]).sort((a, b) => b[0] - a[0]);
  const seen = order.filter(([, i]) => types.get(why.columns[i])?.seen !== false);
  const largest = Math.max(...seen.map(([share]) => Math.abs(share)), 1e-12);
  const rows = seen.slice(0, most).map(([share, i]) => {
    const type = types.get(why.columns[i])?.type;
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, name(why.columns[i])),
      cellNode("td", why.observed[i], type),
      cellNode("td", why.expected[i], type),
      el("td", { class: "share" }, bar(share / largest, `${nats(share)} nats`), el("span", { class: "figure" }, nats(share))),
    );
  });
  const titles = [["column"], ["observed", "figure"], ["expected", "figure"], ["contribution", "share"]];
  const laidOut = table("Contribution of each column to minus the score, in nats", titles, rows, { class: "reasons" });
  const left = seen.length - rows.length;
  const rest = seen.slice(most).reduce((sum, [share]) => sum + share, 0);
  if (!left) return laidOut;
  return el("div", {}, laidOut, el("p", { class: "quiet" }, `and ${counted(left, "more column")}, together ${nats(rest)}`));
}

// The first `most` columns of reasons, the largest first, as short bars for a list.
export function glimpse(about, why) {
  const order = why.contribution.map((share, i) => [share, i]).sort((a, b) => b[0] - a[0]);
  const [largest] = order[0];
  return order.slice(0, 3).filter(([share]) => share > 0).map(([share, i]) =>
    el("span", { class: "glimpse" }, name(why.columns[i]), bar(share / largest, `${nats(share)} nats`)),
  );
}
