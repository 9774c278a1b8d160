// @ts-check
/**
 * Everything that one run has shown, step by step, to go back and forth in.
 *
 * @typedef {import("./canvas.js").Canvas} Canvas
 *
 * @typedef {object} Frame
 * @property {Canvas} canvas
 * @property {number} forwards passes of the network so far
 * @property {number} elapsedMs from the request to this step's arrival
 *
 * @typedef {object} Counters
 * @property {number} step
 * @property {number} forwards
 * @property {number} filled positions that hold a token
 * @property {number} length positions of the canvas
 * @property {number} tokens those of the answer at its end, all that are filled before
 * @property {number} tokensPerForward
 * @property {number} tokensPerS
 * @property {number} elapsedMs
 */

import { EMPTY, applyEvents, countFilled, finished } from "./canvas.js";

export class Recording {
  constructor() {
    /** @type {Frame[]} */
    this.frames = [];
    /** @type {any} */
    this.usage = null;
    this.isComplete = false;
  }

  /**
   * Take over a chunk of the stream.
   *
   * @param {any} chunk
   * @param {number} elapsedMs
   */
  add(chunk, elapsedMs) {
    if (chunk.usage) this.usage = chunk.usage;
    for (const choice of chunk.choices) {
      if (choice.diffusion) this.#addStep(choice.diffusion, elapsedMs);
      if (choice.finish_reason) this.#finish(elapsedMs);
    }
  }

  /**
   * The one frame of an answer that came at once.
   *
   * @param {Canvas} canvas
   * @param {any} usage
   * @param {number} elapsedMs
   */
  set(canvas, usage, elapsedMs) {
    const { denoising_steps: step, forwards } = usage.diffusion;
    this.frames = [{ canvas: { ...canvas, step }, forwards, elapsedMs }];
    this.usage = usage;
    this.isComplete = true;
  }

  /**
   * @param {number} index the last frame for all behind it
   * @returns {Frame}
   */
  frame(index) {
    return this.frames[Math.min(index, this.frames.length - 1)] ?? { canvas: EMPTY, forwards: 0, elapsedMs: 0 };
  }

  /**
   * @param {number} index
   * @returns {Counters}
   */
  counters(index) {
    const { canvas, forwards, elapsedMs } = this.frame(index);
    const filled = countFilled(canvas);
    const tokens = this.isComplete && index >= this.frames.length - 1 ? canvas.committed : filled;
    return {
      step: canvas.step,
      forwards,
      filled,
      length: canvas.cells.filter((cell) => cell.state !== "given").length,
      tokens,
      tokensPerForward: forwards ? tokens / forwards : 0,
      tokensPerS: elapsedMs ? (1000 * tokens) / elapsedMs : 0,
      elapsedMs,
    };
  }

  /**
   * The first step is preceded by the canvas of masks that it began with.
   *
   * @param {{events: any[], forwards: number}} diffusion
   * @param {number} elapsedMs
   */
  #addStep({ events, forwards }, elapsedMs) {
    const before = this.frames.at(-1)?.canvas ?? EMPTY;
    if (!this.frames.length) {
      const masks = applyEvents(EMPTY, events.filter((event) => event.type === "length"));
      this.frames.push({ canvas: masks, forwards: 0, elapsedMs: 0 });
    }
    this.frames.push({ canvas: applyEvents(before, events), forwards, elapsedMs });
  }

  /** @param {number} elapsedMs */
  #finish(elapsedMs) {
    this.isComplete = true;
    const last = this.frames.pop();
    if (last) this.frames.push({ ...last, canvas: finished(last.canvas), elapsedMs });
  }
}
