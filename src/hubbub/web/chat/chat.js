/** The chat behind the page: its conversations, kept up to date from the client's events. No DOM here. */

import { Conversation, KEPT } from "./conversation.js";
import { explain } from "./words.js";

const PAGE = 50;
const INBOX_PAGE = 200;

/**
 * Events: `list` conversations or their unread counts changed · `timeline` the current one's messages changed ·
 * `opened` another one is current · `trouble` {text} something to tell the person.
 */
export class Chat extends EventTarget {
  conversations = new Map();

  // Whether somebody is looking: if not, the current conversation collects unread messages too.
  watched = true;

  #client;
  #people;
  #clockOffset = 0;
  #inboxRead = false;
  #inboxFirst = Infinity;

  constructor(client, people, me) {
    super();
    this.#client = client;
    this.#people = people;
    this.me = me;
    this.everyone = this.current = this.#conversation("everyone", "Everyone");
    const reactions = {
      welcome: (welcome) => this.#welcomed(welcome),
      joined: (joined) => this.#joined(joined),
      refused: (error) => this.#refused(error),
      message: (publication) => this.#received(publication),
      gap: (gap) => this.#missed(gap),
      accepted: ({ id, seq, epoch }) => this.#sent(id, (conversation) => conversation.accept(id, seq, epoch)),
      failed: (error) => this.#sent(error.id, (conversation) => conversation.fail(error.id, explain(error))),
      receipt: ({ id }) => this.#sent(id, (conversation) => conversation.deliver(id)),
      problem: (error) => this.#trouble(explain(error)),
    };
    for (const [name, react] of Object.entries(reactions)) {
      client.addEventListener(name, ({ detail }) => react(detail));
    }
  }

  /** Everyone, then the rooms by name. */
  get rooms() {
    return [this.everyone, ...this.#all("room").sort((one, other) => one.name.localeCompare(other.name))];
  }

  get directs() {
    return this.#all("direct");
  }

  get unread() {
    return [...this.conversations.values()].reduce((sum, { unread }) => sum + unread, 0);
  }

  /** The server's time, as well as it is known. */
  now() {
    return Date.now() + this.#clockOffset;
  }

  /** Makes a conversation the current one; joins the room where we are not in it yet. */
  open(kind, name) {
    const isNew = !this.conversations.has(`${kind}:${name}`);
    this.current.firstUnread = null;
    this.current = this.#conversation(kind, name);
    if (isNew && kind === "room") this.#client.join(name, PAGE);
    this.#tell("opened");
    this.read();
  }

  /** Somebody has looked at the current conversation. */
  read() {
    if (!this.watched) return;
    this.current.unread = 0;
    this.#tell("list");
  }

  /** Leaves a room, or puts a direct exchange away. */
  leave(conversation) {
    if (conversation.kind === "room") this.#client.leave(conversation.name);
    this.#remove(conversation);
  }

  say(text) {
    this.#send(this.current, text);
  }

  /** Sends again under the same id: had the message arrived after all, the server would recognise it. */
  retry({ content, id }) {
    this.#send(this.current, content, id);
  }

  discard(item) {
    this.current.discard(item);
    this.#tell("timeline");
  }

  /** Fetches what was said before the oldest message held. */
  async loadEarlier(conversation) {
    if (conversation.kind === "direct") return this.#fetch(null, { before: this.#inboxFirst, limit: INBOX_PAGE });
    const epoch = this.#client.position(conversation.key)?.[0];
    return this.#fetch(conversation, { before: conversation.firstSeq(epoch), limit: PAGE });
  }

  /** Goes on where another page of this tab left off. */
  restore({ conversations, current }) {
    for (const { kind, name, items, waiting } of conversations) {
      const conversation = this.#conversation(kind, name);
      conversation.restore(items);
      if (kind === "room") this.#client.join(name, PAGE);
      for (const { id, content } of waiting) this.#send(conversation, content, id);
    }
    this.open(current.kind, current.name);
  }

  #all(kind) {
    return [...this.conversations.values()].filter((conversation) => conversation.kind === kind);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #trouble(text) {
    this.#tell("trouble", { text });
  }

