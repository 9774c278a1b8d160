// @ts-check
/**
 * A text in which selections become gaps. The text is a plain text field; the gaps are drawn on a copy behind it that
 * lies exactly under its letters.
 */

import { element } from "./dom.js";
import { addGap, movedGaps, template, wordRange } from "./gaps.js";

/** @typedef {import("./gaps.js").Gap} Gap */

const MOST_TOKENS = 256;

export class GapEditor {
  /**
   * @param {{field: HTMLTextAreaElement, backdrop: HTMLElement, list: HTMLElement, button: HTMLButtonElement}} parts
   * @param {(message: string) => void} announce says what has happened
   */
  constructor({ field, backdrop, list, button }, announce) {
    this.field = field;
    this.backdrop = backdrop;
    this.list = list;
    this.announce = announce;
    this.text = field.value;
    /** @type {Gap[]} */
    this.gaps = [];
    field.addEventListener("input", () => this.#onInput());
    field.addEventListener("scroll", () => { backdrop.scrollTop = field.scrollTop; });
    field.addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() === "g" && event.altKey) {
        event.preventDefault();
        this.#add();
      }
    });
    button.addEventListener("pointerdown", (event) => event.preventDefault()); // the selection stays
    button.addEventListener("click", () => this.#add());
  }

  /**
   * @param {string} text
   * @param {readonly Gap[]} gaps
   */
  show(text, gaps) {
    this.field.value = text;
    this.text = text;
    this.gaps = [...gaps];
    this.#render();
  }

  template() {
    return template(this.text, this.gaps);
  }

  #onInput() {
    this.gaps = movedGaps(this.gaps, this.text, this.field.value);
    this.text = this.field.value;
    this.#render();
  }

  #add() {
    const [start, end] = wordRange(this.text, this.field.selectionStart, this.field.selectionEnd);
    this.gaps = addGap(this.gaps, start, end);
    this.#render();
    const cut = this.text.slice(start, end);
    this.announce(cut ? `“${cut}” is a gap now.` : "A gap was put at the cursor.");
  }

  #render() {
    const starts = [0, ...this.gaps.map((gap) => gap.end)];
    const marked = this.gaps.flatMap((gap, index) => [
      this.text.slice(starts[index], gap.start),
      element("mark", { className: gap.start === gap.end ? "empty" : "" }, this.text.slice(gap.start, gap.end)),
    ]);
    this.backdrop.replaceChildren(...marked, `${this.text.slice(starts[this.gaps.length])}\n`);
    this.backdrop.scrollTop = this.field.scrollTop;
    this.list.replaceChildren(...this.gaps.map((gap, index) => this.#item(gap, index)));
  }

  /**
   * @param {Gap} gap
   * @param {number} index
   */
  #item(gap, index) {
    const cut = this.text.slice(gap.start, gap.end);
    const label = `Gap ${index + 1}`;
    const tokens = element("input", {
      type: "number", min: "1", max: String(MOST_TOKENS), value: String(gap.tokens), ariaLabel: `${label}: tokens`,
    });
    tokens.addEventListener("change", () => {
      if (tokens.reportValidity()) gap.tokens = tokens.valueAsNumber;
    });
    const early = element("input", { type: "checkbox", checked: gap.mayEndEarly });
    early.addEventListener("change", () => { gap.mayEndEarly = early.checked; });
    const remove = element("button", { type: "button", className: "quiet", ariaLabel: `${label}: keep the text` }, "✕");
    remove.addEventListener("click", () => {
      this.gaps = this.gaps.filter((one) => one !== gap);
      this.#render();
      this.field.focus();
    });
    return element("li", {},
      element("span", { className: "cut" }, cut ? `“${cut}”` : "at the cursor"), " → ", tokens, " tokens ",
      element("label", {}, early, " may end early"), remove);
  }
}
