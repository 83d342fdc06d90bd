// The state of the cluster, as the server sends it: items by key, such as `host/vm1`.

const collator = new Intl.Collator("en", { numeric: true });

export const compare = collator.compare;

export class Store {
  constructor() {
    this.items = new Map();
    this.seenAt = null;
    this.problem = null;
    this.words = [];
    this.network = ""; // the one network that is shown, or all
    this.chosen = "";
    this.texts = new Map(); // what a search looks at, by key
  }

  replace(state) {
    this.items = new Map(Object.entries(state.items));
    this.texts.clear();
    this.problem = state.problem;
    this.seenAt = state.seen_at;
  }

  change(change) {
    for (const [key, item] of Object.entries(change.put)) this.items.set(key, item);
    for (const key of change.drop) this.items.delete(key);
    for (const key of [...Object.keys(change.put), ...change.drop]) this.texts.delete(key);
    this.seenAt = change.seen_at;
  }

  get cluster() {
    return this.items.get("cluster");
  }

  all(kind) {
    const found = [];
    for (const [key, item] of this.items) if (key.startsWith(`${kind}/`)) found.push([key, item]);
    return found;
  }

  // This host first, then by name.
  hosts() {
    return this.all("host").sort(([, a], [, b]) => b.here - a.here || compare(a.name, b.name));
  }

  networks() {
    return this.all("network").sort(([, a], [, b]) => compare(a.name, b.name));
  }

  containers() {
    return this.all("container").sort(([, a], [, b]) =>
      compare(a.network, b.network) || compare(a.name, b.name));
  }

  networkOf(container) {
    return this.items.get(`network/${container.network}`);
  }

  search(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
  }

  get isFiltered() {
    return this.words.length > 0 || this.network !== "";
  }

  // Every word of the search is somewhere in the item, and it is on the chosen network.
  matches(key, item) {
    if (this.network) {
      const isOn = key.startsWith("container/")
        ? item.network === this.network
        : (this.items.get(`network/${this.network}`)?.hosts ?? []).includes(item.name);
      if (!isOn) return false;
    }
    if (!this.words.length) return true;
    let text = this.texts.get(key);
    if (text === undefined) {
      text = wordsOf(key, item).join("\n").toLowerCase();
      this.texts.set(key, text);
    }
    return this.words.every((word) => text.includes(word));
  }
}

function wordsOf(key, item) {
  if (key.startsWith("host/")) {
    return [item.name, item.id, item.address, item.state, item.version ?? "", item.path?.state ?? ""];
  }
  const labels = Object.entries(item.labels ?? {}).map(([name, value]) => `${name}=${value}`);
  return [item.name, item.network, item.mac, item.node, item.target ?? "", ...item.ips,
    ...(item.aliases ?? []), ...labels];
}

// What is said of a path, in words: also the direction that is lost.
export function pathText(host) {
  if (host.here) return "this host";
  const path = host.path;
  if (!path) return "";
  if (path.kind === "lost") {
    const ways = [];
    if (path.sending === "lost") ways.push(`to ${host.name}`);
    if (path.receiving === "lost") ways.push(`from ${host.name}`);
    if (ways.length) return `lost ${ways.join(" and ")}`;
    return [path.sending, path.receiving].includes("damaged") ? "wrong checksums" : "no report";
  }
  if (path.kind === "limited") return `only ${path.size_carried} bytes`;
  if (path.kind === "unknown") return "not probed";
  return path.state;
}

export function pathKind(host) {
  return host.here ? "here" : (host.path?.kind ?? "unknown");
}
