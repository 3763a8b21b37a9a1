/** The chat page: asks who you are, then puts client, chat and screen together. */

import { HubbubClient } from "../client.js";
import { Chat } from "./chat.js";
import { composer } from "./composer.js";
import { avatar, byId } from "./dom.js";
import { Drawers } from "./drawers.js";
import { addressOf, invitation } from "./invitation.js";
import { arrowKeys, drawConversations, drawPeople, statusWords } from "./lists.js";
import { forgetName, recall, recallName, remember, rememberName } from "./memory.js";
import { announce, toast, watchConnection } from "./notices.js";
import { People } from "./people.js";
import { Timeline } from "./timeline.js";
import { count, explain, nameProblem, suggestedName } from "./words.js";

const FIRST_ROOM = "lobby";
const PEOPLE_REFRESH = 30_000;

// What the client adds to an envelope, in bytes and generously.
const ROOM_FOR_ID = 64;

function signIn() {
  const [form, field, problem] = [byId("sign-in-form"), byId("name"), byId("name-problem")];
  byId("sign-in").hidden = false;
  field.value = suggestedName();
  field.select();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = field.value.trim();
    problem.textContent = nameProblem(name);
    if (problem.textContent) return field.focus();
    byId("sign-in").hidden = true;
    start(name);
    writeNext();
  });
}

/** Puts the cursor in the message box; not on a phone, whose keyboard would cover what was just opened. */
function writeNext() {
  if (matchMedia("(pointer: fine)").matches) byId("message").focus();
}

function start(me) {
  rememberName(me);
  byId("chat").hidden = false;
  const saved = recall(me);
  const client = new HubbubClient(addressOf(me), { all: saved?.all });
  const people = new People(client);
  const chat = new Chat(client, people, me);
  watchConnection(client, () => {
    client.connect();
    writeNext();
  });
  screen(chat, people, client);
  if (saved) chat.restore(saved);
  else chat.open("room", FIRST_ROOM);
  client.connect();
  addEventListener("online", () => client.state === "waiting" && client.connect());
  addEventListener("pagehide", () => remember(me, chat, client));
}

/** Draws what the chat tells, and tells the chat what the person does. */
function screen(chat, people, client) {
  const drawers = new Drawers(byId("conversation"), byId("scrim"));
  drawers.add(byId("rail"), byId("open-rail"), "(max-width: 759px)");
  drawers.add(byId("people"), byId("open-people"), "(max-width: 1099px)");

  const timeline = new Timeline(
    {
      log: byId("log"),
      list: byId("messages"),
      earlier: byId("earlier"),
      latest: byId("latest"),
      empty: byId("empty"),
    },
    {
      loadEarlier: (conversation) => chat.loadEarlier(conversation),
      retry: (item) => chat.retry(item),
      discard: (item) => chat.discard(item),
    },
  );
  const lists = {
    nav: byId("conversations"),
    rooms: byId("room-list"),
    directs: byId("direct-list"),
    directsHeading: byId("directs-heading"),
  };
  let messageLimit = Infinity;
  let knownAuthors = 0;

  function open({ kind, name }) {
    chat.open(kind, name);
    drawers.close();
    writeNext();
  }

  function drawHeader() {
    const { kind, name } = chat.current;
    const here = people.in(chat.current).size;
    byId("title").textContent = kind === "room" ? `#${name}` : name;
    byId("subtitle").textContent = {
      room: count(here, "person here", "people here"),
      everyone: "Reaches whoever is connected",
      direct: statusWords(people.status(name)),
    }[kind];
    byId("leave").hidden = kind === "everyone";
    byId("leave-label").textContent = kind === "room" ? `Leave #${name}` : `Close the conversation with ${name}`;
    byId("leave-icon").setAttribute("href", kind === "room" ? "#icon-leave" : "#icon-close");
    byId("leave").title = byId("leave-label").textContent;
    byId("people-count").textContent = String(here || "");
    byId("people-tip").hidden = kind === "direct";
  }

  function drawLists() {
    drawConversations(lists, chat, people, open);
    document.title = `${chat.unread ? `(${chat.unread}) ` : ""}${chat.current.name} · Hubbub`;
    byId("open-rail").classList.toggle("has-news", chat.unread > 0);
  }

  function drawPeopleToo() {
    drawHeader();
    drawPeople(byId("people-list"), chat, people, (name) => open({ kind: "direct", name }));
  }

  chat.addEventListener("opened", () => {
    byId("empty").replaceChildren(...invitation(chat.current, chat.me));
    byId("log").setAttribute("aria-label", `Messages in ${chat.current.name}`);
    timeline.show(chat.current);
    drawPeopleToo();
    knownAuthors = chat.current.authors.size;
    people.refresh(chat.current);
    announce(`${chat.current.name} is open.`);
  });
  chat.addEventListener("list", drawLists);
  chat.addEventListener("timeline", () => {
    timeline.update();
    const { size } = chat.current.authors;
    if (size !== knownAuthors) people.refresh(chat.current);
    knownAuthors = size;
  });
  chat.addEventListener("trouble", ({ detail }) => toast(detail.text));
  people.addEventListener("people", () => {
    drawLists();
    drawPeopleToo();
  });
  client.addEventListener("welcome", ({ detail }) => {
    messageLimit = detail.limits?.message ?? Infinity;
    people.refresh(chat.current);
  });

  composer(chat, (text) => {
    const envelope = JSON.stringify({ type: "chat", ...chat.current.address, content: text });
    if (new TextEncoder().encode(envelope).length + ROOM_FOR_ID > messageLimit) {
      toast(explain({ code: "too_large" }));
      return false;
    }
    chat.say(text);
    timeline.follow();
    return true;
  });

  byId("join").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = byId("room-name").value.trim().replace(/^#/, "");
    const problem = nameProblem(name);
    if (problem) return toast(problem);
    byId("room-name").value = "";
    open({ kind: "room", name });
  });
  byId("leave").addEventListener("click", () => {
    chat.leave(chat.current);
    writeNext();
  });
  arrowKeys(lists.nav);
  arrowKeys(byId("people-list"));
  document.addEventListener("keydown", (event) => {
    const step = event.altKey && { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const all = [...chat.rooms, ...chat.directs];
    open(all[(all.indexOf(chat.current) + step + all.length) % all.length]);
  });
  document.addEventListener("visibilitychange", () => {
    chat.watched = !document.hidden;
    chat.read();
    if (chat.watched && client.state === "waiting") client.connect();
  });
  setInterval(() => document.hidden || people.refresh(chat.current), PEOPLE_REFRESH);

  byId("me").prepend(avatar(chat.me));
  byId("my-name").textContent = chat.me;
  byId("change-name").addEventListener("click", () => {
    forgetName();
    location.assign(location.pathname);
  });
}

const name = recallName();
if (nameProblem(name)) signIn();
else start(name);
