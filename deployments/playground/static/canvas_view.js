// @ts-check
/** A canvas on the page: one element per cell, and one cell at a time to look at closely. */

import { element } from "./dom.js";

/** @typedef {import("./canvas.js").Canvas} Canvas */
/** @typedef {import("./canvas.js").Cell} Cell */

/** Where a level of the confidence scale begins; the style sheet has a colour for each. */
export const LEVELS = [0, 0.5, 0.7, 0.9, 0.97, 0.995];

const MASK_TEXT = "░░";
const STATES = {
  mask: "masked", provisional: "filled, not final", final: "final", given: "given text", beyond: "behind the end",
};

export class CanvasView {
  /**
   * @param {HTMLElement} root
   * @param {HTMLElement} details where the chosen cell is described
   */
  constructor(root, details) {
    this.root = root;
    this.details = details;
    /** @type {(Cell | undefined)[]} */
    this.shown = [];
    /** @type {Canvas | null} */
    this.canvas = null;
    this.chosen = -1;
    root.addEventListener("pointermove", (event) => this.#choose(this.#indexOf(event.target)));
    root.addEventListener("click", (event) => this.#choose(this.#indexOf(event.target)));
    root.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** @param {Canvas} canvas */
  show(canvas) {
    const { cells, step } = canvas;
    while (this.root.children.length > cells.length) this.root.lastElementChild?.remove();
    this.shown.length = Math.min(this.shown.length, cells.length);
    cells.forEach((cell, index) => {
      const node = /** @type {HTMLElement} */ (this.root.children[index] ?? this.#append(index));
      if (cell !== this.shown[index]) draw(node, cell);
      node.classList.toggle("fresh", cell.step > 0 && cell.step === step);
      this.shown[index] = cell;
    });
    this.canvas = canvas;
    if (this.chosen >= cells.length) this.#choose(-1);
    else this.#describe();
  }

  /** @param {number} index */
  #append(index) {
    const node = element("span", { id: `${this.root.id}-${index}`, role: "option" });
    this.root.append(node);
    return node;
  }

  /** @param {EventTarget | null} target */
  #indexOf(target) {
    const node = target instanceof Element ? target.closest(".cell") : null;
    return node ? [...this.root.children].indexOf(node) : -1;
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const last = (this.canvas?.cells.length ?? 0) - 1;
    const targets = { ArrowRight: this.chosen + 1, ArrowLeft: this.chosen - 1, Home: 0, End: last };
    const target = /** @type {Record<string, number | undefined>} */ (targets)[event.key];
    if (target === undefined || last < 0) return;
    event.preventDefault();
    this.#choose(Math.max(0, Math.min(target, last)));
  }

  /** @param {number} index -1: none */
  #choose(index) {
    this.root.children[this.chosen]?.setAttribute("aria-selected", "false");
    this.chosen = index;
    this.root.children[index]?.setAttribute("aria-selected", "true");
    if (index < 0) this.root.removeAttribute("aria-activedescendant");
    else this.root.setAttribute("aria-activedescendant", `${this.root.id}-${index}`);
    this.#describe();
  }

  #describe() {
    const cell = this.canvas?.cells[this.chosen];
    this.details.textContent = cell ? `Position ${this.chosen}: ${description(cell)}` : "";
  }
}

/**
 * The level of the confidence scale; -1 where the probability is not known.
 *
 * @param {number | null} probability
 */
export function level(probability) {
  return probability === null ? -1 : LEVELS.findLastIndex((least) => probability >= least);
}

/**
 * A cell in words.
 *
 * @param {Cell} cell
 */
export function description(cell) {
  const parts = [STATES[cell.state]];
  if (cell.tokenId !== null) parts.unshift(JSON.stringify(cell.text));
  if (cell.probability !== null) parts.push(`probability ${percent(cell.probability)}`);
  if (cell.step) parts.push(`step ${cell.step}`);
  if (cell.mark === "remasked") parts.push(`masked again, was ${JSON.stringify(cell.before)}`);
  if (cell.mark === "edited") parts.push(`edited, was ${JSON.stringify(cell.before)}`);
  if (cell.tokenId !== null) parts.push(`token ${cell.tokenId}`);
  return parts.join(" · ");
}

/** @param {number} probability */
function percent(probability) {
  return `${(100 * probability).toFixed(probability > 0.99 ? 2 : 1)} %`;
}

/**
 * @param {HTMLElement} node
 * @param {Cell} cell
 */
function draw(node, cell) {
  node.className = `cell ${cell.state}${cell.text.includes("\n") ? " line-end" : ""}`;
  node.dataset.level = cell.tokenId === null ? "" : String(level(cell.probability));
  node.dataset.mark = cell.mark;
  node.textContent = cell.tokenId === null && cell.state !== "given" ? MASK_TEXT : visible(cell);
  node.ariaLabel = description(cell);
}

/**
 * Line ends show, and a token without a text has a place.
 *
 * @param {Cell} cell
 */
function visible(cell) {
  return cell.state === "given" ? cell.text : cell.text.replaceAll("\n", "↵\n") || "·";
}
