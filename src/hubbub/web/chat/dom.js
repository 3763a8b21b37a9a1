/** Makes elements. Whatever came over the wire goes in as text, never as markup. */

import { hueOf, initials } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** An element with attributes (`on…` are listeners) and children, strings as text; what is falsy is left out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value) made.setAttribute(name, value);
  }
  made.append(...children.filter(Boolean));
  return made;
}

/** A symbol of index.html, for the eye only. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

export function avatar(name) {
  const made = element("span", { class: "avatar", "aria-hidden": "true" }, initials(name));
  made.style.setProperty("--hue", hueOf(name));
  return made;
}

/** Text for a screen reader only. */
export const hidden = (text) => element("span", { class: "visually-hidden" }, text);
