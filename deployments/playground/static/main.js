// @ts-check
/** The page: settings in, two runs beside each other out. */

import { Api, ApiError } from "./api.js";
import { filledTemplate } from "./canvas.js";
import { byId, element } from "./dom.js";
import { GapEditor } from "./gap_editor.js";
import { Lane } from "./lane.js";
import { showLegend } from "./legend.js";
import { decode, encode } from "./link.js";
import { Player } from "./player.js";
import { firstSpecs, fitting, requestOptions } from "./strategy.js";

/** @typedef {import("./link.js").Settings} Settings */
/** @typedef {import("./link.js").Task} Task */
/** @typedef {import("./recording.js").Recording} Recording */

const KEY = "lacuna.api_key";
const SEEDS = 2 ** 31;

const form = byId("request", HTMLFormElement);
const modelSelect = byId("model", HTMLSelectElement);
const prompt = byId("prompt", HTMLTextAreaElement);
const maxTokens = byId("max-tokens", HTMLInputElement);
const temperature = byId("temperature", HTMLInputElement);
const seed = byId("seed", HTMLInputElement);
const runButton = byId("run", HTMLButtonElement);
const stopButton = byId("stop", HTMLButtonElement);
const playButton = byId("play", HTMLButtonElement);
const slider = byId("slider", HTMLInputElement);
const place = byId("place", HTMLElement);
const pace = byId("pace", HTMLSelectElement);
const status = byId("status", HTMLElement);
const problem = byId("problem", HTMLElement);
const keyDialog = byId("key-dialog", HTMLDialogElement);
const keyInput = byId("key", HTMLInputElement);

const api = new Api(document.baseURI, () => sessionStorage.getItem(KEY) ?? "");
const lanes = ["A", "B"].map((name) => new Lane(byId(`lane-${name}`, HTMLElement), name));
const editor = new GapEditor(
  {
    field: byId("gap-text", HTMLTextAreaElement),
    backdrop: byId("gap-backdrop", HTMLElement),
    list: byId("gaps", HTMLElement),
    button: byId("make-gap", HTMLButtonElement),
  },
  announce,
);
const player = new Player(showPosition);
/** @type {any[]} */
let models = [];
/** @type {AbortController | null} */
let running = null;

/** @param {string} message */
function announce(message) {
  status.textContent = message;
}

/** @returns {Task} */
function task() {
  return /** @type {Task} */ (new FormData(form).get("task"));
}

function facts() {
  return models.find((model) => model.id === modelSelect.value)?.lacuna ?? {};
}

/** @returns {Settings} */
function settings() {
  return {
    task: task(),
    model: modelSelect.value,
    prompt: prompt.value,
    text: editor.text,
    gaps: editor.gaps,
    maxTokens: maxTokens.valueAsNumber,
    temperature: temperature.valueAsNumber,
    seed: seed.value === "" ? null : seed.valueAsNumber,
    strategies: lanes.map((lane) => lane.form.spec),
  };
}

/** @param {Settings} wanted */
async function apply(wanted) {
  for (const radio of form.querySelectorAll("input[name=task]")) {
    /** @type {HTMLInputElement} */ (radio).checked = /** @type {HTMLInputElement} */ (radio).value === wanted.task;
  }
  prompt.value = wanted.prompt;
  editor.show(wanted.text, wanted.gaps);
  maxTokens.value = String(wanted.maxTokens);
  temperature.value = String(wanted.temperature);
  seed.value = wanted.seed === null ? "" : String(wanted.seed);
  const isServed = models.some((model) => model.id === wanted.model);
  const usual = models.find((model) => model.lacuna.is_default) ?? models[0];
  modelSelect.value = isServed ? wanted.model : usual.id;
  if (wanted.model && !isServed) announce(`This server does not serve ${wanted.model}; ${usual.id} was chosen instead.`);
  showTask();
  await showStrategies(wanted.strategies);
}

/** @param {(import("./strategy.js").Spec | null)[]} wanted */
async function showStrategies(wanted) {
  const model = modelSelect.value;
  const parts = await api.strategies(model);
  if (model !== modelSelect.value) return; // another model was chosen meanwhile
  const usual = firstSpecs(parts);
  lanes.forEach((lane, index) => {
    lane.form.show(parts, facts(), fitting(wanted[index], parts, facts()) ?? usual[index]);
  });
  runButton.disabled = false;
}

function showTask() {
  const isInfill = task() === "infill";
  byId("prompt-box", HTMLElement).hidden = isInfill;
  byId("gap-box", HTMLElement).hidden = !isInfill;
  maxTokens.disabled = isInfill;
  byId("causal-note", HTMLElement).hidden = !isInfill || facts().attention !== "block_causal";
}

/** Load what the server has, and the settings of the address. */
async function load() {
  await guarded(async () => {
    models = await api.models();
    modelSelect.replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
    await apply(decode(location.hash));
  });
}

/**
 * Do something that needs the server; a failure is shown for the whole page.
 *
 * @param {() => Promise<void>} work
 */
async function guarded(work) {
  problem.hidden = true;
  try {
    await work();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    report(error);
  }
}

/** @param {ApiError} error */
function report(error) {
  problem.textContent = error.message;
  problem.hidden = false;
  if (error.status === 401) askForKey(error.message);
}

