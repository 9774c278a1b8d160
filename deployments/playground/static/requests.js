// @ts-check
/** What the API is asked for. Pure. */

import { requestOptions } from "./strategy.js";

/** @typedef {import("./link.js").Settings} Settings */
/** @typedef {import("./strategy.js").Spec} Spec */

/**
 * A streamed answer with the events of every denoising step.
 *
 * @param {Settings} settings
 * @param {Spec} spec
 * @returns {{path: "v1/completions" | "v1/chat/completions", body: object}}
 */
export function streamRequest(settings, spec) {
  const isChat = settings.task === "chat";
  const what = isChat ? { messages: [{ role: "user", content: settings.prompt }] } : { prompt: settings.prompt };
  return {
    path: isChat ? "v1/chat/completions" : "v1/completions",
    body: {
      ...shared(settings),
      ...what,
      max_tokens: settings.maxTokens,
      stream: true,
      stream_options: { include_usage: true },
      diffusion: { ...requestOptions(spec), stream: "events" },
    },
  };
}

/**
 * A template to fill.
 *
 * @param {Settings} settings
 * @param {Spec} spec
 * @param {readonly (string | object)[]} template
 * @returns {object}
 */
export function infillRequest(settings, spec, template) {
  return { ...shared(settings), template, logprobs: true, diffusion: requestOptions(spec) };
}

/** @param {Settings} settings */
function shared({ model, temperature, seed }) {
  return { model, temperature, ...(seed === null ? {} : { seed }) };
}
