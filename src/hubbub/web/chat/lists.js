/** The two lists beside the messages: conversations on the left, people on the right. */

import { avatar, element, hidden, icon } from "./dom.js";
import { count, sinceWords } from "./words.js";

const STEPS = { ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity };

/** One stop for the Tab key; the arrow keys go up and down between a region's buttons. */
export function arrowKeys(region) {
  const rows = () => [...region.querySelectorAll("li button")];
  region.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    const at = rows().indexOf(event.target);
    if (step === undefined || at < 0) return;
    event.preventDefault();
    rows()[Math.min(rows().length - 1, Math.max(0, at + step))].focus();
  });
  region.addEventListener("focusin", (event) => {
    if (rows().includes(event.target)) rows().forEach((row) => (row.tabIndex = row === event.target ? 0 : -1));
  });
}

/** Draws anew, with the focus where it was and a single row in the Tab order. */
function redraw(region, draw) {
  const focused = region.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  draw();
  const rows = [...region.querySelectorAll("li button")];
  const held = rows.find((row) => row.dataset.key === focused);
  const stop = held ?? rows.find((row) => row.ariaCurrent) ?? rows[0];
  rows.forEach((row) => (row.tabIndex = row === stop ? 0 : -1));
  held?.focus();
}

/** Draws the nav's two lists; the second has a heading that goes when it is empty. */
export function drawConversations({ nav, rooms, directs, directsHeading }, chat, people, open) {
  const row = (conversation) => {
    const { kind, name, key, unread } = conversation;
    const attributes = {
      type: "button",
      class: "row",
      "data-key": key,
      "aria-current": conversation === chat.current && "true",
      onclick: () => open(conversation),
    };
    const glyph = () => element("span", { class: "glyph" }, icon(kind === "room" ? "hash" : "everyone"));
    const picture = kind === "direct" ? figure(name, people.status(name).online) : glyph();
    const words = element("span", { class: "name" }, name);
    const news = unread && element("span", { class: "badge" }, unread > 99 ? "99+" : String(unread), hidden(" unread"));
    return element("li", {}, element("button", attributes, picture, words, news));
  };
  redraw(nav, () => {
    rooms.replaceChildren(...chat.rooms.map(row));
    directs.replaceChildren(...chat.directs.map(row));
    directs.hidden = directsHeading.hidden = !chat.directs.length;
  });
}

/** Who is here, and who else has spoken, in two lists with a heading each. */
export function drawPeople(region, chat, people, openDirect) {
  const { current, me } = chat;
  const here = [...people.in(current).values()].sort((one, other) => one.user.localeCompare(other.user));
  const row = (user, online, detail) => {
    const words = [figure(user, online), nameAnd(user, detail)];
    if (user === me) return element("li", {}, element("span", { class: "row" }, ...words, you()));
    const onclick = () => openDirect(user);
    const attributes = { type: "button", class: "row", "data-key": user, title: `Write to ${user}`, onclick };
    return element("li", {}, element("button", attributes, ...words));
  };
  const present = ({ user, sessions }) => row(user, true, sessions > 1 && `${sessions} devices`);
  const gone = (user) => row(user, people.status(user).online, statusWords(people.status(user)));
  const absent = people.absent(current).filter((user) => current.kind === "direct" || user !== me);
  redraw(region, () =>
    region.replaceChildren(
      ...group(current.kind === "everyone" ? "In your rooms" : "Here now", here.map(present)),
      ...group(current.kind === "direct" ? "Talking to" : "Also spoke here", absent.map(gone)),
    ),
  );
}

/** "Online", "Last seen 5 minutes ago", or "Offline" where nothing more is known. */
export function statusWords({ online, last_seen: seen }) {
  if (online) return "Online";
  return seen ? `Last seen ${sinceWords(seen)}` : "Offline";
}

function group(title, rows) {
  if (!rows.length) return [];
  const label = `${title}: ${count(rows.length, "person", "people")}`;
  const heading = element("h3", {}, title, " ", element("span", { class: "count" }, String(rows.length)));
  return [heading, element("ul", { class: "rows", "aria-label": label }, ...rows)];
}

const you = () => element("span", { class: "you" }, "you");
const nameAnd = (user, detail) => element("span", { class: "name" }, user, detail && element("small", {}, detail));

/** An avatar with a dot where the user is online. */
function figure(user, online) {
  return element("span", { class: `figure${online ? " online" : ""}` }, avatar(user), hidden(online ? "online: " : ""));
}
