/** Who is where: the members of each room, and what became of those who have gone. */

const ASKED_AT_ONCE = 100;
const LEAVING_DELAY = 300;

export class People extends EventTarget {
  // Members by room, each {user, sessions, since} by name.
  #rooms = new Map();

  // Users who are not in the current room: {online, since, last_seen} by name.
  #status = new Map();
  #client;

  // Who has just left a room, and may be somewhere else: asked about together, for a whole room may leave at once.
  #leaving = new Set();

  /** Tells of every change with the event `people`. */
  constructor(client) {
    super();
    this.#client = client;
    client.addEventListener("presence", ({ detail }) => this.#moved(detail));
  }

  /** The members of a room. For everyone, whoever is in some room with us; a direct exchange has none. */
  in({ kind, name }) {
    if (kind === "everyone") return new Map([...this.#rooms.values()].flatMap((members) => [...members]));
    return (kind === "room" && this.#rooms.get(name)) || new Map();
  }

  /** Whom a conversation concerns and who is not in it: those who spoke, or the other one of two. */
  absent(conversation) {
    if (conversation.kind === "direct") return [conversation.name];
    const here = this.in(conversation);
    return [...conversation.authors].filter((user) => !here.has(user)).sort();
  }

  status(user) {
    const somewhere = [...this.#rooms.values()].some((members) => members.has(user));
    return somewhere ? { online: true } : this.#status.get(user) ?? { online: false };
  }

  entered(room, members) {
    this.#rooms.set(room, new Map(members.map((member) => [member.user, member])));
    this.#tell();
  }

  left(room) {
    this.#rooms.delete(room);
  }

  /** Asks the server about a conversation's people; without an answer the next time will do. */
  async refresh(conversation) {
    const { kind, name } = conversation;
    try {
      if (kind === "room") this.entered(name, (await this.#client.request({ type: "presence", room: name })).members);
      await this.#ask(this.absent(conversation));
    } catch {
      return;
    }
    this.#tell();
  }

  async #ask(ids) {
    if (!ids.length) return;
    const { users } = await this.#client.request({ type: "users", ids: ids.slice(0, ASKED_AT_ONCE) });
    for (const [user, status] of Object.entries(users)) this.#status.set(user, status);
    this.#tell();
  }

  #moved({ type, room, user, time }) {
    const members = this.#rooms.get(room);
    if (type === "member-joined") members?.set(user, { user, sessions: 1, since: time });
    else {
      members?.delete(user);
      this.#status.delete(user);
      if (!this.#leaving.size) setTimeout(() => this.#askAboutLeaving(), LEAVING_DELAY);
      this.#leaving.add(user);
    }
    this.#tell();
  }

  #askAboutLeaving() {
    this.#ask([...this.#leaving]).catch(() => {});
    this.#leaving.clear();
  }

  #tell() {
    this.dispatchEvent(new Event("people"));
  }
}
