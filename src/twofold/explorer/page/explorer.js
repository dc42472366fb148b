// The explorer's page: asks what there is, draws the map, and lets panels follow the view's state.

import * as colour from "./colour.js";
import { DecoderPanel } from "./decoder.js";
import { CodeMap } from "./map.js";
import { ModelPanel } from "./model.js";
import { AnomaliesPanel, RowPanel, SelectionPanel } from "./panels.js";
import { captioned, cell, comparison, count, counted, el, fill, number, percent, picture, standing } from "./parts.js";
import { get, numbers, Rows } from "./service.js";
import { State } from "./state.js";

const $ = (id) => document.getElementById(id);
const PANELS = ["row", "anomalies", "selection", "decoder", "model"];
const NEIGHBORS = { x: "tsne1", y: "tsne2" }; // a map as a whole: one axis of it says nothing
const HOVER_PAUSE = 25; // milliseconds that the pointer rests before a row is asked for

class App {
  constructor(about) {
    this.about = about;
    this.rows = new Rows(about);
    this.mask = null;
    this.hiddenLevels = new Set();
    const keys = new Set([...about.shades, ...about.columns].map((entry) => entry.key));
    const axes = new Map(about.axes.map((axis) => [axis.key, axis]));
    this.axes = axes;
    const rowNumber = (value) => Number.isInteger(value) && value < about.n_rows;
    const allowed = {
      row: rowNumber,
      a: rowNumber,
      b: rowNumber,
      color: (value) => keys.has(value),
      x: (value) => axes.has(value),
      y: (value) => axes.has(value),
      points: (value) => about.sampled && ["sample", "all"].includes(value),
      panel: (value) => PANELS.includes(value),
      order: (value) => ["lowest", "highest", "row"].includes(value),
    };
    const [x, y] = about.default_axes;
    const defaults = { row: null, color: "score", x, y, points: "sample", panel: "row", a: null, b: null, order: "lowest" };
    this.state = new State(defaults, (name, value) => allowed[name](value));
    this.map = new CodeMap($("map"), {
      hover: (i, px, py) => this.hover(i, px, py),
      pick: (i) => this.pick(this.shown[i]),
      select: (polygon) => this.selectPolygon(polygon),
      view: (inView, outside) => this.noteView(inView, outside),
      key: (key) => this.mapKey(key),
    });
    const panels = { row: RowPanel, anomalies: AnomaliesPanel, selection: SelectionPanel, decoder: DecoderPanel, model: ModelPanel };
    this.panels = Object.fromEntries(
      Object.entries(panels).map(([name, Panel]) => [name, new Panel($(`panel-${name}`), this)]),
    );
    // An address that says nothing opens on what matters most.
    if (!location.hash && about.n_anomalies > 0) this.state.set({ panel: "anomalies" }, true);
    this.label();
    this.controls();
    this.tabs();
    this.state.listen((changed) => this.follow(changed));
    colour.onThemeChange(() => this.paint());
  }

  label() {
    const { about } = this;
    document.title = `${about.title} – twofold explorer`;
    $("title").textContent = about.title;
    $("title").title = about.title;
    const anomalies = `${counted(about.n_anomalies, "anomaly", "anomalies")} (${percent(about.n_anomalies / about.n_rows)})`;
    fill(
      $("facts"),
      `${about.source}: ${counted(about.n_rows, "row")}, `,
      about.n_anomalies > 0 ? el("a", { href: "#panel=anomalies" }, anomalies) : anomalies,
      `; codes of ${counted(about.n_components, "component")}`,
    );
    $("facts").title = $("facts").textContent;
  }

