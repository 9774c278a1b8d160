// @ts-check
/** The page: settings in, two runs beside each other out. */

import { Api, ApiError } from "./api.js";
import { filledTemplate } from "./canvas.js";
import { byId } from "./dom.js";
import { KeyDialog } from "./key_dialog.js";
import { Lane } from "./lane.js";
import { showLegend } from "./legend.js";
import { decode, encode } from "./link.js";
import { RequestForm } from "./request_form.js";
import { infillRequest, streamRequest } from "./requests.js";
import { firstSpecs, fitting } from "./strategy.js";
import { Timeline } from "./timeline.js";

/** @typedef {import("./link.js").Settings} Settings */
/** @typedef {import("./recording.js").Recording} Recording */
/** @typedef {import("./strategy.js").Spec} Spec */

const SEEDS = 2 ** 31;

const runButton = byId("run", HTMLButtonElement);
const stopButton = byId("stop", HTMLButtonElement);
const status = byId("status", HTMLElement);
const problem = byId("problem", HTMLElement);

const keys = new KeyDialog(load);
const api = new Api(document.baseURI, () => keys.key);
const lanes = ["A", "B"].map((name) => new Lane(byId(`lane-${name}`, HTMLElement), name));
const request = new RequestForm(announce);
const timeline = new Timeline((position) => lanes.forEach((lane) => lane.show(position)));
/** @type {AbortController | null} */
let running = null;

/** @param {string} message */
function announce(message) {
  status.textContent = message;
}

/** @returns {Settings} */
function settings() {
  return { ...request.read(), strategies: lanes.map((lane) => lane.form.spec) };
}

/** Load what the server has, and the settings of the address. */
async function load() {
  await guarded(async () => {
    request.setModels(await api.models());
    await apply(decode(location.hash));
  });
}

/** @param {Settings} wanted */
async function apply(wanted) {
  request.write(wanted);
  await showStrategies(wanted.strategies);
}

/** @param {readonly (Spec | null)[]} wanted */
async function showStrategies(wanted) {
  const model = request.model.value;
  const parts = await api.strategies(model);
  if (model !== request.model.value) return; // another model was chosen meanwhile
  const usual = firstSpecs(parts);
  lanes.forEach((lane, index) => {
    lane.form.show(parts, request.facts, fitting(wanted[index], parts, request.facts) ?? usual[index]);
  });
  showRunning();
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
  if (error.status === 401) keys.ask(error.message);
}

async function run() {
  if (running || runButton.disabled || !request.check() || !lanes.every((lane) => lane.form.check())) return;
  const controller = new AbortController();
  running = controller;
  showRunning();
  announce("Running.");
  const wanted = settings();
  wanted.seed ??= Math.floor(Math.random() * SEEDS); // one for both lanes: only the strategy differs
  const { signal } = controller;
  const outcomes = lanes.map((lane) => lane.run((recording) => work(recording, wanted, lane.form.spec, signal), signal));
  timeline.player.begin();
  const failures = (await Promise.all(outcomes)).filter((failure) => failure !== null);
  running = null;
  showRunning();
  timeline.player.end();
  announce(signal.aborted ? "Stopped." : failures.length ? "A run has failed." : "Both answers are complete.");
  const locked = failures.find((failure) => failure.status === 401);
  if (locked) report(locked);
}

/**
 * One strategy's request, recorded.
 *
 * @param {Recording} recording
 * @param {Settings} wanted
 * @param {Spec} spec
 * @param {AbortSignal} signal
 */
async function work(recording, wanted, spec, signal) {
  const started = performance.now();
  if (wanted.task === "infill") {
    const template = request.editor.template();
    const answer = await api.infill(infillRequest(wanted, spec, template), signal);
    recording.set(filledTemplate(template, answer.gaps), answer.usage, performance.now() - started);
    timeline.player.grow(recording.frames.length);
    return;
  }
  const { path, body } = streamRequest(wanted, spec);
  for await (const chunk of api.stream(path, body, signal)) {
    recording.add(chunk, performance.now() - started);
    timeline.player.grow(recording.frames.length);
  }
}

function showRunning() {
  runButton.disabled = running !== null;
  stopButton.disabled = running === null;
}

async function share() {
  history.replaceState(null, "", `#${encode(settings())}`);
  const what = "It holds the settings, not the API key.";
  try {
    await navigator.clipboard.writeText(location.href);
    announce(`The link is copied. ${what}`);
  } catch {
    announce(`The link is in the address bar. ${what}`);
  }
}

function listen() {
  request.root.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  request.root.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    if (event.target instanceof HTMLInputElement) event.target.blur(); // a changed knob is taken over
    run();
  });
  request.model.addEventListener("change", () => guarded(() => showStrategies(lanes.map((lane) => lane.form.spec))));
  stopButton.addEventListener("click", () => running?.abort());
  byId("share", HTMLButtonElement).addEventListener("click", share);
  window.addEventListener("hashchange", () => guarded(() => apply(decode(location.hash))));
}

showLegend(byId("legend", HTMLElement));
listen();
load();
