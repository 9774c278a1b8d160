// @ts-check
/** The API key: asked for when the server wants one, kept in this tab's session storage, sent to this server only. */

import { byId } from "./dom.js";

const STORED = "lacuna.api_key";

export class KeyDialog {
  /** @param {() => void} onChange called when there is another key, or none any more */
  constructor(onChange) {
    this.onChange = onChange;
    this.dialog = byId("key-dialog", HTMLDialogElement);
    this.input = byId("key", HTMLInputElement);
    this.button = byId("key-button", HTMLButtonElement);
    this.button.addEventListener("click", () => this.ask(""));
    byId("key-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this.#use(this.input.value.trim());
    });
    byId("forget-key", HTMLButtonElement).addEventListener("click", () => this.#use(""));
    byId("close-key", HTMLButtonElement).addEventListener("click", () => this.dialog.close());
    this.#label();
  }

  /** The key of this tab; empty where none is set. */
  get key() {
    return sessionStorage.getItem(STORED) ?? "";
  }

  /** @param {string} reason why a key is asked for; empty: the user wants to see it */
  ask(reason) {
    byId("key-reason", HTMLElement).textContent = reason;
    this.input.value = this.key;
    if (!this.dialog.open) this.dialog.showModal();
  }

  /** @param {string} key */
  #use(key) {
    if (key) sessionStorage.setItem(STORED, key);
    else sessionStorage.removeItem(STORED);
    this.#label();
    this.dialog.close();
    this.onChange();
  }

  #label() {
    this.button.textContent = this.key ? "API key: set" : "API key";
  }
}