  controls() {
    const { about, state } = this;
    const option = ({ key, title, name }) => el("option", { value: key }, title ?? name);
    const group = (label, entries) => entries.length > 0 && el("optgroup", { label }, entries.map(option));
    const own = about.columns.filter((column) => column.own);
    fill($("color"), group("Model", about.shades), group("Not seen by the model", about.columns.filter((column) => !column.own)), group("Columns", own));
    for (const side of ["x", "y"]) {
      fill($(side), about.axes.map((axis) => option(axis)));
      $(side).addEventListener("change", () => this.chooseAxis(side, $(side).value));
    }
    $("color").addEventListener("change", () => state.set({ color: $("color").value }));
    $("points").hidden = !about.sampled;
    fill(
      $("points"),
      el("option", { value: "sample" }, `sample of ${count(about.n_shown)}`),
      el("option", { value: "all" }, `all ${count(about.n_rows)}`),
    );
    $("points").addEventListener("change", () => state.set({ points: $("points").value }));
    const tools = [...document.querySelectorAll("[data-tool]")];
    const use = (tool) => {
      this.map.tool = tool.dataset.tool;
      $("map").dataset.tool = tool.dataset.tool;
      for (const other of tools) {
        other.setAttribute("aria-checked", String(other === tool));
        other.tabIndex = other === tool ? 0 : -1;
      }
    };
    tools.forEach((tool, i) => {
      tool.addEventListener("click", () => use(tool));
      tool.addEventListener("keydown", (event) => {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!by) return;
        event.preventDefault();
        const next = tools.at((i + by) % tools.length);
        use(next);
        next.focus();
      });
    });
    $("zoom-in").addEventListener("click", () => this.map.zoom(0.7));
    $("zoom-out").addEventListener("click", () => this.map.zoom(1 / 0.7));
    $("fit-most").addEventListener("click", () => this.map.fit());
    $("fit-all").addEventListener("click", () => this.map.fit(true));
    $("select-view").addEventListener("click", () => this.selectPolygon(this.map.corners));
    $("select-anomalies").addEventListener("click", () => this.select({ label: -1 }));
    $("alert-close").addEventListener("click", () => ($("alert").hidden = true));
  }

  tabs() {
    const tabs = [...document.querySelectorAll("[data-panel]")];
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => this.state.set({ panel: tab.dataset.panel }));
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: -1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        const next = tabs.at(to % tabs.length);
        this.state.set({ panel: next.dataset.panel });
        next.focus();
      });
    });
  }

  chooseAxis(side, key) {
    const [x, y] = this.about.default_axes;
    const left = this.byNeighbors ? { x, y } : {};
    this.state.set(Object.values(NEIGHBORS).includes(key) ? NEIGHBORS : { ...left, [side]: key });
  }

  get byNeighbors() {
    return [this.state.values.x, this.state.values.y].some((key) => Object.values(NEIGHBORS).includes(key));
  }

  async begin() {
    await this.load();
    this.follow(new Set(["row", "panel"]));
    performance.mark("first-draw");
    $("map").dataset.ready = "true";
  }

  follow(changed) {
    $("alert").hidden = true;
    const { panel, row } = this.state.values;
    if (changed.has("points") || changed.has("x") || changed.has("y")) this.load().catch((error) => this.fail(error));
    else if (changed.has("color")) this.loadShades().catch((error) => this.fail(error));
    if (changed.has("color")) this.hiddenLevels = new Set();
    if (changed.has("panel")) {
      this.panels.decoder.stop();
      this.showMarks();
      for (const tab of document.querySelectorAll("[data-panel]")) {
        const chosen = tab.dataset.panel === panel;
        tab.setAttribute("aria-selected", String(chosen));
        tab.tabIndex = chosen ? 0 : -1;
        $(`panel-${tab.dataset.panel}`).hidden = !chosen;
      }
    }
    if (["row", "a", "b"].some((name) => changed.has(name))) this.mark();
    if (changed.has("row") && row !== null) this.say(`Row ${row} is chosen.`);
    this.panels[panel].show();
  }

  // The points' numbers and positions, in drawing order, and their colours.
  async load() {
    const { points, x, y, color } = this.state.values;
    const mine = (this.loadingPoints = {});
    $("loading").textContent = this.byNeighbors && !this.placed ? "Placing rows by their neighbours; this may take a minute…" : "Loading…";
    $("loading").hidden = false;
    for (const name of ["x", "y", "color", "points"]) $(name).value = this.state.values[name];
    const value = (key) => numbers(`rows/values/${key}?points=${points}`);
    const [shown, px, py] = await Promise.all([
      numbers(`rows/numbers?points=${points}`, Uint32Array),
      value(x),
      value(y),
      this.fetchShades(color, points),
    ]);
    if (this.loadingPoints !== mine) return;
    if (this.byNeighbors && !this.placed) {
      this.placed = true;
      this.rows.forget("row"); // those that came before do not say where they are on this map
    }
    this.shown = shown;
    const anomalies = points === "all" ? this.about.n_anomalies : this.about.n_anomalies_shown;
    this.map.setPoints(px, py, shown.length - anomalies, [x, y].map((key) => [this.axes.get(key).label, this.axes.get(key).title]));
    if (this.mask) this.showSelection(this.mask);
    this.paint();
    this.mark();
    await this.map.draw();
    $("map").dataset.drawn = shown.length;
    $("loading").hidden = true;
    this.noteSample();
  }

  async loadShades() {
    const { color, points } = this.state.values;
    $("color").value = color;
    await this.fetchShades(color, points);
    if (this.state.values.color === color) this.paint();
  }

  async fetchShades(color, points) {
    const [values, about] = await Promise.all([
      numbers(`rows/values/${color}?points=${points}`),
      get(`rows/about/${color}`),
    ]);
    if (this.state.values.color === color) this.shading = { values, about, range: about.levels ? null : colour.range(values, about.low) };
  }

  paint() {
    if (!this.shading || this.shading.values.length !== this.shown?.length) return;
    const { values, about, range } = this.shading;
    const alpha = values.length < 20_000 ? 220 : values.length < 200_000 ? 190 : 130;
    const hidden = this.hiddenLevels;
    let palette;
    let shades;
    if (about.key === "label") {
      palette = colour.labels(alpha, hidden);
      shades = colour.byLevel(values);
    } else if (about.levels) {
      palette = colour.levels(about.levels.length, about.rest, alpha, hidden);
      shades = colour.byLevel(values);
    } else {
      palette = colour.scale(alpha, about.low_stands_out);
      shades = colour.onScale(values, range);
    }
    this.map.setShades(shades, palette, (level) => hidden.has(level));
    this.legend(palette, shades);
  }

  legend(palette, shades) {
    const { about, range, values } = this.shading;
    const title = el("span", { class: "legend-title", title: about.title }, about.title);
    const counts = new Float64Array(256);
    for (let i = 0; i < shades.length; i++) counts[shades[i]]++;
    const swatch = (i) => {
      const node = el("i", { class: "swatch" });
      node.style.background = colour.css(palette, i);
      return node;
    };
    const missing = counts[colour.MISSING] > 0 ? [colour.MISSING, "missing"] : null;
    if (!about.levels) {
      const strip = el("i", { class: "strip-of-colours", role: "img", "aria-label": `Colours from ${number(range[0], 4)} to ${number(range[1], 4)}` });
      const stops = Array.from({ length: 17 }, (_, i) => colour.css(palette, Math.round((i * colour.STEPS) / 16)));
      strip.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
      const [low, high] = range.map((value) => cell(Math.abs(value) < 1e5 ? Number(value.toPrecision(3)) : value, about.type));
      const [below, above] = [values.some((value) => value < range[0]), values.some((value) => value > range[1])];
      fill($("legend"), title, el("span", { class: "figure" }, `${below ? "≤ " : ""}${low}`), strip, el("span", { class: "figure" }, `${above ? "≥ " : ""}${high}`), missing && el("span", {}, swatch(colour.MISSING), "missing"));
      return;
    }
    const items = about.levels.map((level, i) => [i, level]);
    if (missing) items.push(missing);
    const buttons = items.map(([i, level]) =>
      el(
        "button",
        {
          type: "button",
          class: "level",
          "aria-pressed": String(!this.hiddenLevels.has(i)),
          title: `${level}: ${counted(counts[i], "point")}; click to hide or show`,
          click: () => {
            const hidden = this.hiddenLevels;
            if (!hidden.delete(i)) hidden.add(i);
            this.paint();
            [...$("legend").querySelectorAll(".level")][items.findIndex(([j]) => j === i)]?.focus();
          },
        },
        swatch(i),
        el("span", { class: "name" }, level === "" ? "(empty)" : level),
        el("small", {}, count(counts[i])),
      ),
    );
    fill($("legend"), title, buttons);
  }

  // Where a row, given by its service record, lies on the present axes.
  position(record) {
    const at = (key) => (key in record.axes ? record.axes[key] : record.code[this.axes.get(key).component]);
    return { x: at(this.state.values.x), y: at(this.state.values.y) };
  }

  async mark() {
    const { row, a, b } = this.state.values;
    const texts = new Map();
    for (const [n, text] of [[row, `row ${row}`], [a, "A"], [b, "B"]]) {
      if (n !== null) texts.set(n, texts.has(n) ? `${texts.get(n)}, ${text}` : text);
    }
    const mine = (this.marking = {});
    try {
      const records = await Promise.all([...texts.keys()].map((n) => this.rows.row(n)));
      if (this.marking !== mine) return;
      this.marks = records
        .map((record) => ({ ...this.position(record), text: texts.get(record.row) }))
        .filter(({ x, y }) => Number.isFinite(x + y));
      this.showMarks();
      if (row !== null && this.bringIntoView && this.marks.length) this.map.show(this.marks[0].x, this.marks[0].y);
      this.bringIntoView = false;
    } catch (error) {
      this.fail(error);
    }
  }

  // Puts a code that no row has on the map.
  showCode(code) {
    this.code = code;
    this.showMarks();
  }

  showMarks() {
    const marks = [...(this.marks ?? [])];
    if (this.code && this.state.values.panel === "decoder") {
      const { mean_code: mean, principal } = this.about;
      const axes = Object.fromEntries(
        principal.map((vector, k) => [`pc${k + 1}`, vector.reduce((sum, v, i) => sum + v * (this.code[i] - mean[i]), 0)]),
      );
      const at = this.position({ axes, code: this.code });
      if (Number.isFinite(at.x + at.y)) marks.push({ ...at, text: "decoded", small: true });
    }
    this.map.setMarks(marks);
  }

  // The row becomes the chosen one; `quietly` without a step in the browser's history.
  choose(row, quietly = false) {
    if (!Number.isInteger(row) || row < 0 || row >= this.about.n_rows) {
      this.fail(new Error(`Expected a row from 0 to ${this.about.n_rows - 1}, got ${row}.`));
      return;
    }
    this.bringIntoView = true;
    this.state.set({ row }, quietly);
  }

  pick(row) {
    const { panel } = this.state.values;
    this.state.set({ row, panel: ["row", "decoder"].includes(panel) ? panel : "row" });
  }

  mapKey(key) {
    const { row } = this.state.values;
    if (key === "enter") {
      this.state.set({ panel: "row" });
      $("tab-row").focus();
    } else if (key === "escape") this.select(null);
    else this.choose(Math.min(this.about.n_rows - 1, Math.max(0, row === null ? 0 : row + (key === "next" ? 1 : -1))), true);
  }

  hover(i, px, py) {
    const row = i < 0 ? null : this.shown[i];
    this.hoverAt = [px, py];
    // A pointer that goes on moving over one point must not put its card off.
    if (row !== null && this.hovered === row) return this.placeCard();
    clearTimeout(this.hoverTimer);
    this.hovered = row;
    if (row === null) {
      $("card").hidden = true;
      delete $("map").dataset.hovered;
      return;
    }
    $("map").dataset.hovered = row;
    this.hoverTimer = setTimeout(async () => {
      try {
        const [record, reconstruction] = await Promise.all([this.rows.row(row), this.rows.reconstruction(row)]);
        if (this.hovered !== row) return;
        this.fillCard(record, reconstruction);
        this.placeCard();
      } catch (error) {
        this.fail(error);
      }
    }, HOVER_PAUSE);
  }

  fillCard(record, reconstruction) {
    const { about } = this;
    const extras = about.columns.filter((column) => !column.own).slice(0, 3);
    const shade = about.columns.find((column) => column.key === this.state.values.color);
    const coloured = shade?.own && !about.image ? `${shade.name}: ${cell(record.cells[shade.position], shade.type)}` : null;
    const said = extras.map((column, k) => `${column.name}: ${cell(record.extras[k], column.type)}`);
    fill(
      $("card"),
      el("p", { class: "standing" }, standing(record)),
      (said.length > 0 || coloured) && el("p", { class: "quiet name" }, [coloured, ...said].filter(Boolean).join(", ")),
      about.image
        ? el(
            "div",
            { class: "pictures" },
            captioned(picture(record.cells, about.row_shape, about.range, "row"), "row"),
            captioned(picture(reconstruction, about.row_shape, about.range, "reconstruction"), "reconstruction"),
          )
        : comparison(about, record.cells, reconstruction, { most: 7, other: "reconstruction", caption: `Row ${record.row}` }),
    );
    $("card").dataset.row = record.row;
    $("card").hidden = false;
  }

  placeCard() {
    const card = $("card");
    if (card.hidden) return;
    const [px, py] = this.hoverAt;
    const { clientWidth: width, clientHeight: height } = $("map");
    const [w, h] = [card.offsetWidth, card.offsetHeight];
    const left = px + 18 + w <= width ? px + 18 : px - 18 - w;
    const top = py + 18 + h <= height ? py + 18 : py - 18 - h;
    card.style.left = `${Math.max(4, Math.min(width - w - 4, left))}px`;
    card.style.top = `${Math.max(4, Math.min(Math.max(4, height - h - 4), top))}px`;
  }

  selectPolygon(polygon) {
    const { x, y } = this.state.values;
    this.select({ x, y, polygon });
  }

  select(selection) {
    if (selection) this.state.set({ panel: "selection" });
    return this.panels.selection.select(selection);
  }

  // `mask` has one bit per row of the source.
  showSelection(mask) {
    this.mask = mask;
    if (!this.shown) return;
    const chosen = mask && ((i) => (mask[this.shown[i] >> 3] >> (this.shown[i] & 7)) & 1);
    this.map.setSelection(chosen);
  }

  noteSample() {
    const { about, state } = this;
    const isSample = about.sampled && state.values.points === "sample";
    const kept = about.n_anomalies_shown < about.n_anomalies ? `the ${count(about.n_anomalies_shown)} lowest-scoring anomalies` : "every anomaly";
    const limits = "t-SNE puts rows with similar codes near each other; distances between groups and the sizes of groups say little. ";
    $("note").textContent = (this.byNeighbors ? limits : "") + (isSample
      ? `A sample of ${count(about.n_shown)} of ${count(about.n_rows)} rows: ${kept}, and of the others each region's share. Selections count all rows.`
      : "");
  }

  noteView(inView, outside) {
    $("outside").textContent = outside ? `${counted(outside, "point")} outside this view` : "";
  }

  say(text) {
    $("status").textContent = text;
  }

  fail(error) {
    fail(error);
  }
}

function fail(error) {
  $("alert-text").textContent = error.message || String(error);
  $("alert").hidden = false;
}

try {
  const app = new App(await get("rows"));
  await app.begin();
} catch (error) {
  $("loading").hidden = true;
  fail(error);
}
