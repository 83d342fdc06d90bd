// Events, the newest first. New ones are announced to screen readers, and can be paused.

import { clock, element, moment, sign } from "./dom.js";

const EVENTS_MAX = 200;

export class Feed {
  constructor() {
    this.list = document.getElementById("events");
    this.log = document.getElementById("log");
    this.button = document.getElementById("pause");
    this.waiting = [];
    this.isPaused = false;
    this.button.addEventListener("click", () => {
      this.isPaused = !this.isPaused;
      if (!this.isPaused) this.waiting.splice(0).forEach((event) => this.show(event));
      this.drawButton();
    });
  }

  replace(events) {
    this.waiting = [];
    this.log.setAttribute("aria-live", "off"); // only what happens from now on is announced
    this.list.replaceChildren(...events.slice(-EVENTS_MAX).reverse().map(line));
    requestAnimationFrame(() => this.log.setAttribute("aria-live", "polite"));
    if (!events.length) this.list.append(element("li", { class: "none" }, "none in the last hour"));
    this.drawButton();
  }

  add(event) {
    if (!this.isPaused) {
      this.show(event);
      return;
    }
    this.waiting.push(event);
    if (this.waiting.length > EVENTS_MAX) this.waiting.shift();
    this.drawButton();
  }

  show(event) {
    this.list.querySelector(".none")?.remove();
    const made = line(event);
    made.classList.add("is-new");
    this.list.prepend(made);
    while (this.list.childElementCount > EVENTS_MAX) this.list.lastElementChild.remove();
  }

  drawButton() {
    this.button.setAttribute("aria-pressed", String(this.isPaused));
    this.button.textContent = this.waiting.length ? `Continue (${this.waiting.length} new)` : this.isPaused ? "Continue" : "Pause";
  }
}

function line(event) {
  const level = event.level ?? "info";
  const subject = [event.network, event.endpoint, event.peer].filter(Boolean).join("/");
  const time = element("time", { dateTime: new Date(event.time * 1000).toISOString() }, clock(event.time));
  time.title = moment(event.time);
  return element("li", {}, time, sign(level), element("p", {},
    level === "info" ? null : element("span", { class: "unseen" }, `${level}: `),
    element("span", { class: "kind" }, `${event.kind} `),
    subject ? element("strong", {}, `${subject} `) : null, event.text));
}
