/** The box to write in: Enter sends, Shift+Enter starts a new line, each conversation keeps its draft. */

import { byId } from "./dom.js";

const TALLEST = 180;

/** `say(text)` returns false where the text cannot be sent, and then it stays in the box. */
export function composer(chat, say) {
  const [form, box] = [byId("composer"), byId("message")];

  function fit() {
    box.style.height = "auto";
    box.style.height = `${Math.min(box.scrollHeight, TALLEST)}px`;
  }

  function write(text) {
    box.value = text;
    chat.current.draft = text;
    fit();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = box.value.trim();
    if (text && say(text)) write("");
    box.focus();
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  box.addEventListener("input", () => write(box.value));
  chat.addEventListener("opened", () => {
    const { kind, name, draft } = chat.current;
    const label = kind === "room" ? `Message #${name}` : `Message ${name}`;
    box.placeholder = label;
    box.setAttribute("aria-label", label);
    write(draft);
  });
}
