// @ts-check
/** The form of what both strategies are asked: the task, the model, the prompt or the text with gaps, the sampling. */

import { byId, element } from "./dom.js";
import { GapEditor } from "./gap_editor.js";

/** @typedef {import("./link.js").Settings} Settings */
/** @typedef {import("./link.js").Task} Task */

export class RequestForm {
  /** @param {(message: string) => void} announce says what has happened */
  constructor(announce) {
    this.announce = announce;
    this.root = byId("request", HTMLFormElement);
    this.model = byId("model", HTMLSelectElement);
    this.prompt = byId("prompt", HTMLTextAreaElement);
    this.maxTokens = byId("max-tokens", HTMLInputElement);
    this.temperature = byId("temperature", HTMLInputElement);
    this.seed = byId("seed", HTMLInputElement);
    this.editor = new GapEditor(
      {
        field: byId("gap-text", HTMLTextAreaElement),
        backdrop: byId("gap-backdrop", HTMLElement),
        list: byId("gaps", HTMLElement),
        button: byId("make-gap", HTMLButtonElement),
      },
      announce,
    );
    /** @type {any[]} */
    this.models = [];
    this.#tasks().forEach((radio) => radio.addEventListener("change", () => this.#showTask()));
    this.model.addEventListener("change", () => this.#showTask());
  }

  /** @param {any[]} models that are served */
  setModels(models) {
    this.models = models;
    this.model.replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
  }

  /** @returns {any} `lacuna` of the chosen model */
  get facts() {
    return this.models.find((model) => model.id === this.model.value)?.lacuna ?? {};
  }

  /** @returns {Omit<Settings, "strategies">} */
  read() {
    return {
      task: this.#task(),
      model: this.model.value,
      prompt: this.prompt.value,
      text: this.editor.text,
      gaps: this.editor.gaps,
      maxTokens: this.maxTokens.valueAsNumber,
      temperature: this.temperature.valueAsNumber,
      seed: this.seed.value === "" ? null : this.seed.valueAsNumber,
    };
  }

  /** @param {Settings} settings */
  write(settings) {
    this.#tasks().forEach((radio) => { radio.checked = radio.value === settings.task; });
    this.prompt.value = settings.prompt;
    this.editor.show(settings.text, settings.gaps);
    this.maxTokens.value = String(settings.maxTokens);
    this.temperature.value = String(settings.temperature);
    this.seed.value = settings.seed === null ? "" : String(settings.seed);
    const usual = this.models.find((model) => model.lacuna.is_default) ?? this.models[0];
    const isServed = this.models.some((model) => model.id === settings.model);
    this.model.value = isServed ? settings.model : usual.id;
    if (settings.model && !isServed) this.announce(`${settings.model} is not served here: ${usual.id} was chosen.`);
    this.#showTask();
  }

  /** Whether everything that was entered is allowed; else the first wrong field says so. */
  check() {
    const isInfill = this.#task() === "infill";
    if (isInfill && !this.editor.gaps.length) {
      this.announce("Select some text and make it a gap first.");
      this.editor.field.focus();
      return false;
    }
    const own = isInfill ? [...this.editor.list.querySelectorAll("input")] : [this.prompt, this.maxTokens];
    return [...own, this.temperature, this.seed].every((input) => input.reportValidity());
  }

  #tasks() {
    return /** @type {NodeListOf<HTMLInputElement>} */ (this.root.querySelectorAll("input[name=task]"));
  }

  #task() {
    return /** @type {Task} */ (new FormData(this.root).get("task"));
  }

  #showTask() {
    const isInfill = this.#task() === "infill";
    byId("prompt-box", HTMLElement).hidden = isInfill;
    byId("gap-box", HTMLElement).hidden = !isInfill;
    this.maxTokens.disabled = isInfill;
    byId("causal-note", HTMLElement).hidden = !isInfill || this.facts.attention !== "block_causal";
  }
}
