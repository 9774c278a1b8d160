// @ts-check
/** One strategy beside the other: its form, its canvas, its counters and what has become of its run. */

import { ApiError } from "./api.js";
import { CanvasView } from "./canvas_view.js";
import { element } from "./dom.js";
import { Recording } from "./recording.js";
import { StrategyForm } from "./strategy_form.js";

/** @typedef {import("./recording.js").Counters} Counters */

/** @type {{key: string, label: string, help: string, text: (counters: Counters) => string}[]} */
const COUNTERS = [
  { key: "step", label: "step", help: "Denoising steps so far", text: ({ step }) => String(step) },
  { key: "forwards", label: "forwards", help: "Passes of the network so far", text: ({ forwards }) => String(forwards) },
  {
    key: "tpf", label: "tokens/forward", help: "Filled positions per pass; at the end the answer's tokens",
    text: ({ tokensPerForward }) => tokensPerForward.toFixed(2),
  },
  {
    key: "speed", label: "tokens/s", help: "The same per second, with the way to the server and back",
    text: ({ tokensPerS }) => tokensPerS.toFixed(tokensPerS < 100 ? 1 : 0),
  },
  {
    key: "elapsed", label: "elapsed", help: "From the request to this step's arrival",
    text: ({ elapsedMs }) => `${(elapsedMs / 1000).toFixed(2)} s`,
  },
  {
    key: "filled", label: "filled", help: "Positions of the canvas that hold a token",
    text: ({ filled, length }) => `${filled} of ${length}`,
  },
];

export class Lane {
  /**
   * @param {HTMLElement} root
   * @param {string} name
   */
  constructor(root, name) {
    this.name = name;
    this.recording = new Recording();
    this.isRunning = false;
    this.form = new StrategyForm(element("div", { className: "strategy" }), name);
    this.state = element("p", { className: "state" });
    this.error = element("p", { className: "error", role: "alert", hidden: true });
    /** @type {Map<string, HTMLElement>} */
    this.counters = new Map(COUNTERS.map(({ key }) => [key, element("dd", { id: `${name}-count-${key}` }, "–")]));
    this.canvas = element("div", {
      id: `${name}-canvas`, className: "canvas", role: "listbox", tabIndex: 0, ariaLabel: `Canvas of strategy ${name}`,
    });
    const details = element("p", { className: "details" });
    this.view = new CanvasView(this.canvas, details);
    this.text = element("p", { id: `${name}-text`, className: "text" });
    this.usage = element("p", { id: `${name}-usage`, className: "usage" });
    root.append(
      this.form.root,
      element("dl", { className: "counters" }, ...COUNTERS.map((one) => this.#counter(one))),
      element("div", { className: "over" }, this.state, details),
      this.error,
      this.canvas,
      element("h2", {}, "Final text"),
      this.text,
      this.usage,
    );
  }

  /**
   * Run and record. A failure is shown here; it is handed back for what concerns the whole page.
   *
   * @param {(recording: Recording) => Promise<void>} work
   * @param {AbortSignal} signal
   * @returns {Promise<ApiError | null>}
   */
  async run(work, signal) {
    this.recording = new Recording();
    this.isRunning = true;
    this.error.hidden = true;
    this.state.textContent = "waiting for the server …";
    try {
      await work(this.recording);
      this.state.textContent = "complete";
      return null;
    } catch (error) {
      if (signal.aborted) {
        this.state.textContent = "stopped";
        return null;
      }
      if (!(error instanceof ApiError)) throw error;
      this.#fail(error);
      return error;
    } finally {
      this.isRunning = false;
    }
  }

  /**
   * Show a step of the recording, the last one where there are no more.
   *
   * @param {number} position
   */
  show(position) {
    const { frames, usage } = this.recording;
    const counters = this.recording.counters(position);
    for (const { key, text } of COUNTERS) {
      const node = this.counters.get(key);
      if (node) node.textContent = frames.length ? text(counters) : "–";
    }
    if (this.isRunning && frames.length) this.state.textContent = "denoising";
    const isLast = position >= frames.length - 1;
    const { canvas } = this.recording.frame(position);
    this.view.show(canvas);
    this.text.textContent = canvas.text;
    this.usage.textContent = isLast && usage ? describe(usage) : "";
  }

  /** @param {ApiError} error */
  #fail(error) {
    const again = error.retryAfterS === null ? "" : ` Try again in ${error.retryAfterS} s.`;
    const request = error.requestId === null ? "" : ` (request ${error.requestId})`;
    this.state.textContent = "failed";
    this.error.textContent = `${error.message}${again}${request}`;
    this.error.hidden = false;
    this.form.blame(error.param);
  }

  /** @param {{key: string, label: string, help: string}} counter */
  #counter({ key, label, help }) {
    return element("div", { title: help }, element("dt", {}, label), this.counters.get(key) ?? "");
  }
}

/** @param {any} usage */
function describe(usage) {
  const { diffusion } = usage;
  const name = diffusion.strategy ? ` · ${diffusion.strategy.name}` : "";
  return (
    `${usage.prompt_tokens} prompt + ${usage.completion_tokens} completion tokens · ${diffusion.forwards} forwards · ` +
    `${diffusion.tokens_per_forward} tokens per forward · ${diffusion.positions_computed} positions computed${name}`
  );
}
