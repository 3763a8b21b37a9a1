/** The messages on the screen: at most 500 elements of the current conversation, however long it is. */

import { avatar, element, icon } from "./dom.js";
import { dayName, sameDay, textOf, timeOfDay } from "./words.js";

const SHOWN = 500;
const STEP = 50;
const NEAR_BOTTOM = 48;

// Messages of one person within this time stand together under one name.
const TOGETHER = 5 * 60_000;

const STATES = {
  sending: ["clock", "Sending"],
  accepted: ["check", "Accepted"],
  delivered: ["double-check", "Delivered"],
  failed: ["alert", "Not sent"],
};

export class Timeline {
  #log;
  #list;
  #earlier;
  #latest;
  #empty;
  #actions;
  #conversation = null;

  // The element of each item on the screen, and how it was last drawn, so that drawing again costs little.
  #drawn = new Map();

  // The last item to show while the reader is further up; null follows the newest.
  #anchor = null;
  #lastShown = null;
  #atBottom = true;
  #frame = 0;

  /** `actions`: loadEarlier(conversation), retry(item), discard(item). */
  constructor({ log, list, earlier, latest, empty }, actions) {
    this.#log = log;
    this.#list = list;
    this.#earlier = earlier;
    this.#latest = latest;
    this.#empty = empty;
    this.#actions = actions;
    log.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    earlier.addEventListener("click", () => this.#showEarlier());
    latest.addEventListener("click", () => {
      this.follow();
      // The button is gone, and with it the focus would be.
      log.focus({ preventScroll: true });
    });
    new ResizeObserver(() => this.#atBottom && this.#toBottom()).observe(log);
  }

  /** Shows another conversation, from its end. Its old messages are not read out: they are not news. */
  show(conversation) {
    this.#conversation = conversation;
    this.#drawn.clear();
    this.#list.replaceChildren();
    this.#quietly(() => this.follow());
  }

  /** Goes to the newest message and stays there. */
  follow() {
    this.#anchor = null;
    this.#atBottom = true;
    this.#draw();
  }

  /** Something changed: draws once before the next frame, however much it was. */
  update() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const { items, more } = this.#conversation;
    const [start, end] = this.#window();
    const keepPlace = this.#atBottom ? () => this.#toBottom() : this.#place();
    this.#arrange(items.slice(start, end), items[start - 1]);
    this.#lastShown = items[end - 1] ?? null;
    this.#empty.hidden = items.length > 0;
    this.#earlier.hidden = start === 0 && !more;
    keepPlace();
    this.#latest.hidden = this.#atBottom && !this.#anchor;
  }

  #window() {
    const { items } = this.#conversation;
    if (!this.#atBottom && !this.#anchor && this.#drawn.size >= SHOWN) this.#anchor = this.#lastShown;
    const end = this.#anchor ? items.indexOf(this.#anchor) + 1 || items.length : items.length;
    return [Math.max(0, end - SHOWN), end];
  }

  /** Puts the elements in the items' order, touching only those that are not where or as they should be. */
  #arrange(items, previous) {
    let here = this.#list.firstElementChild;
    const shown = new Set(items);
    for (const item of items) {
      const node = this.#node(item, previous);
      if (node === here) here = here.nextElementSibling;
      else this.#list.insertBefore(node, here);
      previous = item;
    }
    for (const [item, { node }] of this.#drawn) {
      if (shown.has(item)) continue;
      node.remove();
      this.#drawn.delete(item);
    }
  }

  #node(item, previous) {
    const newDay = !previous || !sameDay(previous.time, item.time);
    const unread = item === this.#conversation.firstUnread;
    const joined = !newDay && !unread && previous.from === item.from && item.time - previous.time < TOGETHER;
    const look = `${newDay} ${unread} ${joined} ${item.state} ${item.time}`;
    const drawn = this.#drawn.get(item);
    if (drawn?.look === look) return drawn.node;
    const node = drawn?.node ?? element("li");
    node.className = `item ${item.state}${item.own ? " own" : ""}${joined ? " joined" : ""}`;
    node.replaceChildren(
      ...(newDay ? [element("p", { class: "divider" }, dayName(item.time))] : []),
      ...(unread ? [element("p", { class: "divider unread" }, "New")] : []),
      item.type === "notice" ? element("p", { class: "notice" }, item.content) : this.#message(item),
    );
    this.#drawn.set(item, { node, look });
    return node;
  }

  #message(item) {
    const { from, own, type, content, state, time } = item;
    return element(
      "div",
      { class: "message" },
      !own && avatar(from),
      element("p", { class: own ? "visually-hidden" : "author" }, own ? "You" : from),
      element(
        "div",
        { class: "bubble" },
        type !== "chat" && element("span", { class: "tag" }, type),
        element("p", { class: typeof content === "string" ? "text" : "text data", dir: "auto" }, textOf(content)),
        element("span", { class: "meta" },
          element("time", { datetime: new Date(time).toISOString() }, timeOfDay(time)),
          own && this.#state(state)),
      ),
      state === "failed" && this.#failure(item),
    );
  }

  #state(state) {
    const [picture, label] = STATES[state];
    return element("span", { class: "state", role: "img", "aria-label": label, title: label }, icon(picture));
  }

  #failure(item) {
    const { retry, discard } = this.#actions;
    const button = (label, onclick) => {
      const spoken = `${label}: ${textOf(item.content)}`;
      return element("button", { type: "button", class: "link", "aria-label": spoken, onclick }, label);
    };
    return element(
      "p",
      { class: "failure" },
      element("span", {}, `Not sent. ${item.reason}`),
      button("Try again", () => retry(item)),
      button("Discard", () => discard(item)),
    );
  }

  async #showEarlier() {
    const conversation = this.#conversation;
    const { items } = conversation;
    const [start] = this.#window();
    const first = items[start];
    this.#atBottom = false;
    this.#log.setAttribute("aria-live", "off");
    if (start === 0) await this.#actions.loadEarlier(conversation);
    if (conversation !== this.#conversation) return;
    const newStart = Math.max(0, items.indexOf(first) - STEP);
    this.#anchor = items[newStart + SHOWN - 1] ?? null;
    this.#quietly(() => this.#draw());
    if (this.#earlier.hidden) this.#log.focus({ preventScroll: true });
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#log;
    this.#atBottom = scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM;
    if (this.#atBottom && this.#anchor) {
      const { items } = this.#conversation;
      this.#anchor = items[items.indexOf(this.#anchor) + STEP] ?? null;
      this.#atBottom = false;
      this.update();
    }
    this.#latest.hidden = this.#atBottom && !this.#anchor;
  }

  #toBottom() {
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  /** Remembers which message is at the top of the screen; the result puts it back there. */
  #place() {
    const top = this.#log.getBoundingClientRect().top;
    const first = [...this.#list.children].find((node) => node.getBoundingClientRect().bottom > top);
    const before = first?.getBoundingClientRect().top;
    return () => {
      if (first?.isConnected) this.#log.scrollTop += first.getBoundingClientRect().top - before;
    };
  }

  /** What appears meanwhile is not read out. */
  #quietly(draw) {
    this.#log.setAttribute("aria-live", "off");
    draw();
    setTimeout(() => this.#log.setAttribute("aria-live", "polite"), 500);
  }
}
