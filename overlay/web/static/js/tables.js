// The same as tables: for the keyboard, for screen readers, and to sort.

import { compare, pathKind, pathText } from "./store.js";
import { element, latency, networkShape, set, sign } from "./dom.js";

const HOST_COLUMNS = [
  ["Host", (host) => host.name],
  ["Address", (host) => host.address, "mono"],
  ["State", (host) => host.state, "state"],
  ["Path", (host) => pathText(host), "way"],
  ["Latency", (host) => latency(host.path?.rtt_ms), "number"],
  ["MTU", (host) => (host.path?.size_carried ?? ""), "number"],
  ["Containers", (host) => host.containers, "number"],
  ["Version", (host) => host.version ?? ""],
];
const CONTAINER_COLUMNS = [
  ["Container", (each) => each.name],
  ["Network", (each) => each.network],
  ["Addresses", (each) => each.ips.join(" "), "mono"],
  ["Host", (each) => each.node],
  ["Also known as", (each) => (each.aliases ?? []).join(" "), "wrap"],
  ["Target", (each) => each.target ?? "", "wrap"],
];

class Table {
  constructor(id, columns, store, choose, decorate) {
    this.root = document.getElementById(id);
    this.columns = columns;
    this.store = store;
    this.decorate = decorate;
    this.rows = new Map();
    this.order = [0, 1]; // the column, and the direction
    this.caption = element("caption");
    this.heads = columns.map(([title, , kind], number) => {
      const button = element("button", { type: "button" }, title);
      button.addEventListener("click", () => this.sortBy(number));
      return element("th", { scope: "col", class: kind ?? "" }, button);
    });
    this.body = element("tbody");
    this.body.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) choose(button.closest("tr").dataset.key, button);
    });
    this.root.append(this.caption, element("thead", {}, element("tr", {}, ...this.heads)), this.body);
    this.showOrder();
  }

  sortBy(number) {
    this.order = [number, this.order[0] === number ? -this.order[1] : 1];
    this.showOrder();
    this.sort();
  }

  showOrder() {
    this.heads.forEach((head, number) => {
      const direction = this.order[1] > 0 ? "ascending" : "descending";
      head.setAttribute("aria-sort", number === this.order[0] ? direction : "none");
    });
  }

  // Draw all rows, or those with these keys.
  draw(items, title) {
    this.title = title;
    const seen = new Set();
    let isMoved = false;
    for (const [key, item] of items) {
      seen.add(key);
      isMoved = this.drawRow(key, item) || isMoved;
    }
    for (const key of [...this.rows.keys()].filter((each) => !seen.has(each))) this.drop(key);
    this.arrange(isMoved);
  }

  drawSome(keys, item) {
    let isMoved = false;
    for (const key of keys) {
      const found = item(key);
      if (found) isMoved = this.drawRow(key, found) || isMoved;
      else this.drop(key);
    }
    this.arrange(isMoved, keys);
  }

  drop(key) {
    this.rows.get(key)?.node.remove();
    this.rows.delete(key);
  }

  // Return whether the row may have another place now.
  drawRow(key, item) {
    const values = this.columns.map(([, value]) => String(value(item) ?? ""));
    const before = this.rows.get(key);
    const shown = values.join("\n") + this.decorate.sign(item);
    if (before?.shown === shown) {
      before.item = item;
      return false;
    }
    const cells = values.map((value, number) => {
      const kind = this.columns[number][2] ?? "";
      if (number === 0) {
        return element("th", { scope: "row" }, element("button", { type: "button" }, value));
      }
      return element("td", { class: kind }, this.decorate.cell(this.columns[number][0], item), value);
    });
    if (before) {
      const hadFocus = before.node.contains(document.activeElement);
      before.node.replaceChildren(...cells);
      if (hadFocus) before.node.querySelector("button").focus();
      Object.assign(before, { item, shown, values });
      return values[this.order[0]] !== before.sorted;
    }
    const node = element("tr", {}, ...cells);
    node.dataset.key = key;
    this.rows.set(key, { node, item, shown, values });
    return true;
  }

  // Put the rows in order, and show those that are searched for.
  arrange(isMoved = true, keys = null) {
    if (isMoved) this.sort();
    const touched = keys === null || this.store.isFiltered ? this.rows.keys() : keys;
    for (const key of touched) {
      const row = this.rows.get(key);
      if (!row) continue;
      set(row.node, "hidden", this.store.isFiltered && !this.store.matches(key, row.item));
      row.node.classList.toggle("is-chosen", key === this.store.chosen);
    }
    const all = this.rows.size;
    const shown = this.store.isFiltered ? [...this.rows.values()].filter((row) => !row.node.hidden).length : all;
    set(this.caption, "textContent", this.title(shown === all ? `${all}` : `${shown} of ${all}`, all));
  }

  sort() {
    const [number, direction] = this.order;
    const isNumber = this.columns[number][2] === "number";
    const size = (row) => parseFloat(row.values[number] || -1);
    const rows = [...this.rows.values()].sort((a, b) => direction * (isNumber ? size(a) - size(b)
      : compare(a.values[number], b.values[number])) || compare(a.item.name, b.item.name));
    let at = this.body.firstElementChild;
    for (const row of rows) {
      row.sorted = row.values[number];
      if (row.node === at) at = at.nextElementSibling;
      else this.body.insertBefore(row.node, at);
    }
  }
}

export class Tables {
  constructor(store, choose) {
    this.store = store;
    this.hosts = new Table("hosts-table", HOST_COLUMNS, store, choose, {
      sign: (host) => pathKind(host) + host.state,
      cell: (title, host) => (title === "Path" ? sign(pathKind(host)) : title === "State" ? sign(host.state) : null),
    });
    this.containers = new Table("containers-table", CONTAINER_COLUMNS, store, choose, {
      sign: (each) => JSON.stringify(store.networkOf(each)?.color ?? ""),
      cell: (title, each) => (title === "Network" ? networkShape(store.networkOf(each)) : null),
    });
  }

  drawAll() {
    this.drawHosts();
    this.containers.draw(this.store.all("container"), (count) => `Containers: ${count}`);
  }

  change(change) {
    const touched = [...Object.keys(change.put), ...change.drop];
    this.drawHosts();
    if (touched.some((key) => key.startsWith("network/"))) this.drawAll();
    else {
      this.containers.drawSome(touched.filter((key) => key.startsWith("container/")),
        (key) => this.store.items.get(key));
    }
  }

  drawHosts() {
    const { store } = this;
    const counts = new Map();
    for (const [, each] of store.all("container")) counts.set(each.node, (counts.get(each.node) ?? 0) + 1);
    const hosts = store.all("host").map(([key, host]) => [key, { ...host, containers: counts.get(host.name) ?? 0 }]);
    const here = store.cluster?.here ?? "";
    this.hosts.draw(hosts, (count, all) => `Hosts: ${count}${all && here ? `. Paths are from ${here}` : ""}`);
  }

  mark() {
    if (!this.hosts.title) return;
    this.hosts.arrange(false);
    this.containers.arrange(false);
  }
}
