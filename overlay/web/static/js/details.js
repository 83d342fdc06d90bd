// All that is known of what is chosen, and commands that look closer.

import { compare, pathKind, pathText } from "./store.js";
import { element, latency, moment, networkShape, plural, rate, sign } from "./dom.js";

export class Details {
  constructor(store, choose) {
    this.store = store;
    this.root = document.getElementById("details");
    this.body = document.getElementById("details-body");
    this.title = document.getElementById("details-title");
    this.close = document.getElementById("details-close");
    this.opener = null; // where the keyboard was
    this.close.addEventListener("click", () => choose("", null));
    this.body.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-key]");
      if (button) choose(button.dataset.key, button);
    });
  }

  // `opener`: the control that the keyboard comes from.
  chosen(opener) {
    const { chosen } = this.store;
    const hadFocus = this.root.contains(document.activeElement);
    this.draw();
    if (chosen && opener) {
      if (!hadFocus) this.opener = opener;
      this.title.focus({ preventScroll: !hadFocus });
    } else if (!chosen && hadFocus) {
      (this.opener?.isConnected ? this.opener : document.getElementById("tables")).focus();
      this.opener = null;
    }
  }

  draw() {
    const { store } = this;
    const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const [kind] = store.chosen.split("/", 1);
    const parts = { host: this.host, network: this.network, container: this.container }[kind];
    const item = parts && store.items.get(store.chosen);
    this.close.hidden = !store.chosen;
    this.root.classList.toggle("is-open", Boolean(store.chosen));
    this.title.textContent = { host: "Host", network: "Network", container: "Container" }[kind] ?? "Details";
    if (!store.chosen) {
      this.body.replaceChildren(element("p", { class: "note" },
        "Choose a host, a network or a container, in the picture or in a table."));
    } else if (!item) {
      this.body.replaceChildren(element("p", { class: "note" }, store.seenAt ? "It is gone." : "Waiting for the agent."));
    } else {
      this.body.replaceChildren(...parts.call(this, item));
      if (focused) this.body.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    }
  }

  host(host) {
    const { store } = this;
    const path = host.path;
    const held = store.containers().filter(([, each]) => each.node === host.name);
    const kind = pathKind(host);
    const facts = [
      ["State", marked(host.state, `${host.state} since ${moment(host.since)}`)],
      ["Address", mono(host.address)],
      ["Node id", mono(host.id)],
      ["Version", host.version],
      ["Records", host.here ? "" : host.behind ? `${plural(host.behind, "version")} behind` : "up to date"],
      ["Authority", host.authority ? "holds the cluster's authority" : ""],
      ["Certificate", host.certificate_expires ? `until ${moment(host.certificate_expires)}` : ""],
    ];
    const ways = path?.sending ? [
      ["Path", marked(kind, pathText(host))],
      ["Since", path.since ? moment(path.since) : ""],
      [`To ${host.name}`, path.sending],
      [`From ${host.name}`, path.receiving],
      ["Latency", latency(path.rtt_ms)],
      ["Packets", path.size_carried === null ? "size is still searched"
        : `${path.size_carried} of ${path.size_expected} bytes arrive`],
    ] : host.here ? [] : [["Path", marked(kind, pathText(host))], ["Latency", latency(path?.rtt_ms)]];
    return [
      heading(host.name), factList(facts),
      ...(ways.length ? [subheading(`VXLAN path from ${store.cluster.here}`), factList(ways)] : []),
      subheading(plural(held.length, "container")), this.links(held),
      ...(kind === "ok" || host.here ? [] : next(`sudo overlayd netcheck ${host.name}`)),
    ];
  }

  network(network) {
    const { store } = this;
    const held = store.containers().filter(([, each]) => each.network === network.name);
    return [
      heading(network.name, networkShape(network)),
      factList([
        ["Subnets", mono(network.subnets.join(" "))],
        ["VNI", network.vni],
        ["Driver", network.driver + (network.parent ? ` on ${network.parent}` : "")],
        ["MTU", network.mtu ? `${network.mtu}: ${network.mtu_why}` : ""],
        ["Encrypted", network.encrypted ? "through WireGuard" : "no"],
        ["Internal", network.internal ? "nothing leaves it" : ""],
        ["On this host", network.exposed ? "exposed" : network.exposed_why],
        ["Hosts", [...(network.hosts ?? [])].sort(compare).join(" ")],
        ["Created on", network.creator],
        ["Labels", labels(network.labels)],
      ]),
      subheading(plural(held.length, "container")), this.links(held),
    ];
  }

  container(container) {
    const { store } = this;
    const network = store.networkOf(container);
    const host = store.items.get(`host/${container.node}`);
    const others = store.containers().filter(([key, each]) =>
      key !== store.chosen && each.node === container.node && each.name === container.name);
    return [
      heading(container.name, networkShape(network)),
      factList([
        ["Network", this.link(`network/${container.network}`, container.network)],
        ["Addresses", mono(container.ips.join(" "))],
        ["MAC", mono(container.mac)],
        ["Host", this.link(`host/${container.node}`, container.node)],
        ["Host state", host && host.state !== "alive" ? marked(host.state, host.state) : ""],
        ["Path", host && !host.here ? marked(pathKind(host), pathText(host)) : ""],
        ["Target", container.target],
        ["Interface", container.ifname],
        ["Aliases", (container.aliases ?? []).join(" ")],
        ["Labels", labels(container.labels)],
        ["Limit in", rate(container.rate_in)],
        ["Limit out", rate(container.rate_out)],
      ]),
      ...(others.length ? [subheading("Also on"), this.links(others, (each) => each.network)] : []),
      ...next(`sudo overlayd ping ${container.name} --network ${container.network}`),
    ];
  }

  link(key, text) {
    const button = element("button", { type: "button" }, text);
    button.dataset.key = key;
    return element("ul", {}, element("li", {}, button));
  }

  links(items, text = (each) => each.name) {
    return element("ul", {}, ...items.map(([key, each]) => {
      const button = element("button", { type: "button" }, networkShape(this.store.networkOf(each)), text(each),
        element("span", { class: "mono quiet" }, each.ips[0] ?? ""));
      button.dataset.key = key;
      return element("li", {}, button);
    }));
  }
}

function factList(pairs) {
  const parts = [];
  for (const [name, value] of pairs) {
    if (value === "" || value === null || value === undefined) continue;
    parts.push(element("dt", {}, name), element("dd", {}, value instanceof Node ? value : String(value)));
  }
  return element("dl", {}, ...parts);
}

function heading(text, before = null) {
  return element("h3", {}, before, text);
}

function subheading(text) {
  return element("h4", {}, text);
}

function mono(text) {
  return element("span", { class: "mono" }, text);
}

function marked(kind, text) {
  return element("span", {}, sign(kind), ` ${text}`);
}

function labels(found) {
  return Object.entries(found ?? {}).map(([name, value]) => (value ? `${name}=${value}` : name)).join(" ");
}

function next(command) {
  return [subheading("To look closer, on this host"), element("pre", {}, command)];
}
