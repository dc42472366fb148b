// The map of the codes: axes, points, marks, and what mouse, fingers and keys do to them.

import { ANOMALY, Finder, pointsOn, SELECTED } from "./points.js";

const MARGIN = { left: 58, right: 14, top: 10, bottom: 42 };
const CLICK = 4; // pixels that a finger or mouse may stray
const FAINT = 0.1;

export class CodeMap {
  // `on` has hover(i, px, py), pick(i), select(polygon), view(inView, outside) and key(name).
  constructor(root, on) {
    this.root = root;
    this.on = on;
    [this.back, this.front, this.top] = root.querySelectorAll("canvas");
    this.points = pointsOn(this.front);
    this.x = this.y = new Float32Array();
    this.view = { x0: -1, x1: 1, y0: -1, y1: 1 };
    this.titles = [[""], [""]]; // of each axis, the longest first
    this.marks = [];
    this.selecting = false;
    this.hovered = -1;
    this.tool = "move";
    this.pointers = new Map();
    this.hidden = () => false;
    new ResizeObserver(() => this.resize()).observe(root);
    this.resize();
    this.listen();
  }

  // Positions in drawing order: anomalies, from `firstAnomaly` on, lie above the rest.
  setPoints(x, y, firstAnomaly, titles) {
    for (let i = 0; i < x.length; i++) if (x[i] !== x[i] || y[i] !== y[i]) x[i] = y[i] = Infinity;
    Object.assign(this, { x, y, titles, hovered: -1, finder: null });
    this.flags = new Uint8Array(x.length).fill(ANOMALY, firstAnomaly);
    this.points.set("x", x);
    this.points.set("y", y);
    this.points.set("flag", this.flags);
    this.extent = [extent(x, 0), extent(y, 0)];
    this.bulk = [extent(x, 0.001), extent(y, 0.001)].map((most, i) => {
      const [all, some] = [this.extent[i], most].map(([low, high]) => high - low);
      return all < 1.5 * some ? this.extent[i] : most; // nothing lies far out
    });
    this.fit();
  }

  // One colour of the palette per point; `hidden` tells which of the colours are not drawn.
  setShades(shades, palette, hidden) {
    this.hidden = (i) => hidden(shades[i]);
    this.points.set("shade", shades);
    this.points.set("palette", palette);
    this.finder = null;
    this.draw();
  }

  // `chosen` tells for each point whether it is selected; null ends the selection.
  setSelection(chosen) {
    this.selecting = chosen !== null;
    for (let i = 0; i < this.flags.length; i++) {
      this.flags[i] = (this.flags[i] & ANOMALY) | (chosen?.(i) ? SELECTED : 0);
    }
    this.points.set("flag", this.flags);
    this.draw();
  }

  setMarks(marks) {
    this.marks = marks;
    this.drawTop();
  }

  fit(all = false) {
    const [[x0, x1], [y0, y1]] = all ? this.extent : this.bulk;
    const [dx, dy] = [0.04 * (x1 - x0), 0.04 * (y1 - y0)];
    this.setView({ x0: x0 - dx, x1: x1 + dx, y0: y0 - dy, y1: y1 + dy });
  }

