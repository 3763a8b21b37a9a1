/** The lists at the sides are drawers where there is no room for them: opened by a button, closed by Escape. */

/** While a drawer is open, `main` and the other panel are out of reach. */
export class Drawers {
  #main;
  #scrim;
  #drawers = [];
  #open = null;

  constructor(main, scrim) {
    this.#main = main;
    this.#scrim = scrim;
    scrim.addEventListener("click", () => this.close());
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
  }

  /** A panel that is a drawer where the media query `narrow` holds. */
  add(panel, button, narrow) {
    const drawer = { panel, button, query: matchMedia(narrow) };
    this.#drawers.push(drawer);
    button.addEventListener("click", () => this.#show(drawer));
    panel.querySelector("[data-close]").addEventListener("click", () => this.close());
    drawer.query.addEventListener("change", () => this.close());
    this.#apply();
  }

  close() {
    const closed = this.#open;
    this.#open = null;
    this.#apply();
    if (closed?.query.matches) closed.button.focus();
  }

  #show(drawer) {
    this.#open = drawer;
    this.#apply();
    (drawer.panel.querySelector("[aria-current]") ?? drawer.panel.querySelector("button")).focus();
  }

  #apply() {
    for (const { panel, button, query } of this.#drawers) {
      const open = panel === this.#open?.panel;
      panel.classList.toggle("open", open);
      panel.inert = !open && (query.matches || this.#open !== null);
      button.setAttribute("aria-expanded", String(open));
    }
    this.#main.inert = this.#open !== null;
    this.#scrim.hidden = this.#open === null;
  }
}
