/** What an empty conversation shows: how to bring somebody in, with commands that work as they stand. */

import { element, hidden, icon } from "./dom.js";

/** The WebSocket address at which `user` would come in. */
export function addressOf(user) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const name = encodeURIComponent(user).replaceAll("'", "%27");
  return `${scheme}://${location.host}/ws?user_id=${name}`;
}

/** The children of the empty state of a conversation, as `me` sees it. */
export function invitation({ kind, name }, me) {
  const picture = { room: "hash", everyone: "everyone", direct: "direct" }[kind];
  const other = kind === "direct" && name !== me ? name : me === "bob" ? "alice" : "bob";
  const [title, text, lines] = {
    room: [
      `It is quiet in #${name}`,
      "Write the first message, or bring somebody in.",
      [{ type: "join", room: name }, { type: "chat", room: name, content: "hello" }],
    ],
    everyone: [
      "A word to everyone",
      "Whoever is connected gets what is written here, whatever room they are in.",
      [{ type: "chat", content: "hello, all" }],
    ],
    direct: [
      `Just you and ${name}`,
      "Nobody else sees this. It is kept for them if they are away.",
      [{ type: "chat", to: me, content: "hello" }],
    ],
  }[kind];
  return [
    element("span", { class: "empty-mark" }, icon(picture)),
    element("h2", {}, title),
    element("p", {}, text),
    element("p", {}, secondTab(), ", or talk from a terminal:"),
    command(`npx wscat -c '${addressOf(other)}'`, "the command"),
    element("p", { class: "then" }, "Then type:"),
    ...lines.map((line) => command(JSON.stringify(line), "the message")),
  ];
}

/** Without an opener the new tab has a memory of its own: it can be somebody else. */
function secondTab() {
  return element("a", { href: "/", target: "_blank", rel: "noopener" }, "Open this page in a second tab");
}

function command(text, what) {
  const copy = element("button", { type: "button", class: "icon-button", title: "Copy" });
  copy.append(icon("copy"), hidden(`Copy ${what}`));
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    copy.replaceChildren(icon("check"), hidden("Copied"));
  });
  // Browsers give the clipboard to secure pages only, and a phone's on the local network is none.
  return element("div", { class: "command" }, element("code", { tabindex: "0" }, text), navigator.clipboard && copy);
}
