/** What waits to be written and gets an answer, in order, no faster than the server takes it (spec/client.md §7). */

const MOST_UNANSWERED = 100;
const LONGEST_HOLD = 300_000;
// Between the ends of two holds that began together: what was sent first goes first.
const TOGETHER = 100;

export class Line {
  #write;
  #count = 0;
  // Oldest first, each with its place: one that comes back is before all that came later.
  #waiting = [];
  #unanswered = new Map();

  // By type, until when nothing of it is written.
  #held = new Map();
  // Something was refused: one at a time, until nothing waits any more.
  #careful = false;
  #timer = 0;

  /** `write` is called with each envelope when it is its turn, maybe at once. */
  constructor(write) {
    this.#write = write;
  }

  add(envelope) {
    this.remove(envelope.id);
    this.#waiting.push({ place: ++this.#count, envelope });
    this.#goOn();
  }

  /** It is answered, or given up. */
  remove(id) {
    this.#unanswered.delete(id);
    this.#waiting = this.#waiting.filter(({ envelope }) => envelope.id !== id);
    if (!this.#waiting.length && !this.#unanswered.size) this.#careful = false;
    this.#goOn();
  }

  /** The server takes no more for now: whether it was one of these, which is written again later. */
  refuse(id, seconds = 1) {
    const entry = this.#unanswered.get(id);
    if (!entry) return false;
    this.#unanswered.delete(id);
    const behind = this.#waiting.findIndex(({ place }) => place > entry.place);
    this.#waiting.splice(behind < 0 ? this.#waiting.length : behind, 0, entry);
    const until = Date.now() + Math.min(seconds * 1000, LONGEST_HOLD);
    this.#held.set(entry.envelope.type, Math.max(until, this.#held.get(entry.envelope.type) ?? 0));
    this.#careful = true;
    this.#goOn();
    return true;
  }

  /** There is no connection any more, so nobody holds anything. */
  clear() {
    clearTimeout(this.#timer);
    this.#waiting = [];
    this.#unanswered.clear();
    this.#held.clear();
    this.#careful = false;
  }

  #goOn() {
    const now = Date.now();
    const until = ({ envelope }) => this.#held.get(envelope.type) ?? 0;
    clearTimeout(this.#timer);
    while (this.#waiting.length && this.#unanswered.size < (this.#careful ? 1 : MOST_UNANSWERED)) {
      const next = this.#waiting.findIndex((entry) => until(entry) <= now + TOGETHER);
      if (next < 0 || until(this.#waiting[next]) > now) {
        const soonest = Math.min(...this.#waiting.map(until).filter((moment) => moment > now));
        this.#timer = setTimeout(() => this.#goOn(), soonest - now);
        return;
      }
      const [entry] = this.#waiting.splice(next, 1);
      this.#unanswered.set(entry.envelope.id, entry);
      this.#write(entry.envelope);
    }
  }
}
