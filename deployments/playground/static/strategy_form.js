// @ts-check
/** The form of one strategy, made from the server's description of what there is. */

import { element } from "./dom.js";
import { choices, groups, parse, range } from "./strategy.js";

/** @typedef {import("./strategy.js").Field} Field */
/** @typedef {import("./strategy.js").Part} Part */
/** @typedef {import("./strategy.js").Spec} Spec */

export class StrategyForm {
  /**
   * @param {HTMLElement} root
   * @param {string} name of the lane: part of labels and ids
   */
  constructor(root, name) {
    this.root = root;
    this.name = name;
    /** @type {readonly Part[]} */
    this.parts = [];
    /** @type {any} */
    this.facts = {};
    /** @type {Spec} */
    this.spec = { choice: "", options: {} };
    this.isOpen = false;
    this.isMoreOpen = false;
  }

  /**
   * @param {readonly Part[]} parts
   * @param {any} facts `lacuna` of the model
   * @param {Spec} spec
   */
  show(parts, facts, spec) {
    Object.assign(this, { parts, facts, spec });
    this.#render();
  }

  /** Whether everything that was entered is allowed; else the first wrong field says so. */
  check() {
    const inputs = [...this.#inputs()];
    const wrong = inputs.find((input) => !input.checkValidity());
    inputs.filter((input) => input.validity.valid).forEach((input) => input.removeAttribute("aria-invalid"));
    if (wrong) this.#open(wrong);
    wrong?.reportValidity();
    return !wrong;
  }

  /**
   * Show the field that the server complains about, where there is one.
   *
   * @param {string | null} param e.g. `diffusion.threshold`
   */
  blame(param) {
    const name = param?.replace(/^diffusion\./, "");
    const input = [...this.#inputs()].find((one) => one.name === name);
    if (!input) return;
    this.#open(input);
    input.setAttribute("aria-invalid", "true");
  }

  #inputs() {
    return /** @type {NodeListOf<HTMLInputElement | HTMLSelectElement>} */ (
      this.root.querySelectorAll("input, select")
    );
  }

  /** @param {HTMLElement} input */
  #open(input) {
    for (let box = input.closest("details"); box; box = box.parentElement?.closest("details") ?? null) box.open = true;
  }

  #render() {
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.id : "";
    const all = groups(this.parts, this.spec, this.facts);
    const nodes = (/** @type {boolean} */ isMain) =>
      all.filter((one) => one.isMain === isMain).map((one) => this.#group(one));
    const more = element("details", { className: "more", open: this.isMoreOpen },
      element("summary", {}, "Transforms and length"), ...nodes(false));
    more.addEventListener("toggle", () => { this.isMoreOpen = more.open; });
    const knobs = element("details", { className: "knobs", open: this.isOpen },
      element("summary", {}, "Parameters", this.#badge()), ...nodes(true), more);
    knobs.addEventListener("toggle", () => { this.isOpen = knobs.open; });
    this.root.replaceChildren(...this.#choice(), knobs);
    if (focused) document.getElementById(focused)?.focus();
  }

  #badge() {
    const changed = Object.entries(this.spec.options);
    const text = changed.map(([name, value]) => `${name} = ${String(value)}`).join(", ");
    return element("span", { className: "changed" }, text);
  }

  #choice() {
    const id = `${this.name}-choice`;
    const all = choices(this.parts);
    const select = element("select", { id, name: "choice" });
    for (const { label, items } of all) {
      const options = items.map(({ value, label: text }) =>
        element("option", { value, selected: value === this.spec.choice }, text));
      if (options.length) select.append(element("optgroup", { label }, ...options));
    }
    select.addEventListener("change", () => {
      this.spec = { choice: select.value, options: {} };
      this.#render();
    });
    const chosen = all.flatMap((group) => group.items).find((item) => item.value === this.spec.choice);
    return [
      element("label", { htmlFor: id, className: "lane-name" }, `Strategy ${this.name}`),
      select,
      element("p", { className: "help" }, chosen?.summary ?? ""),
    ];
  }

  /** @param {import("./strategy.js").Group} group */
  #group({ title, help, fields }) {
    const legend = element("legend", {}, title);
    const hint = help ? [element("p", { className: "help" }, help)] : [];
    return element("fieldset", {}, legend, ...hint, ...fields.map((field) => this.#field(field)));
  }

  /** @param {Field} field */
  #field(field) {
    const id = `${this.name}-${field.name}`;
    const input = this.#input(field, id);
    const help = element("p", { className: "help", id: `${id}-help` }, describe(field));
    input.setAttribute("aria-describedby", help.id);
    return element("div", { className: "field" }, element("label", { htmlFor: id }, field.name), input, help);
  }

  /**
   * @param {Field} field
   * @param {string} id
   */
  #input(field, id) {
    const value = this.spec.options[field.name];
    const text = value === undefined ? "" : String(value);
    const values = field.type === "boolean" ? ["true", "false"] : field.values;
    const input = values.length
      ? element("select", { id, name: field.name },
          element("option", { value: "" }, `default: ${String(field.preset)}`),
          ...values.map((one) => element("option", { value: one, selected: one === text }, one)))
      : element("input", {
          id, name: field.name, value: text, placeholder: String(field.preset ?? ""), autocomplete: "off",
          inputMode: field.type === "list" ? "text" : "decimal", spellcheck: false,
        });
    input.addEventListener("change", () => this.#onChange(field, input));
    return input;
  }

  /**
   * @param {Field} field
   * @param {HTMLInputElement | HTMLSelectElement} input
   */
  #onChange(field, input) {
    input.removeAttribute("aria-invalid");
    try {
      const value = parse(field, input.value);
      const { [field.name]: _, ...others } = this.spec.options;
      input.setCustomValidity("");
      this.spec = { ...this.spec, options: value === undefined ? others : { ...others, [field.name]: value } };
    } catch (error) {
      input.setCustomValidity(`${field.name}: ${error instanceof Error ? error.message : error}`);
      input.setAttribute("aria-invalid", "true");
      input.reportValidity();
      return;
    }
    if (field.name === "cache") this.#render();
    else this.root.querySelector(".changed")?.replaceWith(this.#badge());
  }
}

/** @param {Field} field */
function describe(field) {
  const bounds = field.type === "number" || field.type === "integer" ? range(field) : "";
  return bounds ? `${field.help} (${bounds})` : field.help;
}
