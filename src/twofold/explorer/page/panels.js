// The panels on rows: the chosen one, the anomalies, and a selection.

import { bits, download, send } from "./service.js";
import {
  bar, called, captioned, cell, cellNode, comparison, count, counted, el, fill, glimpse, heat, name, number,
  percent, picture, reasons, standing, table,
} from "./parts.js";

const COLUMNS = 12; // shown before "all columns" is asked for

// Calls `work` and shows what it resolves to, unless a later call has come in between.
function newest(app) {
  let last = 0;
  return async (work, show) => {
    const mine = ++last;
    try {
      const result = await work();
      if (mine === last) show(result);
    } catch (error) {
      if (mine === last) app.fail(error);
    }
  };
}

export class RowPanel {
  constructor(root, app) {
    this.root = root;
    this.app = app;
    this.run = newest(app);
    this.most = COLUMNS;
    const { about, state } = app;
    const step = (by) => () => app.choose(Math.min(about.n_rows - 1, Math.max(0, (state.values.row ?? -by) + by)));
    this.input = el("input", {
      type: "number",
      min: 0,
      max: about.n_rows - 1,
      id: "row-number",
      change: () => this.input.value !== "" && app.choose(Math.round(this.input.valueAsNumber)),
    });
    this.body = el("div", { class: "body" });
    fill(
      root,
      el(
        "div",
        { class: "controls" },
        el("label", { for: "row-number" }, "Row"),
        this.input,
        el("button", { type: "button", "aria-label": "Previous row", click: step(-1) }, "‹"),
        el("button", { type: "button", "aria-label": "Next row", click: step(1) }, "›"),
        el("button", { type: "button", click: () => this.end("a") }, "Set as A"),
        el("button", { type: "button", click: () => this.end("b") }, "Set as B"),
      ),
      this.body,
    );
  }

  end(which) {
    const { row } = this.app.state.values;
    if (row === null) return;
    this.app.state.set({ [which]: row });
    this.app.say(`Row ${row} is ${which.toUpperCase()} of the interpolation in the decoder panel.`);
  }

  show() {
    const { row } = this.app.state.values;
    if (document.activeElement !== this.input) this.input.value = row ?? "";
    if (row === null) {
      fill(
        this.body,
        el("p", { class: "hint" }, "Choose a point on the map or type a row number to see the row, its reconstruction, and why it has its score."),
      );
      return;
    }
    const { rows } = this.app;
    this.body.setAttribute("aria-busy", "true");
    this.run(
      () => {
        // A row that cannot be explained can still be seen.
        const why = rows.explanation(row).catch((error) => this.app.fail(error));
        return Promise.all([rows.row(row), rows.reconstruction(row), why]);
      },
      (parts) => this.render(...parts),
    ).finally(() => this.body.removeAttribute("aria-busy"));
  }

  render(row, reconstruction, why) {
    const { about } = this.app;
    const own = about.columns.filter((column) => column.own);
    const extras = about.columns.filter((column) => !column.own);
    const more =
      !about.image &&
      own.length > this.most &&
      el(
        "button",
        {
          type: "button",
          click: () => {
            this.most = Infinity;
            this.show();
          },
        },
        `Show all ${count(own.length)} columns`,
      );
    const pair = about.image
      ? el(
          "div",
          { class: "pictures" },
          captioned(picture(row.cells, about.row_shape, about.range, `Row ${row.row}`), "row"),
          captioned(picture(reconstruction, about.row_shape, about.range, `Reconstruction of row ${row.row}`), "reconstruction"),
        )
      : comparison(about, row.cells, reconstruction, {
          most: this.most,
          other: "reconstruction",
          caption: `Row ${row.row} and its reconstruction, the biggest differences first`,
        });
    fill(
      this.body,
      el("p", { class: "standing" }, standing(row)),
      extras.length > 0 &&
        el("dl", { class: "extras" }, extras.map((column, i) => [el("dt", {}, name(column.name)), cellNode("dd", row.extras[i], column.type)])),
      el("h2", {}, "Row and reconstruction"),
      pair,
      why && el("h2", {}, "Why it has this score"),
      why && reasons(about, row, why, this.most),
      more,
    );
  }
}

const ORDERS = { lowest: "most anomalous first", highest: "least anomalous first", row: "by row number" };