  #conversation(kind, name) {
    const key = `${kind}:${name}`;
    if (!this.conversations.has(key)) this.conversations.set(key, new Conversation(kind, name, this.me));
    return this.conversations.get(key);
  }

  #remove(conversation) {
    this.conversations.delete(conversation.key);
    if (conversation.kind === "room") this.#people.left(conversation.name);
    const { kind, name } = this.rooms[1] ?? this.everyone;
    if (this.current === conversation) this.open(kind, name);
    else this.#tell("list");
  }

  #send(conversation, content, id) {
    const sent = this.#client.send({ type: "chat", ...conversation.address, content, ...(id && { id }) });
    conversation.sending(sent, content, this.now());
    this.#tell("timeline");
  }

  /** Files part of a log: a room's, or without a room the inbox's. */
  async #fetch(room, range) {
    try {
      const where = room ? { room: room.name } : {};
      const { messages, position, more } = await this.#client.request({ type: "history", ...where, ...range });
      for (const message of messages) this.#file(message, position[0]);
      if (!room) this.#inboxFirst = Math.min(this.#inboxFirst, ...messages.map(({ seq }) => seq));
      if (!range.after) for (const one of room ? [room] : this.directs) one.more = more && one.items.length < KEPT;
    } catch (error) {
      this.#trouble(explain(error));
    }
    this.#tell("list");
    this.#tell("timeline");
  }

  #welcomed({ time, recovered }) {
    this.#clockOffset = time - Date.now();
    if (recovered.all === false) {
      this.everyone.note("You were away for longer than the server remembers: something may be missing.", this.now());
    }
    if (!this.#inboxRead || recovered.inbox === false) this.#fetch(null, { limit: INBOX_PAGE });
    this.#inboxRead = true;
  }

  #joined({ room: name, resumed, recovered, position, members }) {
    const room = this.#conversation("room", name);
    room.joinedAt = resumed ? 0 : position[1];
    if (!resumed) room.more = position[1] > PAGE;
    if (members) this.#people.entered(name, members);
    else this.#people.refresh(room);
    if (recovered === false) {
      room.note("You were away for longer than the server remembers. What it still has follows.", this.now());
      this.#fetch(room, { limit: PAGE });
    }
    this.#tell("list");
    this.#tell("timeline");
  }

  #refused({ room, ...error }) {
    const conversation = this.conversations.get(`room:${room}`);
    if (conversation) this.#remove(conversation);
    this.#trouble(`You cannot be in “${room}”. ${explain(error)}`);
  }

  #received({ message, epoch }) {
    const { conversation, item } = this.#file(message, epoch) ?? {};
    if (!item) return;
    const watching = conversation === this.current && this.watched;
    if (!item.own && !watching && !(message.seq <= conversation.joinedAt)) {
      if (!conversation.unread) conversation.firstUnread = item;
      conversation.unread += 1;
    }
    this.#tell("list");
    this.#tell("timeline");
  }

  /** Puts a publication where it belongs; null where it is there already, or we have left. */
  #file(message, epoch) {
    const { room, to, from = "server" } = message;
    if (room !== undefined && !this.conversations.has(`room:${room}`)) return null;
    let conversation = this.everyone;
    if (room !== undefined) conversation = this.#conversation("room", room);
    else if (to !== undefined) conversation = this.#conversation("direct", from);
    const item = conversation.receive({ ...message, from }, epoch);
    return item && { conversation, item };
  }

  #missed({ channel, from, to }) {
    const room = this.conversations.get(channel);
    const range = { after: from - 1, before: to + 1, limit: 500 };
    if (room?.kind === "room") return this.#fetch(room, range);
    if (channel === "inbox") return this.#fetch(null, range);
    this.everyone.note("Some messages did not arrive: the connection was too slow.", this.now());
    this.#tell("timeline");
  }

  #sent(id, change) {
    for (const conversation of this.conversations.values()) if (conversation.owns(id)) change(conversation);
    this.#tell("timeline");
  }
}
