/** Talks to a Hubbub server over one connection that comes back by itself, with nothing lost or doubled. */

import { Line } from "./line.js";
import { Positions, channelOf } from "./positions.js";
import { backoff, isFinal } from "./retry.js";
import { Transfers } from "./transfers.js";

const CLIENT = "hubbub-page/1";
const SUBPROTOCOL = "hubbub.v1.json";
const ANSWERS = new Set(["joined", "left", "history", "presence", "users", "pong"]);
const CONNECT_TIMEOUT = 5_000;
const SILENCE_LIMIT = 60_000;
const STEADY = 5_000;
const ACK_DELAY = 50;
const QUEUE_LIMIT = 100;
const SEND_TRIES = 3;

/** A name for a message. (crypto.randomUUID does not exist on plain http, where a phone on the local network is.) */
const newId = () => Array.from(crypto.getRandomValues(new Uint32Array(3)), (word) => word.toString(36)).join("-");

/**
 * Events, each with its facts in `detail`:
 *
 * - `state` {state: connecting | online | waiting | stopped, retryAt, code, reason}
 * - `welcome` the server's envelope · `problem` an error that is about nothing below
 * - `joined` {room, resumed, recovered, position, members?} · `refused` {room, code, message}
 * - `message` {message, channel, epoch} · `gap` {channel, from, to} · `presence` a member-joined or member-left
 * - `accepted` {id, seq, epoch} · `failed` {id, code, message} · `receipt` {id, by, time}
 */
export class HubbubClient extends EventTarget {
  state = "stopped";
  #socket = null;
  #url;
  #positions = new Positions();
  #transfers = new Transfers();

  // Rooms to be in, whatever the connection does, with how much history the first join asks for.
  #rooms = new Map();

  // Sent but not yet accepted, oldest first: sent again under the same id after a reconnect.
  #outgoing = new Map();
  // Questions asked on this connection, by id.
  #requests = new Map();
  // Both go through it, so that what the server refuses for now goes later, in order.
  #line = new Line((envelope) => this.#write(envelope));

  // One at a time: for the welcome, then for silence, then for the next try.
  #timer = 0;
  #ackTimer = 0;
  #attempt = 0;
  // Seconds that the server wants it to stay away, where it said so instead of `welcome`.
  #wait;
  #onlineSince = 0;
  #heardAt = 0;

  /** `all` is the position in the broadcast channel to go on from, as `position("all")` once gave it. */
  constructor(url, { all } = {}) {
    super();
    this.#url = url;
    if (all) this.#positions.start("all", all);
  }

  position(channel) {
    return this.#positions.get(channel);
  }

  /** Connects now, also when the next try is still to come. */
  connect() {
    if (this.#socket) return;
    clearTimeout(this.#timer);
    this.#socket = new WebSocket(this.#url, [SUBPROTOCOL]);
    this.#socket.onopen = () => this.#write({ type: "hello", client: CLIENT, resume: this.#positions.resume() });
    this.#socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
    this.#socket.onclose = (event) => this.#lost(event.code, event.reason, this.#wait);
    this.#wait = undefined;
    this.#timer = setTimeout(() => this.#lost(4001, "The server did not answer."), CONNECT_TIMEOUT);
    this.#enter("connecting");
  }

  close() {
    this.#drop();
    this.#enter("stopped", { code: 1000 });
  }

  /** Sends a message until it is accepted, once; returns its id. Past the limit the oldest waiting one fails. */
  send({ id = newId(), ...message }) {
    if (this.#outgoing.size >= QUEUE_LIMIT) this.#fail(this.#outgoing.keys().next().value, { code: "dropped" });
    this.#outgoing.set(id, { envelope: { ...message, id }, tries: 0 });
    this.#transmit(id);
    return id;
  }

  /** Asks the server something. Rejects with the server's error, or `{code: "offline"}`. */
  request(envelope) {
    if (this.state !== "online") return Promise.reject({ code: "offline" });
    const id = newId();
    const answer = new Promise((resolve, reject) => this.#requests.set(id, { envelope, resolve, reject }));
    this.#line.add({ ...envelope, id });
    return answer;
  }

  /** Is in the room from now on, through every reconnect; comes in with its `last` messages. */
  join(room, last = 50) {
    this.#rooms.set(room, last);
    if (this.state === "online") this.request({ type: "join", room, last }).catch(() => {});
  }

  leave(room) {
    this.#forget(room);
    this.request({ type: "leave", room }).catch(() => {});
  }

  #forget(room) {
    this.#rooms.delete(room);
    this.#positions.forget(`room:${room}`);
  }

  #enter(state, facts = {}) {
    this.state = state;
    this.#emit("state", { state, ...facts });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #write(envelope) {
    this.#socket.send(JSON.stringify(envelope));
  }

  #transmit(id) {
    const waiting = this.#outgoing.get(id);
    if (waiting && this.state === "online") this.#line.add(waiting.envelope);
  }

  #fail(id, { code, message }) {
    this.#outgoing.delete(id);
    this.#line.remove(id);
    this.#emit("failed", { id, code, message });
  }

