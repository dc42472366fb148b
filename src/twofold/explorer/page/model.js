// The model panel: facts, learning curves, layers, columns.

import { ticks } from "./map.js";
import { cellNode, count, counted, el, fill, name, number, table } from "./parts.js";

const SVG = "http://www.w3.org/2000/svg";
const BOX = { width: 400, height: 210, left: 52, right: 10, top: 12, bottom: 34 };

export class ModelPanel {
  constructor(root, app) {
    const { about } = app;
    const { facts, summary } = about.model;
    fill(
      root,
      el("dl", { class: "facts" }, Object.entries(facts).map(([title, text]) => [el("dt", {}, title), el("dd", {}, text)])),
      about.history.length > 0 && el("h2", {}, "Learning curves"),
      about.history.length > 0 && curves(about.history, about.best_epoch),
      el("h2", {}, "Layers"),
      el("pre", { tabindex: "0", "aria-label": "Layers" }, summary),
      el("h2", {}, "Columns"),
      columns(about),
    );
  }

  show() {}
}

function columns(about) {
  const own = about.columns.filter((column) => column.own);
  const kinds = new Map();
  for (const column of own) kinds.set(column.kind, (kinds.get(column.kind) ?? 0) + 1);
  const counts = [...kinds].map(([kind, n]) => `${count(n)} ${kind}`).join(", ");
  const first = own.slice(0, 200);
  const rows = first.map((column) =>
    el("tr", {}, el("th", { scope: "row" }, name(column.name)), el("td", { class: "text" }, column.kind), el("td", { class: "text" }, column.note ?? "")),
  );
  const titles = [["column"], ["kind", "text"], ["note", "text"]];
  const listed = table("Columns", titles, rows, { class: "columns" });
  return el("details", { open: own.length <= 12 }, el("summary", {}, `${counted(own.length, "column")}: ${counts}`), listed, own.length > first.length && el("p", { class: "quiet" }, `and ${count(own.length - first.length)} more`));
}

function draw(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function curves(history, best) {
  const lines = [
    ["loss", "training"],
    ["validation_loss", "held out"],
  ].filter(([key]) => history.some((epoch) => Number.isFinite(epoch[key])));
  const losses = lines.flatMap(([key]) => history.map((epoch) => epoch[key])).filter(Number.isFinite);
  let [low, high] = [Math.min(...losses), Math.max(...losses)];
  // A loss that falls by more than a decade is read on a logarithmic axis.
  const isLog = low > 0 && high / low > 10;
  const up = isLog ? Math.log10 : (value) => value;
  [low, high] = [up(low), up(high)];
  const slack = 0.06 * (high - low) || Math.abs(high) * 0.01 || 1;
  [low, high] = [low - slack, high + slack];
  const last = history.at(-1).epoch;
  const first = Math.min(history[0].epoch, last - 1);
  const x = (epoch) => BOX.left + ((epoch - first) / (last - first || 1)) * (BOX.width - BOX.left - BOX.right);
  const y = (loss) => BOX.top + ((high - up(loss)) / (high - low)) * (BOX.height - BOX.top - BOX.bottom);
  const bottom = BOX.height - BOX.bottom;
  const said = lines.map(([key, title]) => `${title} ${number(history.at(-1)[key], 4)}`).join(", ");
  const svg = draw("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img", class: "curves", "aria-label": `Loss per epoch. After epoch ${last}: ${said}.` });
  for (const { value, text } of ticks(low, high, 5)) {
    const at = BOX.top + ((high - value) / (high - low)) * (bottom - BOX.top);
    svg.append(draw("line", { class: "grid", x1: BOX.left, x2: BOX.width - BOX.right, y1: at, y2: at }));
    svg.append(draw("text", { x: BOX.left - 6, y: at + 4, "text-anchor": "end" }, isLog ? number(10 ** value, 3) : text));
  }
  for (const { value } of ticks(first, last, 6)) {
    if (!Number.isInteger(value)) continue;
    svg.append(draw("text", { x: x(value), y: bottom + 16, "text-anchor": "middle" }, value));
  }
  svg.append(draw("text", { x: (BOX.left + BOX.width) / 2, y: BOX.height - 3, "text-anchor": "middle" }, "epoch"));
  if (best) {
    svg.append(draw("line", { class: "best", x1: x(best), x2: x(best), y1: BOX.top, y2: bottom }));
    const end = x(best) > BOX.width / 2 ? ["end", -5] : ["start", 5];
    svg.append(draw("text", { x: x(best) + end[1], y: BOX.top + 10, "text-anchor": end[0] }, `best: epoch ${best}`));
  }
  for (const [key] of lines) {
    const places = history.filter((epoch) => Number.isFinite(epoch[key])).map((epoch) => `${x(epoch.epoch)},${y(epoch[key])}`);
    svg.append(draw("polyline", { class: key, points: places.join(" ") }));
    if (places.length <= 30) {
      for (const place of places) {
        const [cx, cy] = place.split(",");
        svg.append(draw("circle", { class: key, cx, cy, r: 2.2 }));
      }
    }
  }
  const legend = el("p", { class: "curve-legend" }, lines.map(([key, title]) => el("span", { class: key }, title)), el("span", { class: "quiet" }, "loss in nats per cell"));
  return el("div", {}, svg, legend, numbers(history, lines));
}

function numbers(history, lines) {
  const rows = history.map((epoch) =>
    el("tr", {}, el("th", { scope: "row" }, String(epoch.epoch)), lines.map(([key]) => cellNode("td", epoch[key]))),
  );
  const titles = [["epoch"], ...lines.map(([, title]) => [title, "figure"])];
  return el("details", {}, el("summary", {}, "Numbers"), table("Loss per epoch", titles, rows, { class: "comparison" }));
}
