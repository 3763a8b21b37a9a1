/** One conversation as this page knows it: a room, everyone, or an exchange with one user. */

import { bytesIn } from "./words.js";

// Past this many the oldest are let go; the server's history has them still.
export const KEPT = 2_000;

/**
 * What is said, oldest first; own messages that are still being sent stand at the end.
 *
 * An item: {id, seq, epoch, order, from, own, type, content, time, state}, where state is sending, accepted,
 * delivered, failed, or notice for a line of the page itself.
 */
export class Conversation {
  items = [];
  unread = 0;
  firstUnread = null;
  authors = new Set();
  draft = "";
  more = false;

  // What was there when we came in has been seen by others: it is not counted as unread.
  joinedAt = 0;

  // Each item by the place it has in its channel, and own items by their id: nothing is shown twice.
  #placed = new Map();
  #own = new Map();

  /** `kind` is room, everyone or direct; `name` the room or the user. */
  constructor(kind, name, me) {
    this.kind = kind;
    this.name = name;
    this.me = me;
    this.key = `${kind}:${name}`;
  }

  /** The part of an envelope that says where a message goes. */
  get address() {
    if (this.kind === "room") return { room: this.name };
    return this.kind === "direct" ? { to: this.name, receipt: true } : {};
  }

  /** An own message on its way. Its id may be one that was here before: a retry. */
  sending(id, content, time) {
    this.discard(this.#own.get(id));
    const item = { id, from: this.me, own: true, type: "chat", content, time, order: Infinity, state: "sending" };
    this.#own.set(id, item);
    this.#insert(item);
    return item;
  }

  /** A publication, live or from history, in any order. Returns its item, or null where it was here already. */
  receive(message, epoch) {
    const { id, seq, from, type, time } = message;
    const content = message.binary ? `<${bytesIn(message.content)} bytes>` : message.content;
    if (seq !== undefined && this.#placed.has(`${epoch}/${seq}`)) return null;
    const own = from === this.me;
    const waiting = own && id !== undefined && this.#own.get(id);
    if (waiting) return this.#settle(waiting, { seq, epoch, time }) && null;
    this.authors.add(from);
    const item = { id, from, own, type, content, state: "accepted" };
    if (own && id !== undefined) this.#own.set(id, item);
    return this.#settle(item, { seq, epoch, time });
  }

  /** The server has an own message. In a direct exchange its place is in the other's inbox: only time orders it. */
  accept(id, seq, epoch) {
    const item = this.#own.get(id);
    if (!item || item.state === "delivered") return;
    if (this.kind === "direct") Object.assign(item, { state: "accepted", order: item.time });
    else this.#settle(item, { seq, epoch, time: item.time });
  }

  deliver(id) {
    const item = this.#own.get(id);
    if (item) item.state = "delivered";
  }

  /** An own message will not arrive; it keeps the place where it is. */
  fail(id, reason) {
    const item = this.#own.get(id);
    if (item) Object.assign(item, this.#here(item), { state: "failed", reason });
  }

  discard(item) {
    const at = this.items.indexOf(item);
    if (at >= 0) this.items.splice(at, 1);
    if (item?.id) this.#own.delete(item.id);
  }

  /** A line of the page's own, after everything that has arrived; one is enough where nothing followed it. */
  note(text, time) {
    const last = this.items.at(-1);
    if (!last || last.type === "notice") return;
    const item = { type: "notice", state: "notice", content: text, time };
    this.#insert(Object.assign(item, this.#here()));
  }

  /** Items as another page of this tab had them. */
  restore(items) {
    this.items = items;
    for (const item of items) {
      if (item.from) this.authors.add(item.from);
      if (item.own) this.#own.set(item.id, item);
      if (item.seq !== undefined) this.#placed.set(`${item.epoch}/${item.seq}`, item);
    }
  }

  owns(id) {
    return this.#own.has(id);
  }

  /** The lowest `seq` held of a log: what to ask history for is before it. */
  firstSeq(epoch) {
    return this.items.find((item) => item.epoch === epoch && item.seq !== undefined)?.seq;
  }

  #settle(item, { seq, epoch, time }) {
    this.#remove(item);
    Object.assign(item, { seq, epoch, time, state: "accepted", order: this.kind === "direct" ? time : seq });
    if (seq === undefined) Object.assign(item, this.#here());
    else this.#placed.set(`${epoch}/${seq}`, item);
    this.#insert(item);
    return item;
  }

  /** The place after everything settled so far, or after what stands before an item. */
  #here(item) {
    if (this.kind === "direct") return { order: item?.time ?? Date.now() };
    const until = item ? this.items.indexOf(item) : this.items.length;
    const before = this.items.slice(0, until).findLast((other) => other.state !== "sending");
    return { epoch: before?.epoch, order: (before?.order ?? 0) + 0.5 };
  }

  #remove(item) {
    const at = this.items.lastIndexOf(item);
    if (at >= 0) this.items.splice(at, 1);
  }

  #insert(item) {
    let at = this.items.length;
    while (at > 0 && this.#follows(this.items[at - 1], item)) at -= 1;
    this.items.splice(at, 0, item);
    for (const { id, seq, epoch } of this.items.splice(0, Math.max(0, this.items.length - KEPT))) {
      this.#own.delete(id);
      this.#placed.delete(`${epoch}/${seq}`);
    }
  }

  /** Another epoch is another log: its numbers do not compare, so what came first stays first. */
  #follows(other, item) {
    if (other.state === "sending") return item.state !== "sending";
    const sameLog = this.kind === "direct" || other.epoch === item.epoch;
    return sameLog && other.order > item.order;
  }
}