export class AnomaliesPanel {
  constructor(root, app) {
    this.root = root;
    this.app = app;
    this.run = newest(app);
    this.runDetail = newest(app);
    const { about, state } = app;
    // Explaining takes time with the width of the rows.
    this.page = Math.max(6, Math.min(25, Math.round(30_000 / about.n_columns)));
    this.order = el(
      "select",
      { change: () => state.set({ order: this.order.value }) },
      Object.entries(ORDERS).map(([value, text]) => el("option", { value }, text)),
    );
    this.list = el("div", {
      role: "listbox",
      tabindex: "0",
      class: "list",
      "aria-label": "Anomalies",
      keydown: (event) => this.key(event),
    });
    this.more = el("button", { type: "button", click: () => this.load() }, "Show more");
    this.total = el("span", { class: "quiet" });
    this.detail = el("div", { class: "detail", role: "region", "aria-label": "Why the chosen row is an anomaly" });
    fill(root, el("div", { class: "controls" }, el("label", {}, "Order ", this.order), this.total), this.list, this.more, this.detail);
    this.items = [];
    this.shown = null;
  }

  show() {
    const { order, row } = this.app.state.values;
    this.order.value = order;
    if (this.shown !== order) {
      this.shown = order;
      this.items = [];
      fill(this.list);
      this.load();
    }
    this.mark(row);
  }

  load() {
    const { about, rows, state } = this.app;
    this.list.setAttribute("aria-busy", "true");
    this.more.disabled = true;
    return this.run(
      () => rows.anomalies(state.values.order, this.items.length, this.page),
      async (page) => {
        const why = await Promise.all(page.rows.map((row) => rows.explanation(row.row)));
        page.rows.forEach((row, i) => this.add(row, why[i]));
        this.more.hidden = this.items.length >= page.total;
        const rule = `score below ${number(about.offset)} nats`;
        this.total.textContent = page.total
          ? `${count(this.items.length)} of ${count(page.total)}: ${rule}`
          : `No row is an anomaly: none has a ${rule}.`;
        this.list.hidden = !page.total;
        this.mark(state.values.row);
      },
    ).finally(() => {
      this.list.removeAttribute("aria-busy");
      this.more.disabled = false;
    });
  }

  add(row, why) {
    const { about } = this.app;
    const option = el(
      "div",
      { role: "option", id: `anomaly-${row.row}`, "aria-selected": "false", click: () => this.app.choose(row.row) },
      about.image && picture(row.cells, about.row_shape, about.range, ""),
      el("span", { class: "number", title: called(row) }, row.name ?? count(row.row)),
      el("span", { class: "figures" }, el("b", {}, number(row.score, 4)), el("small", {}, `p ${number(row.p_value, 2)}`)),
      about.image
        ? heat(why.contribution, about.row_shape, "")
        : el("span", { class: "glimpses" }, glimpse(about, why)),
    );
    option.setAttribute("aria-label", `${called(row)}, score ${number(row.score, 4)}${about.image ? "" : `, anomalous in ${glimpsed(why)}`}`);
    this.items.push({ row: row.row, option });
    this.list.append(option);
  }

  mark(row) {
    const chosen = this.items.find((item) => item.row === row);
    for (const item of this.items) item.option.setAttribute("aria-selected", String(item === chosen));
    if (chosen) {
      this.list.setAttribute("aria-activedescendant", chosen.option.id);
      const { list } = this;
      const [top, bottom] = [chosen.option.offsetTop, chosen.option.offsetTop + chosen.option.offsetHeight];
      if (top < list.scrollTop) list.scrollTop = top;
      else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
    } else this.list.removeAttribute("aria-activedescendant");
    if (row === null) {
      fill(this.detail, this.items.length > 0 && el("p", { class: "hint" }, "Choose an anomaly to see why it is one."));
      return;
    }
    const { rows, about } = this.app;
    this.runDetail(
      () => Promise.all([rows.row(row), rows.explanation(row)]),
      ([found, why]) => fill(this.detail, el("p", { class: "standing" }, standing(found)), ...reasons(about, found, why, COLUMNS)),
    );
  }

  key(event) {
    const at = this.items.findIndex((item) => item.row === this.app.state.values.row);
    const last = this.items.length - 1;
    const to = { ArrowDown: at + 1, ArrowUp: at < 0 ? last : at - 1, Home: 0, End: last, PageDown: Math.min(last, at + 6), PageUp: at - 6 }[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    if (to > last && !this.more.hidden && !this.more.disabled) {
      this.load().then(() => this.items[to] && this.app.choose(this.items[to].row, true));
      return;
    }
    // Going through the list is one visit of the page, not one per row.
    this.app.choose(this.items[Math.max(0, Math.min(last, to))].row, at >= 0);
  }
}

function glimpsed(why) {
  const order = why.contribution.map((share, i) => [share, i]).sort((a, b) => b[0] - a[0]);
  return order.slice(0, 3).filter(([share]) => share > 0).map(([, i]) => why.columns[i]).join(", ");
}

export class SelectionPanel {
  constructor(root, app) {
    this.root = root;
    this.app = app;
    this.run = newest(app);
    this.selection = null;
    this.render(null);
  }