/** @param {string} reason */
function askForKey(reason) {
  byId("key-reason", HTMLElement).textContent = reason;
  keyInput.value = sessionStorage.getItem(KEY) ?? "";
  if (!keyDialog.open) keyDialog.showModal();
}

/** @param {string} key empty: forget it */
function useKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
  keyDialog.close();
  byId("key-button", HTMLButtonElement).textContent = key ? "API key: set" : "API key";
  return load();
}

async function run() {
  if (running || !checked()) return;
  const controller = new AbortController();
  running = controller;
  showRunning();
  announce("Running.");
  const wanted = settings();
  wanted.seed ??= Math.floor(Math.random() * SEEDS); // one for both lanes: only the strategy differs
  player.paceMs = Number(pace.value);
  const outcomes = lanes.map((lane, index) => lane.run((recording) => work(recording, wanted, index), controller.signal));
  player.begin();
  const failures = (await Promise.all(outcomes)).filter((failure) => failure !== null);
  running = null;
  showRunning();
  player.end();
  announce(controller.signal.aborted ? "Stopped." : failures.length ? "A run has failed." : "Both answers are complete.");
  const locked = failures.find((failure) => failure.status === 401);
  if (locked) report(locked);
}

/** Whether everything that was entered is allowed; else the first wrong field says so. */
function checked() {
  const isInfill = task() === "infill";
  if (isInfill && !editor.gaps.length) {
    announce("Select some text and make it a gap first.");
    editor.field.focus();
    return false;
  }
  const shared = isInfill ? [temperature, seed] : [prompt, maxTokens, temperature, seed];
  return shared.every((input) => input.reportValidity()) && lanes.every((lane) => lane.form.check());
}

/**
 * One strategy's request, recorded.
 *
 * @param {Recording} recording
 * @param {Settings} wanted
 * @param {number} index of the lane
 */
async function work(recording, wanted, index) {
  const { signal } = /** @type {AbortController} */ (running);
  const { model, temperature: heat, seed: number } = wanted;
  const strategy = requestOptions(/** @type {import("./strategy.js").Spec} */ (wanted.strategies[index]));
  const shared = { model, temperature: heat, seed: number };
  const started = performance.now();
  if (wanted.task === "infill") {
    const template = editor.template();
    const answer = await api.infill({ ...shared, template, logprobs: true, diffusion: strategy }, signal);
    recording.set(filledTemplate(template, answer.gaps), answer.usage, performance.now() - started);
    player.grow(1);
    return;
  }
  const isChat = wanted.task === "chat";
  const what = isChat ? { messages: [{ role: "user", content: wanted.prompt }] } : { prompt: wanted.prompt };
  const how = { stream: true, stream_options: { include_usage: true }, diffusion: { ...strategy, stream: "events" } };
  const body = { ...shared, ...what, ...how, max_tokens: wanted.maxTokens };
  for await (const chunk of api.stream(isChat ? "v1/chat/completions" : "v1/completions", body, signal)) {
    recording.add(chunk, performance.now() - started);
    player.grow(recording.frames.length);
  }
}

function showRunning() {
  runButton.disabled = running !== null;
  stopButton.disabled = running === null;
  document.body.classList.toggle("running", running !== null);
}

/** The step that the player is at, in both lanes. */
function showPosition() {
  lanes.forEach((lane) => lane.show(player.position));
  const last = Math.max(player.length - 1, 0);
  slider.max = String(last);
  slider.value = String(player.position);
  slider.disabled = playButton.disabled = last === 0;
  slider.ariaValueText = `step ${player.position} of ${last}`;
  place.textContent = `step ${player.position} of ${last}`;
  playButton.textContent = player.isPlaying ? "Pause" : "Play";
}

async function share() {
  history.replaceState(null, "", `#${encode(settings())}`);
  try {
    await navigator.clipboard.writeText(location.href);
    announce("The link is copied. It holds the settings, not the API key.");
  } catch {
    announce("The link is in the address bar. It holds the settings, not the API key.");
  }
}

function listen() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    if (event.target instanceof HTMLElement) event.target.blur(); // a changed knob is taken over
    run();
  });
  form.querySelectorAll("input[name=task]").forEach((radio) => radio.addEventListener("change", showTask));
  stopButton.addEventListener("click", () => running?.abort());
  playButton.addEventListener("click", () => player.toggle());
  slider.addEventListener("input", () => player.seek(slider.valueAsNumber));
  pace.addEventListener("change", () => { player.paceMs = Number(pace.value); });
  modelSelect.addEventListener("change", () => {
    showTask();
    guarded(() => showStrategies(lanes.map((lane) => lane.form.spec)));
  });
  byId("share", HTMLButtonElement).addEventListener("click", share);
  window.addEventListener("hashchange", () => guarded(() => apply(decode(location.hash))));
  byId("key-button", HTMLButtonElement).addEventListener("click", () => askForKey(""));
  byId("key-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(keyInput.value.trim());
  });
  byId("forget-key", HTMLButtonElement).addEventListener("click", () => useKey(""));
  byId("close-key", HTMLButtonElement).addEventListener("click", () => keyDialog.close());
}

if (matchMedia("(prefers-reduced-motion: reduce)").matches) pace.value = "0";
if (sessionStorage.getItem(KEY)) byId("key-button", HTMLButtonElement).textContent = "API key: set";
showLegend(byId("legend", HTMLElement));
listen();
load();
