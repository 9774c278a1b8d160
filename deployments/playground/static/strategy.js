// @ts-check
/**
 * Strategies as the server describes them, turned into what a form needs. Pure.
 *
 * @typedef {object} Part one entry of `/v1/strategies`
 * @property {string} name
 * @property {"preset" | "decoder" | "cache" | "transform" | "length"} kind
 * @property {string} summary
 * @property {string} source
 * @property {{properties?: Record<string, any>}} schema JSON schema of its knobs
 * @property {string[]} default_for attention patterns
 * @property {number} version of a preset
 * @property {Record<string, any>} options of a preset
 *
 * @typedef {object} Spec a strategy as the user has chosen it
 * @property {string} choice `preset:NAME@VERSION` or `decoder:NAME`
 * @property {Record<string, any>} options what differs from that choice's own
 *
 * @typedef {object} Field one knob
 * @property {string} name
 * @property {"number" | "integer" | "boolean" | "choice" | "list"} type
 * @property {string} help
 * @property {unknown} preset what holds while nothing is entered
 * @property {number | null} least
 * @property {number | null} most
 * @property {boolean} isAboveLeast the least value itself is not allowed
 * @property {string[]} values of a choice
 *
 * @typedef {{title: string, help: string, fields: Field[], isMain: boolean}} Group
 */

/** Options that every strategy has; the server lists them with no part. */
const SHARED = {
  block_length: { type: "integer", minimum: 1, description: "Positions that are denoised together." },
  cfg_scale: { type: "number", minimum: 0, default: 0, description: "Classifier-free guidance; 0 is off." },
};

/**
 * What may be chosen as the base of a strategy.
 *
 * @param {readonly Part[]} parts
 * @returns {{label: string, items: {value: string, label: string, summary: string}[]}[]}
 */
export function choices(parts) {
  const items = (/** @type {string} */ kind) => parts.filter((part) => part.kind === kind).map(choiceOf);
  return [
    { label: "Presets", items: items("preset") },
    { label: "Decoders", items: items("decoder") },
  ];
}

/** @param {Part} part */
function choiceOf(part) {
  const name = part.kind === "preset" ? `${part.name}@${part.version}` : part.name;
  return { value: `${part.kind}:${name}`, label: name, summary: part.summary };
}

/**
 * The two strategies to begin with: the slowest preset beside the fastest, else the first two there are.
 *
 * @param {readonly Part[]} parts
 * @returns {[Spec, Spec]}
 */
export function firstSpecs(parts) {
  const values = choices(parts).flatMap((group) => group.items.map((item) => item.value));
  const withGoal = (/** @type {string} */ goal) => values.find((value) => value.startsWith(`preset:${goal}@`));
  const first = withGoal("quality") ?? values[0];
  const second = withGoal("fast") ?? values[1] ?? values[0];
  return [{ choice: first, options: {} }, { choice: second, options: {} }];
}

/**
 * The same strategy where this model has it; else null.
 *
 * @param {Spec | null} spec
 * @param {readonly Part[]} parts
 * @param {any} facts `lacuna` of the model
 * @returns {Spec | null}
 */
export function fitting(spec, parts, facts) {
  if (!spec || !choices(parts).some((group) => group.items.some((item) => item.value === spec.choice))) return null;
  const names = groups(parts, spec, facts).flatMap((group) => group.fields.map((field) => field.name));
  const options = Object.entries(spec.options).filter(([name]) => names.includes(name));
  return { choice: spec.choice, options: Object.fromEntries(options) };
}

/**
 * The knobs of a strategy, with the values that hold while nothing is entered.
 *
 * @param {readonly Part[]} parts
 * @param {Spec} spec
 * @param {any} facts `lacuna` of the model
 * @returns {Group[]}
 */
export function groups(parts, spec, facts) {
  const base = baseOf(parts, spec);
  const decoder = part(parts, "decoder", base.decoder ?? defaultName(parts, "decoder", facts));
  const caches = parts.filter((one) => one.kind === "cache").map((one) => one.name);
  const usualCache = base.cache ?? defaultName(parts, "cache", facts);
  const cache = part(parts, "cache", spec.options.cache ?? usualCache);
  const cacheField = field("cache", { enum: caches, default: usualCache, description: cache?.summary }, base);
  const shared = { ...SHARED, block_length: { ...SHARED.block_length, default: facts.block_length } };
  const extras = parts.filter((one) => one.kind === "length" || one.kind === "transform");
  return [
    group(`Decoder ${decoder?.name ?? ""}`, decoder?.summary ?? "", fieldsOf(decoder, base), true),
    group("Cache", "", [cacheField, ...fieldsOf(cache, base)], true),
    group("Blocks", "", Object.entries(shared).map(([name, schema]) => field(name, schema, base)), true),
    ...extras.map((one) => group(one.name.replaceAll("_", " "), one.summary, fieldsOf(one, base), false)),
  ].filter((one) => one.fields.length);
}

