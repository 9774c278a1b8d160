// @ts-check
/**
 * The canvas of an answer, built from the server's diffusion events. Pure: every function returns a new canvas, and cells
 * that have not changed are the same objects.
 *
 * @typedef {"mask" | "provisional" | "final" | "given" | "beyond"} CellState
 *   given: text of the request around a gap; beyond: behind the end of the answer
 *
 * @typedef {object} Cell
 * @property {CellState} state
 * @property {string} text the token's own text
 * @property {number | null} tokenId null: masked
 * @property {number | null} probability what the model gave the token when it was filled in; null: not known
 * @property {number} step the denoising step that changed the cell last; 0: none has
 * @property {"" | "edited" | "remasked"} mark whether it holds something else, or nothing, after it had been filled
 * @property {string} before the text that it held before that
 *
 * @typedef {object} Canvas
 * @property {readonly Cell[]} cells
 * @property {number} step the denoising step that it shows
 * @property {number} committed tokens of the answer that are final
 * @property {string} text the final text
 */

/** @type {Cell} */
const MASK = Object.freeze({
  state: "mask", text: "", tokenId: null, probability: null, step: 0, mark: "", before: "",
});

/** @type {Canvas} */
export const EMPTY = Object.freeze({ cells: Object.freeze([]), step: 0, committed: 0, text: "" });

/**
 * The canvas after the events of one denoising step, in their order.
 *
 * @param {Canvas} canvas
 * @param {readonly any[]} events
 * @returns {Canvas}
 */
export function applyEvents(canvas, events) {
  const draft = { ...canvas, cells: [...canvas.cells] };
  for (const event of events) {
    if (event.step) draft.step = event.step;
    apply(draft, event);
  }
  return draft;
}

/**
 * The canvas of an answer that has ended: what is not final does not belong to it.
 *
 * @param {Canvas} canvas
 * @returns {Canvas}
 */
export function finished(canvas) {
  const cells = canvas.cells.map((cell) => (cell.state === "final" ? cell : { ...cell, state: "beyond" }));
  return { ...canvas, cells: /** @type {Cell[]} */ (cells) };
}

/**
 * The canvas of a filled template: given texts, and between them the tokens of each gap.
 *
 * @param {readonly (string | object)[]} template as it was asked for
 * @param {readonly any[]} gaps of the answer
 * @returns {Canvas}
 */
export function filledTemplate(template, gaps) {
  const fills = [...gaps];
  /** @type {Cell[]} */
  const cells = template.flatMap((part) =>
    typeof part === "string" ? [{ ...MASK, state: "given", text: part }] : gapCells(fills.shift()),
  );
  const tokens = gaps.reduce((sum, gap) => sum + gap.token_ids.length, 0);
  return { cells, step: 0, committed: tokens, text: cells.map((cell) => cell.text).join("") };
}

/**
 * How many cells hold a token.
 *
 * @param {Canvas} canvas
 */
export function countFilled(canvas) {
  return canvas.cells.reduce((count, cell) => count + (cell.tokenId === null ? 0 : 1), 0);
}

/**
 * @param {{cells: Cell[], committed: number, text: string}} draft
 * @param {any} event
 */
function apply(draft, event) {
  switch (event.type) {
    case "length":
      while (draft.cells.length < event.length) draft.cells.push(MASK);
      break;
    case "canvas":
      event.positions.forEach((/** @type {number} */ position, /** @type {number} */ index) => {
        const before = draft.cells[position];
        draft.cells[position] = {
          state: "provisional",
          text: event.texts[index],
          tokenId: event.token_ids[index],
          probability: event.probabilities[index],
          step: event.step,
          mark: before.mark && "edited", // it was masked again before
          before: before.before,
        };
      });
      break;
    case "edit":
      draft.cells[event.position] = {
        state: event.new_id === null ? "mask" : "provisional",
        text: event.new_text,
        tokenId: event.new_id,
        probability: event.probability,
        step: event.step,
        mark: event.new_id === null ? "remasked" : "edited",
        before: event.old_text,
      };
      break;
    case "commit":
      for (let position = event.start; position < event.end; position += 1) {
        draft.cells[position] = { ...draft.cells[position], state: "final" };
      }
      draft.committed = event.end;
      draft.text += event.text;
  }
}

/**
 * A token's own text may be part of a character: where the tokens do not add up to the gap's text, it is one cell.
 *
 * @param {any} gap
 * @returns {Cell[]}
 */
function gapCells(gap) {
  const tokens = gap.logprobs?.content ?? [];
  const made = tokens.map((/** @type {any} */ token, /** @type {number} */ index) => ({
    ...MASK,
    state: "final",
    text: token.token,
    tokenId: gap.token_ids[index],
    probability: token.logprob === null ? null : Math.exp(token.logprob),
  }));
  if (made.map((/** @type {Cell} */ cell) => cell.text).join("") === gap.text) return made;
  return [{ ...MASK, state: "final", text: gap.text, tokenId: gap.token_ids[0] ?? null }];
}
