// @ts-check
/** The controls of the player: play or pause, the step, the pace. */

import { byId } from "./dom.js";
import { Player } from "./player.js";

export class Timeline {
  /** @param {(position: number) => void} onPosition called whenever a step is to be shown */
  constructor(onPosition) {
    this.onPosition = onPosition;
    this.button = byId("play", HTMLButtonElement);
    this.slider = byId("slider", HTMLInputElement);
    this.place = byId("place", HTMLElement);
    this.pace = byId("pace", HTMLSelectElement);
    this.player = new Player(() => this.#show());
    this.button.addEventListener("click", () => this.player.toggle());
    this.slider.addEventListener("input", () => this.player.seek(this.slider.valueAsNumber));
    this.pace.addEventListener("change", () => this.#takePace());
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.pace.value = "0";
    this.#takePace();
  }

  #takePace() {
    this.player.paceMs = Number(this.pace.value);
  }

  #show() {
    const { position, length, isPlaying } = this.player;
    const last = Math.max(length - 1, 0);
    const text = `step ${position} of ${last}`;
    this.slider.max = String(last);
    this.slider.value = String(position);
    this.slider.ariaValueText = text;
    this.place.textContent = text;
    this.slider.disabled = this.button.disabled = last === 0;
    this.button.textContent = isPlaying ? "Pause" : "Play";
    this.onPosition(position);
  }
}
