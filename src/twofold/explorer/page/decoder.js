// The decoder panel: a code to change by hand, or to move from one row to another, decoded live.

import { decode, latest } from "./service.js";
import { captioned, cellNode, count, distance, el, fill, name, number, picture, table } from "./parts.js";

const FIRST = 12; // sliders at a time
const STEPS = 9; // of the strip
const SECONDS = 4; // that a way from A to B plays
const COLUMNS = 12; // of a table, before "all" is asked for

export class DecoderPanel {
  constructor(root, app) {
    this.root = root;
    this.app = app;
    const { about } = app;
    this.code = about.mean_code.slice();
    this.start = { title: "the mean code", code: this.code.slice(), decoded: null };
    this.sliders = new Map();
    this.most = COLUMNS;
    this.playing = 0;
    this.send = latest(() => this.decodeNow());
    this.build();
  }

  build() {
    const { about } = this.app;
    this.output = el("div", { class: "output" });
    this.origin = el("span", { class: "quiet" });
    this.components = el("div", { class: "sliders" });
    this.more = el("button", { type: "button", click: () => this.addSliders() });
    const button = (text, click) => el("button", { type: "button", click }, text);
    this.fromRow = button("From the chosen row", () => this.startFrom(this.app.state.values.row));
    this.ends = ["a", "b"].map((which) => {
      const input = el("input", {
        type: "number",
        min: 0,
        max: about.n_rows - 1,
        id: `end-${which}`,
        change: () => this.app.state.set({ [which]: input.value === "" ? null : Math.min(about.n_rows - 1, Math.max(0, Math.round(input.valueAsNumber))) }),
      });
      const label = el("label", { for: input.id }, `Row ${which.toUpperCase()}`);
      return { which, input, label, use: button("Chosen row", () => this.app.state.set({ [which]: this.app.state.values.row })) };
    });
    this.way = el("input", {
      type: "range",
      min: 0,
      max: 1,
      step: 0.005,
      value: 0,
      id: "way",
      input: () => {
        this.stop();
        this.travel(this.way.valueAsNumber);
      },
    });
    this.play = button("Play", () => (this.playing ? this.stop() : this.run()));
    this.strip = el("div", { class: "strip" });
    this.between = el(
      "div",
      { hidden: true },
      el("div", { class: "way" }, this.play, el("label", { for: "way", class: "unseen" }, "Way from A to B"), this.way),
      this.strip,
    );
    fill(
      this.root,
      el("h2", {}, "Decoded row ", this.origin),
      this.output,
      el("div", { class: "controls" }, button("From the mean", () => this.startFrom(null)), this.fromRow),
      el("h2", {}, "Components of the code"),
      this.components,
      this.more,
      el("h2", {}, "Between two rows"),
      el("div", { class: "ends" }, this.ends.map(({ label, input, use }) => el("div", { class: "controls" }, label, input, use))),
      this.between,
    );
    this.addSliders();
  }

  addSliders() {
    const { components } = this.app.about;
    const shown = this.sliders.size;
    for (const component of components.slice(shown, shown + FIRST)) this.addSlider(component);
    const left = components.length - this.sliders.size;
    this.more.hidden = !left;
    this.more.textContent = `Show ${Math.min(FIRST, left)} more of ${count(left)}`;
    this.showCode();
  }

  addSlider(component) {
    const id = `slider-${component.position}`;
    const spread = component.high - component.low || 1;
    const slider = el("input", {
      type: "range",
      id,
      min: component.low,
      max: component.high,
      step: spread / 400,
      input: () => {
        this.stop();
        this.code[component.position] = slider.valueAsNumber;
        this.changed(slider);
      },
    });
    const output = el("output", { for: id, class: "figure" });
    this.sliders.set(component.position, { slider, output, component });
    this.components.append(el("label", { for: id }, name(component.name)), slider, output);
  }

  showCode(except) {
    for (const [position, { slider, output, component }] of this.sliders) {
      const value = this.code[position];
      if (slider !== except) {
        // A row may lie beyond what most rows are.
        slider.min = Math.min(component.low, value);
        slider.max = Math.max(component.high, value);
        slider.value = value;
      }
      output.textContent = number(value, 3);
    }
  }

  changed(except) {
    this.showCode(except);
    this.app.showCode(this.code);
    this.send();
  }

  async decodeNow() {
    const code = this.code.slice();
    try {
      if (this.start.decoded) [this.decoded] = await decode([code]);
      else [this.start.decoded, this.decoded] = await decode([this.start.code, code]);
      this.render(code);
    } catch (error) {
      this.stop();
      this.app.fail(error);
    }
  }

