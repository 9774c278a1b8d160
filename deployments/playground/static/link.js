// @ts-check
/**
 * Settings in the address, behind `#`: it never reaches a server, and the API key is never a part of it. Pure.
 *
 * @typedef {"chat" | "completion" | "infill"} Task
 *
 * @typedef {object} Settings
 * @property {Task} task
 * @property {string} model empty: the server's default
 * @property {string} prompt
 * @property {string} text with the gaps, of infilling
 * @property {import("./gaps.js").Gap[]} gaps
 * @property {number} maxTokens
 * @property {number} temperature
 * @property {number | null} seed
 * @property {(import("./strategy.js").Spec | null)[]} strategies of the two lanes; null: the first choice
 */

const TASKS = ["chat", "completion", "infill"];

/** @type {Readonly<Settings>} */
export const DEFAULTS = Object.freeze({
  task: "chat",
  model: "",
  prompt: "Tell a story about Leo the kind dog, who loses a gray ball in the kitchen.",
  text: "Ben was a clever owl. One day Ben went to the castle and found a red box. Ben was very happy.",
  gaps: [],
  maxTokens: 64,
  temperature: 0,
  seed: null,
  strategies: [null, null],
});

/**
 * @param {Settings} settings
 * @returns {string} without the `#`
 */
export function encode(settings) {
  const entries = Object.entries(settings).filter(
    ([name, value]) => JSON.stringify(value) !== JSON.stringify(/** @type {any} */ (DEFAULTS)[name]),
  );
  const texts = entries.map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]);
  return new URLSearchParams(texts).toString();
}

/**
 * What an address says; a part that makes no sense is left at its default, since links are written by anyone.
 *
 * @param {string} fragment with or without the `#`
 * @returns {Settings}
 */
export function decode(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const text = (/** @type {"model" | "prompt" | "text"} */ name) => given.get(name) ?? DEFAULTS[name];
  const task = given.get("task") ?? "";
  const seed = json(given.get("seed"));
  const gaps = json(given.get("gaps"));
  const strategies = json(given.get("strategies"));
  return {
    task: TASKS.includes(task) ? /** @type {Task} */ (task) : DEFAULTS.task,
    model: text("model"),
    prompt: text("prompt"),
    text: text("text"),
    gaps: validGaps(gaps, text("text").length),
    maxTokens: number(given.get("maxTokens"), DEFAULTS.maxTokens),
    temperature: number(given.get("temperature"), DEFAULTS.temperature),
    seed: Number.isInteger(seed) ? seed : null,
    strategies: [0, 1].map((index) => validSpec(Array.isArray(strategies) ? strategies[index] : null)),
  };
}

/** @param {string | null} text */
function json(text) {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return null;
  }
}

/**
 * @param {string | null} text
 * @param {number} otherwise
 */
function number(text, otherwise) {
  const value = Number(text || NaN);
  return Number.isFinite(value) && value >= 0 ? value : otherwise;
}

/**
 * @param {any} gaps
 * @param {number} length
 */
function validGaps(gaps, length) {
  if (!Array.isArray(gaps)) return [];
  const isWhole = gaps.every((gap) => [gap?.start, gap?.end, gap?.tokens].every(Number.isInteger));
  const isSorted = isWhole && gaps.every((gap, index) => gap.start > (gaps[index - 1]?.end ?? -1));
  if (!isSorted || gaps.some((gap) => gap.end < gap.start || gap.end > length || gap.tokens < 1)) return [];
  return gaps.map(({ start, end, tokens, mayEndEarly }) => ({ start, end, tokens, mayEndEarly: mayEndEarly === true }));
}

/**
 * @param {any} spec
 * @returns {import("./strategy.js").Spec | null}
 */
function validSpec(spec) {
  const isSpec = typeof spec?.choice === "string" && spec.options !== null && typeof spec.options === "object";
  return isSpec && !Array.isArray(spec.options) ? { choice: spec.choice, options: spec.options } : null;
}
