/** What the page tells without being asked: the state of the connection, and what went wrong. */

import { byId, element, icon } from "./dom.js";

const TOAST_TIME = 8_000;
const REPEAT = 200;

const LABELS = { connecting: "Connecting…", online: "Online", stopped: "Disconnected" };
const SPOKEN = {
  online: "Connected.",
  waiting: "The connection is lost. Trying again by itself; what you write is kept.",
  stopped: "Disconnected.",
};

/** Shows the client's state in the pill, counts down to its next try, and says each new state once. */
export function watchConnection(client, retry) {
  const [pill, label, button] = [byId("connection"), byId("connection-label"), byId("retry")];
  let ticking = 0;
  let spoken = "";

  function show({ state, retryAt, reason }) {
    clearInterval(ticking);
    pill.dataset.state = byId("chat").dataset.state = state;
    pill.title = reason ?? "";
    button.hidden = state !== "waiting" && state !== "stopped";
    button.textContent = state === "stopped" ? "Reconnect" : "Retry now";
    if (state === "waiting") {
      countDown(retryAt);
      ticking = setInterval(() => countDown(retryAt), REPEAT);
    } else label.textContent = LABELS[state];
    const said = SPOKEN[state];
    if (said && said !== spoken) announce((spoken = said));
  }

  function countDown(retryAt) {
    label.textContent = `Reconnecting in ${Math.max(1, Math.ceil((retryAt - Date.now()) / 1000))} s`;
  }

  button.addEventListener("click", retry);
  client.addEventListener("state", ({ detail }) => show(detail));
}

/** For screen readers only. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** A sentence that comes, can be put away, and goes by itself unless somebody is reading it. */
export function toast(text) {
  const close = element("button", { type: "button", class: "icon-button", "aria-label": "Dismiss" }, icon("close"));
  const made = element("div", { class: "toast" }, element("p", {}, text), close);
  close.addEventListener("click", () => made.remove());
  const fade = () => (made.matches(":hover, :focus-within") ? setTimeout(fade, 1_000) : made.remove());
  setTimeout(fade, TOAST_TIME);
  byId("toasts").append(made);
  while (byId("toasts").children.length > 3) byId("toasts").firstElementChild.remove();
}
