// The state of the view, kept in the address after the "#": reload, back and links restore it.

const NUMBERS = new Set(["row", "a", "b"]);

export class State {
  // `allowed` tells for each name which values mean something.
  constructor(defaults, allowed) {
    this.defaults = defaults;
    this.allowed = allowed;
    this.listeners = [];
    this.values = this.read();
    addEventListener("popstate", () => this.become(this.read()));
  }

  read() {
    const found = { ...this.defaults };
    for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
      if (!(name in this.defaults)) continue;
      const value = NUMBERS.has(name) ? (/^\d+$/.test(text) ? Number(text) : NaN) : text;
      if (this.allowed(name, value)) found[name] = value;
    }
    return found;
  }

  get address() {
    const said = Object.entries(this.values).filter(([name, value]) => value !== this.defaults[name]);
    const parameters = new URLSearchParams(said.filter(([, value]) => value !== null));
    return `#${parameters}`;
  }

  // A change is one step back in the browser's history, unless it `replaces` the present one.
  set(patch, replaces = false) {
    const next = { ...this.values, ...patch };
    if (Object.keys(patch).every((name) => next[name] === this.values[name])) return;
    const before = this.values;
    this.values = next;
    history[replaces ? "replaceState" : "pushState"](null, "", this.address);
    this.tell(before);
  }

  become(values) {
    const before = this.values;
    this.values = values;
    this.tell(before);
  }

  tell(before) {
    const names = Object.keys(this.values).filter((name) => before[name] !== this.values[name]);
    const changed = new Set(names);
    if (changed.size) for (const listener of this.listeners) listener(changed, this.values);
  }

  listen(listener) {
    this.listeners.push(listener);
  }
}
