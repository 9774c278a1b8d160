// @ts-check
/**
 * Gaps in a text: half-open ranges that the model is to fill again. They are sorted and never touch, since two gaps side
 * by side are one. Pure.
 *
 * @typedef {object} Gap
 * @property {number} start
 * @property {number} end
 * @property {number} tokens how many tokens the gap gets
 * @property {boolean} mayEndEarly the model may take fewer
 */

const CHARACTERS_PER_TOKEN = 4;

/**
 * The gaps with one more; gaps that it reaches become a part of it.
 *
 * @param {readonly Gap[]} gaps
 * @param {number} start
 * @param {number} end
 * @returns {Gap[]}
 */
export function addGap(gaps, start, end) {
  const reached = gaps.filter((gap) => gap.start <= end && start <= gap.end);
  const from = Math.min(start, ...reached.map((gap) => gap.start));
  const to = Math.max(end, ...reached.map((gap) => gap.end));
  const least = reached.reduce((sum, gap) => sum + gap.tokens, 0);
  const tokens = Math.max(least, Math.ceil((to - from) / CHARACTERS_PER_TOKEN), 1);
  const made = { start: from, end: to, tokens, mayEndEarly: reached.some((gap) => gap.mayEndEarly) };
  return [...gaps.filter((gap) => !reached.includes(gap)), made].sort((one, other) => one.start - other.start);
}

/**
 * A selection as a gap wants it: with the space before it and without the one behind it, because a word's token begins
 * with the space before the word.
 *
 * @param {string} text
 * @param {number} start
 * @param {number} end
 * @returns {[number, number]}
 */
export function wordRange(text, start, end) {
  if (start === end) return [start, end];
  const hasWord = /\S/.test(text.slice(start, end));
  if (hasWord && text[end - 1] === " ") end -= 1;
  if (hasWord && text[start] !== " " && text[start - 1] === " ") start -= 1;
  return [start, end];
}

/**
 * The gaps after the text has been edited: they keep their text. One whose text is gone goes with it.
 *
 * @param {readonly Gap[]} gaps
 * @param {string} before
 * @param {string} after
 * @returns {Gap[]}
 */
export function movedGaps(gaps, before, after) {
  const shorter = Math.min(before.length, after.length);
  let head = 0;
  while (head < shorter && before[head] === after[head]) head += 1;
  let tail = 0;
  while (tail < shorter - head && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  const cut = before.length - tail;
  const growth = after.length - before.length;
  const moved = gaps.flatMap((gap) => {
    if (gap.end <= head) return [gap];
    const end = gap.end >= cut ? gap.end + growth : head;
    const start = gap.start >= cut ? gap.start + growth : gap.start <= head ? gap.start : cut + growth;
    return start < end || (start === end && gap.start === gap.end) ? [{ ...gap, start, end }] : [];
  });
  return moved.reduce(merged, []);
}

/**
 * The template that the API takes. It begins with a text, if an empty one.
 *
 * @param {string} text
 * @param {readonly Gap[]} gaps
 * @returns {(string | {gap: number | {max_tokens: number}})[]}
 */
export function template(text, gaps) {
  const starts = [0, ...gaps.map((gap) => gap.end)];
  const parts = gaps.flatMap((gap, index) => [
    text.slice(starts[index], gap.start),
    { gap: gap.mayEndEarly ? { max_tokens: gap.tokens } : gap.tokens },
  ]);
  const rest = text.slice(starts[gaps.length]);
  return rest || !gaps.length ? [...parts, rest] : parts;
}

/**
 * @param {Gap[]} gaps
 * @param {Gap} gap
 * @returns {Gap[]}
 */
function merged(gaps, gap) {
  const last = gaps.at(-1);
  if (!last || last.end < gap.start) return [...gaps, gap];
  return [...gaps.slice(0, -1), { ...last, end: Math.max(last.end, gap.end), tokens: last.tokens + gap.tokens }];
}