  show() {}

  // `selection` is what the service takes: a polygon on two axes, or a label; null is none.
  async select(selection) {
    this.selection = selection;
    if (!selection) {
      this.run(async () => null, () => this.app.showSelection(null));
      this.render(null);
      this.app.say("Nothing is selected.");
      return;
    }
    this.root.setAttribute("aria-busy", "true");
    await this.run(
      () =>
        Promise.all([
          bits("rows/selection/mask", selection).then((mask) => this.selection === selection && this.app.showSelection(mask)),
          send("rows/selection", selection),
        ]),
      ([, summary]) => {
        this.render(summary);
        this.app.say(`${counted(summary.count, "row")} selected.`);
      },
    );
    this.root.removeAttribute("aria-busy");
  }

  render(summary) {
    const { about } = this.app;
    if (!summary) {
      fill(
        this.root,
        el("p", { class: "hint" }, "Drag a box or a lasso around points (with Shift, dragging always draws a lasso), or choose Select view or Select anomalies, to compare these rows with all rows and to save them."),
      );
      return;
    }
    const { count: n, n_anomalies: anomalies } = summary;
    const save = (format) => async () => {
      try {
        await download(`rows/selection/export?format=${format}`, this.selection, `selection.${format}`);
      } catch (error) {
        this.app.fail(error);
      }
    };
    const clear = el("button", { type: "button", click: () => this.select(null) }, "Clear");
    const head = el(
      "p",
      {},
      el("strong", {}, el("data", { id: "selected-count", value: n }, counted(n, "row"))),
      ` of ${count(about.n_rows)} (${percent(n / about.n_rows)}), `,
      n ? `${count(anomalies)} of them ${anomalies === 1 ? "an anomaly" : "anomalies"} (${percent(anomalies / n)}; of all rows ${percent(about.n_anomalies / about.n_rows)})` : "it is empty",
    );
    if (!n) {
      fill(this.root, head, el("div", { class: "controls" }, clear));
      return;
    }
    fill(
      this.root,
      head,
      el(
        "div",
        { class: "controls" },
        el("button", { type: "button", click: save("csv") }, "Save as CSV"),
        el("button", { type: "button", click: save("parquet") }, "Save as Parquet"),
        clear,
      ),
      el("h2", {}, "Selected rows against all rows"),
      summary.image && this.pictures(summary.image),
      this.differences(summary),
    );
  }

  pictures({ mean, mean_all: all }) {
    const { row_shape: shape, range } = this.app.about;
    return el(
      "div",
      { class: "pictures" },
      captioned(picture(mean, shape, range, "Mean of the selected rows"), "mean, selected"),
      captioned(picture(all, shape, range, "Mean of all rows"), "mean, all rows"),
      captioned(heat(mean.map((value, i) => value - all[i]), shape, "Where the means differ: orange is higher in the selection, blue lower"), "difference"),
    );
  }

  differences({ columns, n_columns: total }) {
    const largest = Math.max(...columns.map((column) => Math.abs(column.difference)), 1e-12);
    const rows = columns.map((column) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, name(column.name)),
        ...(column.level === undefined
          ? [cellNode("td", column.mean, column.type, 4), cellNode("td", column.mean_all, column.type, 4)]
          : [this.level(column, column.share), this.level(column, column.share_all)]),
        el("td", { class: "share" }, bar(column.difference / largest, `${number(column.difference, 2)} standard deviations`), el("span", { class: "figure" }, number(column.difference, 2))),
      ),
    );
    const titles = [["column"], ["selected", "figure"], ["all rows", "figure"], ["difference", "share"]];
    const caption = "Columns of the selected rows against all rows, the biggest difference first";
    const note = `Means, and for categories the most frequent category among the selected rows with its share. Differences are in standard deviations of all rows${total > columns.length ? `; the first ${columns.length} of ${count(total)} columns` : ""}.`;
    return el("div", {}, table(caption, titles, rows, { class: "differences" }), el("p", { class: "quiet" }, note));
  }

  level(column, share) {
    const text = cell(column.level, column.type);
    return el("td", { class: "text" }, name(text), el("br"), el("span", { class: "figure" }, percent(share)));
  }
}