  render(code) {
    const { about } = this.app;
    const { decoded, start } = this;
    if (about.image) {
      const { row_shape: shape, range } = about;
      if (!this.canvas) {
        this.canvas = el("canvas", { role: "img", id: "decoded" });
        this.before = el("canvas", { role: "img" });
        fill(this.output, el("div", { class: "pictures" }, captioned(this.canvas, "decoded"), captioned(this.before, "at the start")));
      }
      picture(decoded, shape, range, "Decoded row", this.canvas);
      picture(start.decoded, shape, range, `Decoded from ${start.title}`, this.before);
    } else {
      const own = about.columns.filter((column) => column.own && column.seen);
      const places = about.columns.filter((column) => column.own).flatMap((column, i) => (column.seen ? [i] : []));
      let order = own.map((_, k) => k);
      // Of many columns, those that have moved.
      if (own.length > this.most) {
        const moved = own.map((column, k) => distance(column, start.decoded[places[k]], decoded[places[k]]));
        order = order.sort((a, b) => moved[b] - moved[a]).slice(0, this.most).sort((a, b) => a - b);
      }
      const rows = order.map((k) => {
        const [was, is] = [start.decoded[places[k]], decoded[places[k]]];
        return el(
          "tr",
          { class: distance(own[k], was, is) > 0.02 ? "moved" : "" },
          el("th", { scope: "row" }, name(own[k].name)),
          cellNode("td", is, own[k].type),
          cellNode("td", was, own[k].type),
        );
      });
      const titles = [["column"], ["decoded", "figure"], ["at the start", "figure"]];
      const hidden = own.length - order.length;
      fill(
        this.output,
        table("The decoded row and the one at the start", titles, rows, { id: "decoded", class: "comparison" }),
        hidden > 0 && el("p", { class: "quiet" }, `The ${order.length} columns that moved most; ${count(hidden)} more.`),
      );
    }
    // For those who test or script the page: the code that what is shown was decoded from.
    this.output.dataset.code = JSON.stringify(code);
  }

  async startFrom(row) {
    this.stop();
    try {
      const code = row === null ? this.app.about.mean_code : (await this.app.rows.row(row)).code;
      const title = row === null ? "the mean code" : `row ${count(row)}`;
      this.start = { title, code: code.slice(), decoded: null };
      this.code = code.slice();
      this.origin.textContent = `from ${title}`;
      this.changed();
    } catch (error) {
      this.app.fail(error);
    }
  }

  show() {
    const { row, a, b } = this.app.state.values;
    this.fromRow.disabled = row === null;
    if (!this.origin.textContent) this.startFrom(row);
    for (const { which, input, use } of this.ends) {
      if (document.activeElement !== input) input.value = this.app.state.values[which] ?? "";
      use.disabled = row === null;
    }
    const ways = a === null || b === null ? null : `${a} ${b}`;
    if (ways !== this.ways) {
      this.ways = ways;
      this.between.hidden = !ways;
      this.stop();
      if (ways) this.setOut(a, b);
    }
  }

  async setOut(a, b) {
    const { rows, about } = this.app;
    try {
      const [from, to] = await Promise.all([rows.row(a), rows.row(b)]);
      if (this.ways !== `${a} ${b}`) return;
      this.from = from.code;
      this.to = to.code;
      const shares = Array.from({ length: STEPS }, (_, k) => k / (STEPS - 1));
      const steps = await decode(shares.map((share) => this.at(share)));
      if (this.ways !== `${a} ${b}`) return;
      fill(this.strip, about.image ? this.imageStrip(steps, shares) : this.tableStrip(steps));
    } catch (error) {
      this.app.fail(error);
    }
  }

  at(share) {
    return this.from.map((value, i) => (1 - share) * value + share * this.to[i]);
  }

  imageStrip(steps, shares) {
    const { row_shape: shape, range } = this.app.about;
    return steps.map((values, k) => {
      const text = k === 0 ? "A" : k === STEPS - 1 ? "B" : `${Math.round(100 * shares[k])} %`;
      return el(
        "button",
        { type: "button", "aria-label": `Go to ${text}`, click: () => this.go(shares[k]) },
        picture(values, shape, range, ""),
        el("small", {}, text),
      );
    });
  }

  tableStrip(steps) {
    const own = this.app.about.columns.filter((column) => column.own);
    const chosen = [0, 2, 4, 6, 8].map((k) => steps[k]);
    const order = own
      .map((column, i) => [distance(column, steps[0][i], steps[STEPS - 1][i]), i])
      .filter(([, i]) => own[i].seen)
      .sort((a, b) => b[0] - a[0])
      .slice(0, COLUMNS);
    const rows = order.map(([, i]) =>
      el("tr", {}, el("th", { scope: "row" }, name(own[i].name)), chosen.map((row) => cellNode("td", row[i], own[i].type, 4))),
    );
    const titles = [["column"], ...["A", "25 %", "50 %", "75 %", "B"].map((text) => [text, "figure"])];
    return table("Steps from A to B, the columns that change most first", titles, rows, { class: "steps" });
  }

  go(share) {
    this.stop();
    this.travel(share);
  }

  travel(share) {
    if (!this.from) return;
    this.way.value = share;
    this.way.setAttribute("aria-valuetext", `${Math.round(100 * share)} % of the way from A to B`);
    this.code = this.at(share);
    this.origin.textContent = `between row ${count(this.app.state.values.a)} and row ${count(this.app.state.values.b)}`;
    this.changed();
  }

  run() {
    if (!this.from) return;
    const first = this.way.valueAsNumber < 1 ? this.way.valueAsNumber : 0;
    let began = null;
    this.play.textContent = "Pause";
    const frame = (now) => {
      began ??= now;
      const share = Math.min(1, first + (now - began) / 1000 / SECONDS);
      this.travel(share);
      if (share < 1) this.playing = requestAnimationFrame(frame);
      else this.stop();
    };
    this.playing = requestAnimationFrame(frame);
  }

  stop() {
    cancelAnimationFrame(this.playing);
    this.playing = 0;
    this.play.textContent = "Play";
  }
}
