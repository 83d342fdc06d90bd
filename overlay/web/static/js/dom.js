// Elements, signs and texts. Names are always text, never markup.

const SVG = "http://www.w3.org/2000/svg";

// A sign has a shape of its own, so that its color is never needed.
const SIGNS = {
  ok: ["ok", "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13M4.8 8.2l2.3 2.3 4.2-4.6"],
  limited: ["warn", "M8 2L15 14H1ZM8 6.2V10M8 11.6V12.6"],
  lost: ["bad", "M3 3L13 13M13 3L3 13"],
  unknown: ["quiet", "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13"],
  away: ["bad", "M2.5 2.5H13.5V13.5H2.5ZM5 8H11"],
  here: ["here", "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13M8 6a2 2 0 1 0 0 4a2 2 0 1 0 0-4"],
  info: ["quiet", "M8 6.5a1.5 1.5 0 1 0 0 3a1.5 1.5 0 1 0 0-3"],
};
SIGNS.warning = SIGNS.warn = SIGNS.suspect = SIGNS.limited;
SIGNS.error = SIGNS.lost;
SIGNS.dead = SIGNS.left = SIGNS.away;
SIGNS.alive = SIGNS.ok;

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function sign(kind) {
  const [color, shape] = SIGNS[kind] ?? SIGNS.unknown;
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("viewBox", "0 0 16 16");
  made.setAttribute("class", `sign ${color}`);
  made.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", shape);
  line.setAttribute("fill", "none");
  line.setAttribute("stroke", "currentColor");
  line.setAttribute("stroke-width", "1.8");
  line.setAttribute("stroke-linecap", "round");
  line.setAttribute("stroke-linejoin", "round");
  made.append(line);
  return made;
}

export function networkShape(network) {
  const look = network ? `shape-${network.shape} color-${network.color}` : "";
  return element("span", { class: `shape ${look}` });
}

// Set a property only where it differs: a page at rest costs nothing.
export function set(node, name, value) {
  if (node[name] !== value) node[name] = value;
}

export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

export function latency(ms) {
  if (ms === null || ms === undefined) return "";
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

export function moment(seconds) {
  const then = new Date(seconds * 1000);
  const isToday = then.toDateString() === new Date().toDateString();
  return isToday ? then.toLocaleTimeString("en-GB") : `${then.toLocaleDateString("en-CA")} ${then.toLocaleTimeString("en-GB")}`;
}

export function rate(bits) {
  if (!bits) return "";
  const units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"];
  let power = 0;
  while (bits >= 1000 && power < units.length - 1) [bits, power] = [bits / 1000, power + 1];
  return `${Math.round(bits * 10) / 10} ${units[power]}`;
}