  #receive(envelope) {
    this.#heardAt = Date.now();
    const { type } = envelope;
    if (type === "welcome") this.#welcomed(envelope);
    else if (type === "ping") this.#write({ type: "pong" });
    else if (type === "goodbye") this.#lost(envelope.code, envelope.reason, envelope.retry_after);
    else if (type === "chunk") this.#collect(envelope);
    else if (type === "error") this.#erred(envelope);
    else if (type === "ack") this.#accepted(envelope);
    else if (type === "receipt") this.#emit("receipt", envelope);
    else if (type === "gap") this.#dropped(envelope);
    else if (type === "member-joined" || type === "member-left") this.#emit("presence", envelope);
    else if (ANSWERS.has(type)) this.#answered(envelope);
    else this.#published(envelope);
  }

  #collect(chunk) {
    let message;
    try {
      const text = this.#transfers.add(chunk);
      if (text === undefined) return;
      message = JSON.parse(text);
    } catch (error) {
      this.#lost(1002, error.message);
      return;
    }
    this.#receive(message);
  }

  #welcomed(welcome) {
    const { positions, recovered } = welcome;
    if (recovered.all !== true) this.#positions.start("all", positions.all);
    if (recovered.inbox !== true) this.#positions.start("inbox", positions.inbox);
    clearTimeout(this.#timer);
    this.#timer = setInterval(() => {
      if (Date.now() - this.#heardAt > SILENCE_LIMIT) this.#lost(4001, "The server fell silent.");
    }, SILENCE_LIMIT / 12);
    this.#onlineSince = Date.now();
    this.#enter("online");
    this.#emit("welcome", welcome);
    for (const [room, last] of this.#rooms) this.#returned(room, last, welcome);
    for (const id of this.#outgoing.keys()) this.#transmit(id);
  }

  #returned(room, last, { positions, recovered }) {
    const [channel, position] = [`room:${room}`, positions.rooms?.[room]];
    if (position) {
      if (recovered.rooms[room] !== true) this.#positions.start(channel, position);
      this.#emit("joined", { room, resumed: true, recovered: recovered.rooms[room], position });
    } else if (this.#positions.get(channel)) {
      this.#forget(room); // Not let back in: an error with the reason follows.
    } else {
      this.join(room, last);
    }
  }

  #answered(answer) {
    const { type, id, room, position, code } = answer;
    if (type === "joined" && this.#rooms.has(room)) {
      const start = Math.max(0, position[1] - this.#rooms.get(room));
      this.#positions.start(`room:${room}`, [position[0], start], false);
      this.#emit("joined", { ...answer, resumed: false });
    } else if (type === "left" && code) {
      this.#forget(room); // Nobody asked: the server took us out.
      this.#emit("refused", answer);
    }
    this.#settle(id)?.resolve(answer);
  }

  #published(message) {
    const channel = channelOf(message);
    const epoch = this.#positions.get(channel)?.[0];
    const { fresh, missing } = this.#positions.advance(channel, message);
    if (missing) this.#emit("gap", { channel, from: missing[0], to: missing[1] });
    if (fresh) this.#emit("message", { message, channel, epoch });

    // Acknowledgements are cumulative and a backlog comes in one burst: one for all of it.
    if (channel === "inbox" && message.seq) this.#ackTimer ||= setTimeout(() => this.#acknowledge(), ACK_DELAY);
  }

  #acknowledge() {
    this.#ackTimer = 0;
    const [, seq] = this.#positions.get("inbox");
    if (seq && this.state === "online") this.#write({ type: "ack", seq });
  }

  #accepted(ack) {
    this.#line.remove(ack.id);
    if (this.#outgoing.delete(ack.id)) this.#emit("accepted", ack);
  }

  #dropped({ room, channel, from, to }) {
    const name = channel ?? channelOf({ room, to: "me" });
    this.#positions.advance(name, { seq: to, prev: from - 1 });
    this.#emit("gap", { channel: name, from, to });
  }

  #erred(error) {
    if (this.state === "connecting") this.#wait = error.retry_after; // It says why the connection closes next.
    if (error.code === "rate_limited" && this.#line.refuse(error.id, error.retry_after)) return;
    const waiting = this.#outgoing.get(error.id);
    const request = this.#settle(error.id);
    const room = error.room ?? request?.envelope.room;
    const join = request?.envelope.type === "join";
    if (join) this.#forget(room);
    if (waiting && error.retry_after && ++waiting.tries < SEND_TRIES) {
      this.#line.remove(error.id);
      setTimeout(() => this.#transmit(error.id), error.retry_after * 1000);
    } else if (waiting) this.#fail(error.id, error);
    else if (join || (!request && room && !this.#rooms.has(room))) this.#emit("refused", { ...error, room });
    else if (!request) this.#emit("problem", error);
    request?.reject(error);
  }

  #settle(id) {
    const request = this.#requests.get(id);
    this.#requests.delete(id);
    if (request) this.#line.remove(id);
    return request;
  }

  /** Lets go of the connection at once: on a dead network its close handshake may take minutes. */
  #drop() {
    if (this.#socket) this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket?.close();
    this.#socket = null;
    clearTimeout(this.#timer);
    this.#line.clear();
    this.#transfers = new Transfers();
    for (const { reject } of this.#requests.values()) reject({ code: "offline" });
    this.#requests.clear();
  }

  #lost(code, reason, wait) {
    // Only a connection that lasted starts the backoff afresh: one that falls at once would be retried at once.
    const steady = this.state === "online" && Date.now() - this.#onlineSince > STEADY;
    this.#drop();
    if (isFinal(code)) return this.#enter("stopped", { code, reason });
    this.#attempt = steady ? 0 : this.#attempt + 1;
    const delay = Math.max(backoff(this.#attempt), (wait ?? 0) * 1000);
    this.#timer = setTimeout(() => this.connect(), delay);
    this.#enter("waiting", { retryAt: Date.now() + delay, code, reason });
  }
}
