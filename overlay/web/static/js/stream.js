// The stream of changes. The browser connects again by itself, except after a refusal.

const AGAIN_MS = 3000;

export class Stream {
  constructor(handlers) {
    this.handlers = handlers;
    this.open();
  }

  open() {
    const source = new EventSource("/stream");
    for (const kind of ["state", "change", "problem", "happened", "tick"]) {
      source.addEventListener(kind, (message) => this.handlers[kind](JSON.parse(message.data)));
    }
    source.addEventListener("open", () => this.handlers.connected());
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) {
        this.handlers.lost("");
        return;
      }
      this.askWhy();
      setTimeout(() => this.open(), AGAIN_MS);
    });
  }

  // A refusal has a text, which EventSource does not show.
  async askWhy() {
    try {
      const response = await fetch("/state");
      if (response.status === 401) location.assign("/sign-in");
      else this.handlers.lost(response.ok ? "this host serves too many pages" : await response.text());
    } catch {
      this.handlers.lost("");
    }
  }
}
