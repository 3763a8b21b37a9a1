/**
 * What a tab remembers over a reload. The server keeps the history of rooms and of the inbox; that of Everyone and
 * the direct messages one has sent oneself are only here, and so is what was still waiting to be sent.
 *
 * It is the tab's, not the browser's: two tabs can be two people.
 */

const NAME = "hubbub.name";
const KEPT = 200;

// With a version, so that a page of another one does not stumble over what this one wrote.
const keyOf = (name) => `hubbub.chat.1.${name}`;

/** Who this tab is: from the page's address, or from the last time. "" before anyone has signed in. */
export function recallName() {
  return new URLSearchParams(location.search).get("user_id") ?? sessionStorage.getItem(NAME) ?? "";
}

export function rememberName(name) {
  sessionStorage.setItem(NAME, name);
}

export function forgetName() {
  sessionStorage.removeItem(NAME);
}

/** The chat of a name as `remember` left it, or null. */
export function recall(name) {
  return JSON.parse(sessionStorage.getItem(keyOf(name)) ?? "null");
}

export function remember(name, chat, client) {
  const conversations = [...chat.conversations.values()].map(({ kind, name, items }) => ({
    kind,
    name,
    waiting: items.filter(({ state }) => state === "sending").map(({ id, content }) => ({ id, content })),
    items: kind === "room" ? [] : items.filter(({ state }) => state !== "sending").slice(-KEPT),
  }));
  const current = { kind: chat.current.kind, name: chat.current.name };
  try {
    sessionStorage.setItem(keyOf(name), JSON.stringify({ all: client.position("all"), conversations, current }));
  } catch {
    // Over the browser's quota: the rooms come back from the server, and a page that ends can tell nobody.
    sessionStorage.removeItem(keyOf(name));
  }
}