  setView(view) {
    // Beyond the digits of 32-bit numbers there is nothing to see.
    const least = (a, b, [from, to]) => b - a > 1e-5 * (to - from) && b - a < 1e3 * (to - from);
    if (this.extent && !(least(view.x0, view.x1, this.extent[0]) && least(view.y0, view.y1, this.extent[1])))
      return;
    this.view = view;
    this.finder = null;
    this.hovered = -1;
    this.draw();
  }

  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const { x0, x1, y0, y1 } = this.view;
    const [x, y] = this.toData(px, py);
    this.setView({
      x0: x + (x0 - x) * factor,
      x1: x + (x1 - x) * factor,
      y0: y + (y0 - y) * factor,
      y1: y + (y1 - y) * factor,
    });
  }

  pan(px, py) {
    const { x0, x1, y0, y1 } = this.view;
    const [dx, dy] = [(px * (x1 - x0)) / this.width, (py * (y1 - y0)) / this.height];
    this.setView({ x0: x0 - dx, x1: x1 - dx, y0: y0 + dy, y1: y1 + dy });
  }

  // Brings a place into the view, where it is not.
  show(x, y) {
    const { x0, x1, y0, y1 } = this.view;
    if ((x >= x0 && x <= x1 && y >= y0 && y <= y1) || !Number.isFinite(x + y)) return;
    const [dx, dy] = [x - (x0 + x1) / 2, y - (y0 + y1) / 2];
    this.setView({ x0: x0 + dx, x1: x1 + dx, y0: y0 + dy, y1: y1 + dy });
  }

  toData(px, py) {
    const { x0, x1, y0, y1 } = this.view;
    return [x0 + (px / this.width) * (x1 - x0), y1 - (py / this.height) * (y1 - y0)];
  }

  toPixels(x, y) {
    const { x0, x1, y0, y1 } = this.view;
    return [((x - x0) / (x1 - x0)) * this.width, ((y1 - y) / (y1 - y0)) * this.height];
  }

  // The corners of the view, as a selection.
  get corners() {
    const { x0, x1, y0, y1 } = this.view;
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
  }

  resize() {
    const { clientWidth, clientHeight } = this.root;
    this.ratio = Math.min(devicePixelRatio || 1, 3);
    this.width = Math.max(50, clientWidth - MARGIN.left - MARGIN.right);
    this.height = Math.max(50, clientHeight - MARGIN.top - MARGIN.bottom);
    for (const canvas of [this.back, this.top]) size(canvas, clientWidth, clientHeight, this.ratio);
    size(this.front, this.width, this.height, this.ratio);
    this.front.style.left = `${MARGIN.left}px`;
    this.front.style.top = `${MARGIN.top}px`;
    this.finder = null;
    this.draw();
  }

  // Draws at most once per frame, and resolves with the frame after.
  draw() {
    this.drawing ??= new Promise((resolve) => {
      requestAnimationFrame(() => {
        this.drawing = null;
        this.drawAxes();
        this.points.draw(this.view, this.sizes(), this.selecting ? FAINT : 1);
        this.drawTop();
        this.tellView();
        requestAnimationFrame(resolve);
      });
    });
    return this.drawing;
  }

  sizes() {
    const count = this.x.length;
    const base = count < 3_000 ? 6 : count < 20_000 ? 4.5 : count < 200_000 ? 3 : 2;
    const whole = this.bulk ? this.bulk[0][1] - this.bulk[0][0] : 1;
    const zoomed = Math.min(2.5, Math.max(1, (whole / (this.view.x1 - this.view.x0)) ** 0.35));
    const side = base * zoomed * this.ratio;
    return [side, side + 1.5 * this.ratio];
  }

  drawAxes() {
    const context = clear(this.back, this.ratio);
    const style = getComputedStyle(this.root);
    const colour = (name) => style.getPropertyValue(name).trim();
    const { left, top } = MARGIN;
    const { width, height, view } = this;
    context.font = `12px ${style.fontFamily}`;
    context.fillStyle = colour("--plot");
    context.fillRect(left, top, width, height);
    context.strokeStyle = colour("--grid");
    context.fillStyle = colour("--quiet");
    context.lineWidth = 1;
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const { value, text } of ticks(view.x0, view.x1, width / 90)) {
      const px = Math.round(left + this.toPixels(value, 0)[0]) + 0.5;
      line(context, px, top, px, top + height);
      context.fillText(text, px, top + height + 6);
    }
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const { value, text } of ticks(view.y0, view.y1, height / 60)) {
      const py = Math.round(top + this.toPixels(0, value)[1]) + 0.5;
      line(context, left, py, left + width, py);
      context.fillText(text, left - 7, py);
    }
    context.fillStyle = colour("--ink");
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    const title = (i, room) => {
      const fits = this.titles[i].find((text) => context.measureText(text).width <= room);
      return fits ?? fitted(context, this.titles[i].at(-1), room);
    };
    context.fillText(title(0, width), left + width / 2, top + height + 36);
    context.translate(13, top + height / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(title(1, height), 0, 0);
  }

  drawTop() {
    const context = clear(this.top, this.ratio);
    const style = getComputedStyle(this.root);
    const ink = style.getPropertyValue("--ink").trim();
    const page = style.getPropertyValue("--plot").trim();
    const accent = style.getPropertyValue("--accent").trim();
    context.translate(MARGIN.left, MARGIN.top);
    context.beginPath();
    context.rect(0, 0, this.width, this.height);
    context.clip();
    const ring = (px, py, radius, colour, width) => {
      for (const [stroke, w] of [[page, width + 3], [colour, width]]) {
        context.beginPath();
        context.arc(px, py, radius, 0, 2 * Math.PI);
        context.lineWidth = w;
        context.strokeStyle = stroke;
        context.stroke();
      }
    };
    for (const mark of this.marks) {
      const [px, py] = this.toPixels(mark.x, mark.y);
      ring(px, py, mark.small ? 5 : 8, mark.small ? accent : ink, 2.5);
      const near = (other) => other !== mark && Math.hypot(...this.toPixels(other.x, other.y).map((p, i) => p - [px, py][i])) < 24;
      if (mark.small && this.marks.some(near)) continue;
      context.font = `600 12px ${style.fontFamily}`;
      const side = px > this.width - 80 ? -1 : 1;
      context.textAlign = side > 0 ? "left" : "right";
      context.textBaseline = "middle";
      context.lineWidth = 4;
      context.lineJoin = "round";
      context.strokeStyle = page;
      context.strokeText(mark.text, px + 13 * side, py);
      context.fillStyle = mark.small ? accent : ink;
      context.fillText(mark.text, px + 13 * side, py);
    }
    if (this.hovered >= 0) ring(...this.toPixels(this.x[this.hovered], this.y[this.hovered]), 7, ink, 1.5);
    const path = this.path;
    if (path?.length > 1) {
      context.beginPath();
      context.moveTo(...path[0]);
      for (const place of path.slice(1)) context.lineTo(...place);
      context.closePath();
      context.globalAlpha = 0.14;
      context.fillStyle = accent;
      context.fill();
      context.globalAlpha = 1;
      context.lineWidth = 1.5;
      context.strokeStyle = accent;
      context.stroke();
    }
  }

  tellView() {
    const { x0, x1, y0, y1 } = this.view;
    let shown = 0;
    for (let i = 0; i < this.x.length; i++) {
      shown += this.x[i] >= x0 && this.x[i] <= x1 && this.y[i] >= y0 && this.y[i] <= y1;
    }
    // For those who test or script the page: which data the plot's rectangle shows.
    this.root.dataset.view = [x0, x1, y0, y1].join(" ");
    this.root.dataset.plot = [MARGIN.left, MARGIN.top, this.width, this.height].join(" ");
    this.on.view(shown, this.x.length - shown);
  }

  nearest(px, py) {
    this.finder ??= new Finder(this.x, this.y, this.view, this.width, this.height);
    return this.finder.nearest(px, py, this.hidden);
  }

  place(event) {
    const box = this.root.getBoundingClientRect();
    return [event.clientX - box.left - MARGIN.left, event.clientY - box.top - MARGIN.top];
  }

  listen() {
    const { root } = this;
    root.addEventListener("pointerdown", (event) => this.down(event));
    root.addEventListener("pointermove", (event) => this.move(event));
    root.addEventListener("pointerup", (event) => this.up(event));
    root.addEventListener("pointercancel", (event) => this.up(event, true));
    root.addEventListener("pointerleave", () => this.hover(-1));
    root.addEventListener("dblclick", () => this.fit());
    root.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const lines = event.deltaMode === 1 ? 30 : 1;
        this.zoom(Math.exp(event.deltaY * lines * 0.0015), ...this.place(event));
      },
      { passive: false },
    );
  }

  down(event) {
    if (event.button > 0) return;
    const at = this.place(event);
    this.root.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, at);
    this.started = this.pointers.size === 1 ? at : null; // two fingers do not click
    this.dragging = event.shiftKey ? "lasso" : this.tool;
    this.path = this.dragging !== "move" && this.started ? [at] : null;
    this.strayed = false;
    this.hover(-1);
  }

  move(event) {
    const at = this.place(event);
    const last = this.pointers.get(event.pointerId);
    if (!last) {
      if (event.pointerType !== "touch") this.hover(this.nearest(...at), ...at);
      return;
    }
    if (this.pointers.size === 2) this.pinch(event.pointerId, last, at);
    this.pointers.set(event.pointerId, at);
    if (!this.started) return;
    this.strayed ||= Math.hypot(at[0] - this.started[0], at[1] - this.started[1]) > CLICK;
    if (!this.strayed) return;
    if (this.dragging === "move") this.pan(at[0] - last[0], at[1] - last[1]);
    else {
      const [x, y] = this.started;
      const end = this.path.at(-1);
      if (this.dragging === "box") this.path = [[x, y], [at[0], y], at, [x, at[1]]];
      else if (Math.hypot(at[0] - end[0], at[1] - end[1]) >= 3) this.path.push(at);
      this.drawTop();
    }
  }

  pinch(id, last, at) {
    const other = [...this.pointers].find(([key]) => key !== id)[1];
    const apart = (p) => Math.max(10, Math.hypot(p[0] - other[0], p[1] - other[1]));
    this.path = null;
    this.pan((at[0] - last[0]) / 2, (at[1] - last[1]) / 2);
    this.zoom(apart(last) / apart(at), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
  }

  up(event, cancelled = false) {
    if (!this.pointers.delete(event.pointerId)) return;
    const { path, started } = this;
    this.path = null;
    this.started = null;
    this.drawTop();
    if (cancelled || !started) return;
    if (!this.strayed) {
      const i = this.nearest(...started);
      if (i >= 0) this.on.pick(i);
    } else if (path?.length > 2) this.on.select(path.map(([px, py]) => this.toData(px, py)));
  }

  hover(i, px, py) {
    if (i === this.hovered && i < 0) return;
    const changed = i !== this.hovered;
    this.hovered = i;
    if (changed) this.drawTop();
    this.on.hover(i, px + MARGIN.left, py + MARGIN.top);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [dx, dy] = [0.12 * this.width, 0.12 * this.height];
    const moves = {
      ArrowLeft: () => this.pan(dx, 0),
      ArrowRight: () => this.pan(-dx, 0),
      ArrowUp: () => this.pan(0, dy),
      ArrowDown: () => this.pan(0, -dy),
      "+": () => this.zoom(0.8),
      "=": () => this.zoom(0.8),
      "-": () => this.zoom(1.25),
      0: () => this.fit(),
      9: () => this.fit(true),
      Escape: () => this.on.key("escape"),
      Enter: () => this.on.key("enter"),
      n: () => this.on.key("next"),
      p: () => this.on.key("previous"),
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  }
}

function size(canvas, width, height, ratio) {
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
}

function clear(canvas, ratio) {
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  return context;
}

function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > width) end--;
  return `${text.slice(0, end)}…`;
}

// From the smallest value to the largest, without the outermost `share` at either end, for which a
// sample of the values is enough.
function extent(values, share) {
  let [low, high] = [Infinity, -Infinity];
  if (share) {
    const step = Math.ceil(values.length / 50_000) || 1;
    const seen = [];
    for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i])) seen.push(values[i]);
    if (!seen.length) return [-1, 1];
    seen.sort((a, b) => a - b);
    [low, high] = [share, 1 - share].map((q) => seen[Math.round(q * (seen.length - 1))]);
  } else {
    for (const value of values) {
      if (value < low) low = value;
      if (value > high && value < Infinity) high = value;
    }
  }
  return high > low ? [low, high] : Number.isFinite(low) ? [low - 1, low + 1] : [-1, 1];
}

// Round numbers between two, about `count` of them.
export function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high && found.length < 100; k++) {
    const value = k * step;
    const large = Math.max(Math.abs(low), Math.abs(high)) >= 1e6 || digits > 6;
    const text = large && value ? value.toExponential(2) : value.toFixed(digits);
    found.push({ value, text: text.replace("-", "−") });
  }
  return found;
}
