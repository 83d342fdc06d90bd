// Connects the stream with the parts of the page.

import { Details } from "./details.js";
import { Feed } from "./feed.js";
import { Picture } from "./picture.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";
import { Tables } from "./tables.js";
import { clock, element, networkShape, plural, set, sign } from "./dom.js";

const store = new Store();
const picture = new Picture(store, choose);
const tables = new Tables(store, choose);
const details = new Details(store, choose);
const feed = new Feed();
const search = document.getElementById("search");
let isConnected = false;
let refusal = "";

function choose(key, opener) {
  store.chosen = key === store.chosen && !opener ? "" : key;
  history.replaceState(null, "", store.chosen ? `#${encodeURI(store.chosen)}` : location.pathname);
  details.chosen(opener);
  mark();
}

function mark() {
  picture.mark();
  tables.mark();
}

// --- what is above the picture

function drawTop() {
  const { cluster } = store;
  const hosts = store.all("host");
  const alive = hosts.filter(([, host]) => host.state === "alive").length;
  const title = document.getElementById("title");
  const counts = alive === hosts.length ? plural(hosts.length, "host") : `${alive} of ${plural(hosts.length, "host")} alive`;
  if (cluster) {
    set(title, "textContent", `Cluster ${cluster.id ?? ""} from ${cluster.here}: ${counts}, ${plural(store.all("container").length, "container")}`);
    document.title = `${cluster.health.length ? `(${cluster.health.length}) ` : ""}${cluster.here} · overlayd`;
  }
  set(document.getElementById("elsewhere"), "textContent", cluster?.elsewhere.length
    ? `Not known on this host, which is not on them: the containers of ${cluster.elsewhere.join(", ")}.` : "");
  const health = cluster?.health ?? [];
  drawLines("problems", health);
  drawLines("notices", (cluster?.notices ?? []).map((each) => ({ ...each, level: "info" })));
  document.getElementById("problems").classList.toggle("has-errors", health.some((each) => each.level === "error"));
  set(document.getElementById("problems-title"), "textContent", plural(health.length, "problem"));
}

function drawLines(id, lines) {
  const section = document.getElementById(id);
  section.hidden = lines.length === 0;
  const shown = JSON.stringify(lines);
  if (section.dataset.shown === shown) return;
  section.dataset.shown = shown;
  section.querySelector("ul").replaceChildren(...lines.map((each) => element("li", {}, sign(each.level),
    element("span", {}, each.level === "info" ? null : element("span", { class: "unseen" }, `${each.level}: `), each.text),
    each.hint ? element("span", { class: "hint" }, each.hint) : null)));
}

function drawNetworks() {
  const list = document.getElementById("networks");
  const counts = new Map();
  for (const [, each] of store.all("container")) counts.set(each.network, (counts.get(each.network) ?? 0) + 1);
  const shown = JSON.stringify([store.network, store.networks().map(([, n]) => [n.name, n.shape, n.color, counts.get(n.name)])]);
  if (list.dataset.shown === shown) return;
  list.dataset.shown = shown;
  const focused = document.activeElement?.dataset?.network;
  list.replaceChildren(...store.networks().map(([key, network]) => {
    const button = element("button", { type: "button" }, networkShape(network), network.name,
      element("span", { class: "count" }, String(counts.get(network.name) ?? 0),
        element("span", { class: "unseen" }, " containers; show only this network")));
    button.dataset.network = network.name;
    button.setAttribute("aria-pressed", String(store.network === network.name));
    button.addEventListener("click", () => {
      store.network = store.network === network.name ? "" : network.name;
      drawNetworks();
      if (store.network) choose(key, null);
      else if (store.chosen === key) choose("", null);
      mark();
    });
    return element("li", {}, button);
  }));
  if (!store.networks().length && store.cluster) {
    list.append(element("li", { class: "all" }, "none yet: ", element("code", {}, "sudo overlayd network create blue")));
  }
  if (focused) list.querySelector(`[data-network="${CSS.escape(focused)}"]`)?.focus();
}

// --- whether it is live

function drawLive() {
  const live = document.getElementById("live");
  const banner = document.getElementById("banner");
  const isLive = isConnected && !store.problem;
  document.body.classList.toggle("is-stale", !isLive);
  const shown = JSON.stringify([isConnected, store.problem, refusal, isLive ? 0 : store.seenAt]);
  if (banner.dataset.shown === shown) return;
  banner.dataset.shown = shown;
  live.replaceChildren(sign(isLive ? "ok" : "lost"), isLive ? "Live" : "Not live");
  const old = store.seenAt ? `What you see is from ${clock(store.seenAt)}. ` : "";
  if (isLive) {
    banner.replaceChildren();
  } else if (!isConnected) {
    banner.replaceChildren(problem("overlayd web does not answer", refusal, `${old}This page tries again by itself.`, ""));
  } else {
    const { what, why, hint } = store.problem;
    banner.replaceChildren(problem(what, why, `${old}The page continues as soon as the agent answers; containers keep their networks without it.`, hint));
  }
}

function problem(what, why, then, hint) {
  return element("div", { class: "banner" },
    element("strong", {}, sign("lost"), what), why ? element("span", {}, why) : null,
    element("span", {}, then), hint ? element("span", {}, "Next: ", element("code", {}, hint)) : null);
}

// --- the stream

function drawAll() {
  drawTop();
  drawNetworks();
  picture.drawAll();
  tables.drawAll();
  details.draw();
  drawLive();
}

new Stream({
  connected() {
    isConnected = true;
    refusal = "";
    if (store.seenAt !== null || store.problem) drawLive();
  },
  lost(why) {
    isConnected = false;
    refusal = why;
    drawLive();
  },
  state(state) {
    store.replace(state);
    feed.replace(state.events);
    drawAll();
  },
  change(change) {
    store.change(change);
    drawTop();
    drawNetworks();
    picture.change(change);
    tables.change(change);
    if (store.chosen) details.draw();
  },
  problem(message) {
    store.problem = message.problem;
    store.seenAt = message.seen_at;
    drawLive();
  },
  happened(event) {
    feed.add(event);
  },
  tick(message) {
    store.seenAt = message.seen_at;
  },
});

// --- search

let isMarking = false;

search.addEventListener("input", () => {
  store.search(search.value);
  if (isMarking) return;
  isMarking = true;
  requestAnimationFrame(() => {
    isMarking = false;
    mark();
  });
});

search.form.addEventListener("submit", (event) => {
  event.preventDefault();
  const found = [...store.hosts(), ...store.containers()].find(([key, item]) => store.matches(key, item));
  if (found && store.words.length) choose(found[0], search);
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  }
  if (event.key === "Escape" && !isTyping && store.chosen) choose("", null);
});

// --- the address names what is chosen

function named() {
  try {
    return decodeURI(location.hash.slice(1));
  } catch {
    return "";
  }
}

window.addEventListener("hashchange", () => {
  store.chosen = named();
  details.draw();
  mark();
});

store.chosen = named();
details.draw();
