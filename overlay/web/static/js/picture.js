// The picture: hosts on the underlay, their paths and containers. Its content is in the tables, too,
// so it is for the eye and the mouse alone.

import { compare, pathKind, pathText } from "./store.js";
import { element, latency, networkShape, plural, set, sign } from "./dom.js";

const NAMES_MAX = 150; // with more containers, marks are shown at first

const LEGEND = [["ok", "carries full size"], ["limited", "small packets only"], ["lost", "lost"],
  ["unknown", "not probed"], ["away", "away"]];

export class Picture {
  constructor(store, choose) {
    this.store = store;
    this.root = document.getElementById("picture");
    this.density = document.getElementById("density");
    this.hosts = new Map(); // the parts of each host, by key
    this.chips = new Map(); // the element of each container, by key
    this.isDense = null; // until the operator chooses
    this.counts = new Map(LEGEND.map(([kind]) => [kind, element("span")]));
    document.getElementById("legend").append(...LEGEND.map(([kind, text]) =>
      element("li", {}, sign(kind), this.counts.get(kind), text)));
    this.density.addEventListener("click", () => {
      this.isDense = !this.root.classList.contains("is-dense");
      this.arrange();
    });
    this.root.addEventListener("click", (event) => {
      const key = event.target.closest("[data-key]")?.dataset.key;
      if (key) choose(key, null);
    });
  }

  drawAll() {
    const { store } = this;
    this.hosts.clear();
    this.chips.clear();
    this.root.replaceChildren(...store.hosts().map(([key, host]) => this.newHost(key, host)));
    for (const [key, container] of store.containers()) this.place(key, container);
    for (const key of this.hosts.keys()) this.drawEmpty(key);
    this.arrange();
    this.mark();
  }

  change(change) {
    const touched = [...Object.keys(change.put), ...change.drop];
    const known = (key) => this.hosts.has(key);
    const isNew = touched.some((key) => key.startsWith("host/") && known(key) !== this.store.items.has(key));
    if (isNew || touched.some((key) => key.startsWith("network/") && !change.put[key])) {
      this.drawAll();
      return;
    }
    for (const key of touched) {
      if (key.startsWith("host/")) this.drawHost(key, this.store.items.get(key));
      if (key.startsWith("container/")) this.move(key);
    }
    this.arrange();
    if (this.store.isFiltered || touched.includes(this.store.chosen)) this.mark();
  }

  // --- hosts

  newHost(key, host) {
    const stub = element("span", { class: "stub" });
    const said = element("span");
    const size = element("span", { class: "mtu" });
    const path = element("div", { class: "path" }, sign("unknown"), said, size);
    const name = element("strong", {}, host.name);
    const address = element("span", { class: "mono" });
    const header = element("header", {}, name, address);
    header.dataset.key = key;
    const list = element("ul");
    const empty = element("p", { class: "empty" }, "no containers");
    const tile = element("div", { class: "tile" }, header, list, empty);
    const root = element("div", { class: "host" }, stub, path, tile);
    this.hosts.set(key, { root, stub, path, said, size, address, list, empty, kind: "" });
    this.drawHost(key, host);
    return root;
  }

  drawHost(key, host) {
    const parts = this.hosts.get(key);
    const kind = pathKind(host);
    set(parts.address, "textContent", host.address);
    set(parts.stub, "className", `stub ${kind}`);
    parts.root.classList.toggle("is-here", host.here);
    parts.root.classList.toggle("is-away", host.state === "dead" || host.state === "left");
    const size = kind === "ok" ? host.path.size_carried : null;
    const tone = { lost: "bad", limited: "warn", away: host.state === "suspect" ? "warn" : "bad" }[kind] ?? "";
    if (kind !== parts.kind) parts.path.firstElementChild.replaceWith(sign(kind));
    parts.kind = kind;
    set(parts.said, "className", tone);
    set(parts.said, "textContent", (kind === "ok" && latency(host.path.rtt_ms)) || pathText(host));
    set(parts.size, "textContent", size ? `${size} B` : "");
    set(parts.path, "title", size ? `packets of ${size} bytes arrive` : parts.said.textContent);
  }

  drawEmpty(key) {
    const parts = this.hosts.get(key);
    if (parts) set(parts.empty, "hidden", parts.list.childElementCount > 0);
  }

  // --- containers

  place(key, container) {
    const parts = this.hosts.get(`host/${container.node}`);
    if (!parts) return;
    const network = this.store.networkOf(container);
    const chip = element("li", {}, networkShape(network),
      element("span", { class: "name" }, container.name),
      element("span", { class: "mono" }, container.ips[0] ?? ""));
    chip.title = [container.name, container.network, ...container.ips].join("  ");
    chip.dataset.key = key;
    chip.dataset.order = `${container.network} ${container.name}`;
    this.chips.set(key, chip);
    const next = [...parts.list.children].find((other) => compare(other.dataset.order, chip.dataset.order) > 0);
    if (next) next.before(chip);
    else parts.list.append(chip);
  }

  move(key) {
    const before = this.chips.get(key);
    const list = before?.parentNode;
    before?.remove();
    this.chips.delete(key);
    const container = this.store.items.get(key);
    if (container) this.place(key, container);
    for (const [host, parts] of this.hosts) {
      if (parts.list === list || host === `host/${container?.node}`) this.drawEmpty(host);
    }
  }

  // --- density, search, choice

  arrange() {
    const isDense = this.isDense ?? this.chips.size > NAMES_MAX;
    this.root.classList.toggle("is-dense", isDense);
    this.density.setAttribute("aria-pressed", String(!isDense));
    this.density.hidden = this.chips.size === 0;
    const counts = new Map();
    for (const [, host] of this.store.all("host")) {
      counts.set(pathKind(host), (counts.get(pathKind(host)) ?? 0) + 1);
    }
    for (const [kind, node] of this.counts) {
      set(node, "textContent", String(counts.get(kind) ?? 0));
      set(node.parentNode, "hidden", !counts.has(kind));
    }
  }

  mark() {
    const { store } = this;
    this.root.classList.toggle("is-filtered", store.isFiltered);
    let containers = 0;
    const holding = new Set();
    for (const [key, chip] of this.chips) {
      const container = store.items.get(key);
      const isFound = store.isFiltered && store.matches(key, container);
      chip.classList.toggle("is-found", isFound);
      chip.classList.toggle("is-chosen", key === store.chosen);
      if (isFound) {
        containers += 1;
        holding.add(`host/${container.node}`);
      }
    }
    let hosts = 0;
    for (const [key, parts] of this.hosts) {
      const isFound = store.isFiltered && store.matches(key, store.items.get(key));
      parts.root.classList.toggle("is-found", isFound || holding.has(key));
      parts.root.classList.toggle("is-chosen", key === store.chosen);
      hosts += isFound ? 1 : 0;
    }
    const found = document.getElementById("found");
    const text = store.words.length || store.network
      ? `Found ${plural(containers, "container")} and ${plural(hosts, "host")}` : "";
    set(found, "textContent", text);
  }
}