/**
 * The strategy as the API takes it.
 *
 * @param {Spec} spec
 * @returns {Record<string, any>}
 */
export function requestOptions(spec) {
  const [kind, name] = splitChoice(spec.choice);
  return { [kind]: name, ...spec.options };
}

/**
 * What was entered for a knob; `undefined` for nothing. Throws an Error that says what is allowed.
 *
 * @param {Field} field
 * @param {string} text
 * @returns {unknown}
 */
export function parse(field, text) {
  const entered = text.trim();
  if (entered === "") return undefined;
  if (field.type === "boolean") return entered === "true";
  if (field.type === "choice") return entered;
  if (field.type === "list") return entered.split(/[\s,]+/).map((item) => wholeNumber(item));
  const value = field.type === "integer" ? wholeNumber(entered) : Number(entered);
  const isTooLow = field.least !== null && (value < field.least || (field.isAboveLeast && value === field.least));
  if (Number.isNaN(value) || isTooLow || (field.most !== null && value > field.most)) {
    throw new Error(`${field.type === "integer" ? "a whole number" : "a number"} ${range(field)} is allowed`);
  }
  return value;
}

/**
 * The bounds of a knob in words; empty where it has none.
 *
 * @param {Field} field
 */
export function range({ least, most, isAboveLeast }) {
  const from = isAboveLeast ? `above ${least}` : `from ${least}`;
  if (least === null) return most === null ? "" : `up to ${most}`;
  return most === null || most >= 2 ** 31 - 1 ? (isAboveLeast ? from : `${from} up`) : `${from} to ${most}`;
}

/** @param {string} text */
function wholeNumber(text) {
  if (!/^-?\d+$/.test(text)) throw new Error("only whole numbers are allowed");
  return Number(text);
}

/**
 * @param {string} choice
 * @returns {[string, string]}
 */
function splitChoice(choice) {
  const at = choice.indexOf(":");
  return [choice.slice(0, at), choice.slice(at + 1)];
}

/**
 * @param {readonly Part[]} parts
 * @param {Spec} spec
 * @returns {Record<string, any>}
 */
function baseOf(parts, spec) {
  const [kind, name] = splitChoice(spec.choice);
  if (kind === "decoder") return { decoder: name };
  return parts.find((one) => one.kind === "preset" && `${one.name}@${one.version}` === name)?.options ?? {};
}

/**
 * @param {readonly Part[]} parts
 * @param {string} kind
 * @param {string | undefined} name
 */
function part(parts, kind, name) {
  return parts.find((one) => one.kind === kind && one.name === name);
}

/**
 * @param {readonly Part[]} parts
 * @param {string} kind
 * @param {any} facts
 */
function defaultName(parts, kind, facts) {
  return parts.find((one) => one.kind === kind && one.default_for.includes(facts.attention))?.name;
}

/**
 * @param {string} title
 * @param {string} help
 * @param {Field[]} fields
 * @param {boolean} isMain
 * @returns {Group}
 */
function group(title, help, fields, isMain) {
  return { title, help, fields, isMain };
}

/**
 * @param {Part | undefined} owner
 * @param {Record<string, any>} base
 */
function fieldsOf(owner, base) {
  return Object.entries(owner?.schema.properties ?? {}).map(([name, schema]) => field(name, schema, base));
}

/**
 * @param {string} name
 * @param {any} schema
 * @param {Record<string, any>} base
 * @returns {Field}
 */
function field(name, schema, base) {
  return {
    name,
    type: schema.enum ? "choice" : schema.type === "array" ? "list" : schema.type,
    help: schema.description ?? "",
    preset: base[name] ?? schema.default,
    least: schema.minimum ?? schema.exclusiveMinimum ?? null,
    most: schema.maximum ?? null,
    isAboveLeast: schema.exclusiveMinimum !== undefined,
    values: schema.enum ?? [],
  };
}
