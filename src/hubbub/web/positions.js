/** Where a client is in each channel it follows: what to skip, what is missing, what to ask for on return. */

/** The channel a publication belongs to: "all", "inbox" or "room:<name>". */
export function channelOf({ room, to }) {
  if (room !== undefined) return `room:${room}`;
  return to !== undefined ? "inbox" : "all";
}

export class Positions {
  // The last message handled, by channel.
  #last = new Map();

  /** `settled: false` where it is not known with which message a backlog begins: that one is no gap. */
  start(channel, [epoch, seq], settled = true) {
    this.#last.set(channel, { epoch, seq, settled });
  }

  forget(channel) {
    this.#last.delete(channel);
  }

  /** Moves to a message. `fresh`: it was not handled before. `missing`: the `[from, to]` skipped on the way. */
  advance(channel, { seq, prev = seq - 1 }) {
    const last = this.#last.get(channel);
    if (seq === undefined || !last) return { fresh: true, missing: null };
    if (seq <= last.seq) return { fresh: false, missing: null };
    const missing = last.settled && prev > last.seq ? [last.seq + 1, prev] : null;
    Object.assign(last, { seq, settled: true });
    return { fresh: true, missing };
  }

  /** `[epoch, seq]`, or undefined where the channel is not followed. */
  get(channel) {
    const last = this.#last.get(channel);
    return last && [last.epoch, last.seq];
  }

  /** The `resume` of a hello: every channel's position, rooms under their names. */
  resume() {
    const resume = { rooms: {} };
    for (const [channel, { epoch, seq }] of this.#last) {
      if (channel.startsWith("room:")) resume.rooms[channel.slice(5)] = [epoch, seq];
      else resume[channel] = [epoch, seq];
    }
    return resume;
  }
}
