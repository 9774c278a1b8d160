// @ts-check
/** What the colours and marks of a canvas mean. */

import { LEVELS } from "./canvas_view.js";
import { element } from "./dom.js";

/** @param {HTMLElement} root */
export function showLegend(root) {
  const ends = [...LEVELS.slice(1), 1];
  const colours = LEVELS.map((least, index) => {
    const label = `${round(100 * least)}–${round(100 * ends[index])}`;
    return sample("provisional", label, { "data-level": String(index) });
  });
  root.append(
    element("span", { className: "legend-title" }, "Confidence, %"),
    ...colours,
    sample("provisional", "unknown", { "data-level": "-1" }),
    sample("mask", "░ masked"),
    sample("final", "final", { "data-level": "4" }),
    sample("provisional", "edited", { "data-level": "4", "data-mark": "edited" }),
    sample("mask", "░ masked again", { "data-mark": "remasked" }),
  );
}

/**
 * @param {string} state
 * @param {string} text
 * @param {Record<string, string>} [attributes]
 */
function sample(state, text, attributes = {}) {
  return element("span", { className: `cell ${state}`, ...attributes }, text);
}

/** @param {number} number */
function round(number) {
  return String(Math.round(10 * number) / 10);
}
