// @ts-check
/** The server's HTTP API, as the playground uses it. */

import { eventData } from "./sse.js";

/** A request that failed. `status` is 0 where the server was not reached or a stream ended in the middle. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, param?: string | null, retryAfterS?: number | null, requestId?: string | null}} [details]
   */
  constructor(message, { status = 0, param = null, retryAfterS = null, requestId = null } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.param = param;
    this.retryAfterS = retryAfterS;
    this.requestId = requestId;
  }
}

/** Calls of the API, each with the key of that moment. */
export class Api {
  /**
   * @param {string} base the address below which `v1/` lies
   * @param {() => string} key the API key; empty where none is set
   */
  constructor(base, key) {
    this.base = base;
    this.key = key;
  }

  /** @returns {Promise<any[]>} the served models */
  async models() {
    return (await this.#json("v1/models")).data;
  }

  /**
   * @param {string} model
   * @returns {Promise<any[]>} what its strategies are named and built from
   */
  async strategies(model) {
    return (await this.#json(`v1/strategies?model=${encodeURIComponent(model)}`)).data;
  }

  /**
   * @param {object} body
   * @param {AbortSignal} signal
   * @returns {Promise<any>} the filled template
   */
  async infill(body, signal) {
    return this.#json("v1/infill", { body, signal });
  }

  /**
   * The chunks of a streamed answer.
   *
   * @param {"v1/completions" | "v1/chat/completions"} path
   * @param {object} body
   * @param {AbortSignal} signal aborting it frees the request's place on the server
   * @returns {AsyncGenerator<any>}
   */
  async *stream(path, body, signal) {
    const response = await this.#fetch(path, { body, signal });
    const requestId = response.headers.get("x-request-id");
    if (!response.body) throw new ApiError("The server sent no stream.", { requestId });
    try {
      for await (const data of eventData(response.body)) {
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw errorOf(chunk.error, { requestId });
        yield chunk;
      }
    } catch (error) {
      if (error instanceof ApiError || signal.aborted) throw error;
      throw new ApiError(`The connection broke in the middle of the answer. ${String(error)}`, { requestId });
    }
    throw new ApiError("The stream ended before the answer was complete.", { requestId });
  }

  /**
   * @param {string} path
   * @param {{body?: object, signal?: AbortSignal}} [options]
   * @returns {Promise<any>}
   */
  async #json(path, options = {}) {
    return (await this.#fetch(path, options)).json();
  }

  /**
   * @param {string} path
   * @param {{body?: object, signal?: AbortSignal}} options
   * @returns {Promise<Response>}
   */
  async #fetch(path, { body, signal }) {
    /** @type {Record<string, string>} */
    const headers = {};
    if (body) headers["Content-Type"] = "application/json";
    if (this.key()) headers.Authorization = `Bearer ${this.key()}`;
    const method = body ? "POST" : "GET";
    const request = { method, headers, body: body ? JSON.stringify(body) : undefined, signal };
    let response;
    try {
      response = await fetch(new URL(path, this.base), request);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError("The server cannot be reached. Is it still running?");
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

/**
 * @param {Response} response
 * @returns {Promise<ApiError>}
 */
async function refusal(response) {
  const requestId = response.headers.get("x-request-id");
  const seconds = Number(response.headers.get("retry-after"));
  const details = { status: response.status, requestId, retryAfterS: seconds > 0 ? seconds : null };
  const fallback = { message: `The server answered ${response.status} ${response.statusText}.` };
  const body = await response.json().catch(() => null); // a proxy's error page is no JSON
  return errorOf(body?.error ?? fallback, details);
}

/**
 * @param {{message?: string, param?: string | null}} error
 * @param {{status?: number, retryAfterS?: number | null, requestId?: string | null}} details
 */
function errorOf(error, details) {
  return new ApiError(error.message ?? "The server gave no reason.", { ...details, param: error.param ?? null });
}
