// What the page asks of the service. Answers are JSON or bare numbers; every failure is a sentence.

export class ServiceError extends Error {}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The explorer does not answer. Is `twofold explore` still running?");
  }
  if (!answer.ok) throw new ServiceError(await reason(answer));
  return answer;
}

async function reason(answer) {
  let text = "";
  try {
    const body = JSON.parse((text = await answer.text()));
    if (body.error) return body.error.includes(body.fix) ? body.error : `${body.error} ${body.fix ?? ""}`;
  } catch {
    // No JSON: the status has to do.
  }
  return `The explorer answered ${answer.status} ${answer.statusText || text.slice(0, 200)}.`;
}

const post = (body, headers = {}) => ({
  method: "POST",
  headers: { "Content-Type": "application/json", ...headers },
  body: JSON.stringify(body),
});

export async function get(path, signal) {
  return (await ask(path, { signal })).json();
}

export async function send(path, body) {
  return (await ask(path, post(body))).json();
}

// Bare little-endian numbers, which is what every browser's typed arrays are.
export async function numbers(path, Kind = Float32Array) {
  return new Kind(await (await ask(path)).arrayBuffer());
}

export async function bits(path, body) {
  return new Uint8Array(await (await ask(path, post(body))).arrayBuffer());
}

export async function download(path, body, name) {
  const file = await (await ask(path, post(body))).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// The rows that codes stand for, each a list of cells, or of an image's pixels.
export async function decode(codes) {
  return (await send("decode", { codes })).rows;
}

// Rows of the source and what the model says of them, the last few hundred kept.
export class Rows {
  constructor(about) {
    this.about = about;
    this.kept = new Map();
  }

  keep(kind, row, make) {
    const key = `${kind} ${row}`;
    let made = this.kept.get(key);
    this.kept.delete(key);
    made ??= make().catch((error) => {
      this.kept.delete(key);
      throw error;
    });
    this.kept.set(key, made);
    if (this.kept.size > 600) this.kept.delete(this.kept.keys().next().value);
    return made;
  }

  forget(kind) {
    for (const key of [...this.kept.keys()]) if (key.startsWith(`${kind} `)) this.kept.delete(key);
  }

  row(row) {
    return this.keep("row", row, () => get(`rows/${row}`));
  }

  reconstruction(row) {
    return this.keep("reconstruction", row, async () => {
      const { code } = await this.row(row);
      return (await decode([code]))[0];
    });
  }

  explanation(row) {
    return this.keep("explanation", row, async () => {
      const { cells } = await this.row(row);
      return one(await send("explain", { rows: [cells] }), 0);
    });
  }

  // Anomalies from `start` on, in an order, each explained.
  async anomalies(order, start, count) {
    const page = await get(`rows/anomalies?order=${order}&start=${start}&count=${count}`);
    const cells = page.rows.map((row) => row.cells);
    const why = cells.length ? await send("explain", { rows: cells }) : null;
    page.rows.forEach((row, i) => {
      this.keep("row", row.row, async () => row);
      this.keep("explanation", row.row, async () => one(why, i));
    });
    return page;
  }
}

function one(why, i) {
  const { columns, base, observed, expected, contribution } = why;
  const shares = contribution[i].map((share) => share ?? 0);
  return {
    columns,
    base: base[i],
    observed: observed[i],
    expected: expected[i],
    contribution: shares,
    sum: shares.reduce((a, b) => a + b, 0),
  };
}

// Runs `work` for the last argument it was called with; what came in between is skipped.
export function latest(work) {
  let running = false;
  let next = null;
  return async (argument) => {
    next = { argument };
    if (running) return;
    running = true;
    try {
      while (next) {
        const call = next;
        next = null;
        await work(call.argument);
      }
    } finally {
      running = false;
    }
  };
}
