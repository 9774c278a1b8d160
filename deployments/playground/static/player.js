// @ts-check
/** Which recorded step is shown: it follows the run, pauses, goes back and plays again. */

const MOST_BEHIND = 25;
/** A run that is faster than the pace is never shown later than about so many steps. */

const LEAST_PACE_MS = 30;
/** Of playing again: without a pace a recording would be over at once. */

export class Player {
  /** @param {() => void} onChange called whenever anything that is shown has changed */
  constructor(onChange) {
    this.onChange = onChange;
    this.position = 0;
    this.length = 0;
    this.isPlaying = false;
    this.isLive = false;
    this.paceMs = 0;
    this.timer = 0;
  }

  /** A run begins: what was recorded before is gone, and its steps are shown as they come. */
  begin() {
    clearTimeout(this.timer);
    this.timer = 0;
    Object.assign(this, { position: 0, length: 0, isPlaying: true, isLive: true });
    this.onChange();
  }

  /**
   * So many steps are recorded.
   *
   * @param {number} length
   */
  grow(length) {
    this.length = Math.max(this.length, length);
    this.#advance();
    this.onChange();
  }

  /** The run is over; what is left is still shown at its pace. */
  end() {
    this.isLive = false;
    this.#advance();
    this.onChange();
  }

  /**
   * Show this step, and stay there.
   *
   * @param {number} position
   */
  seek(position) {
    this.isPlaying = false;
    this.position = Math.max(0, Math.min(position, this.length - 1));
    this.onChange();
  }

  /** Pause, go on, or begin again at the end of a recording. */
  toggle() {
    this.isPlaying = !this.isPlaying;
    if (this.isPlaying && !this.isLive && this.#behind() <= 0) this.position = 0;
    this.#advance();
    this.onChange();
  }

  #behind() {
    return this.length - 1 - this.position;
  }

  #advance() {
    if (this.timer || !this.isPlaying) return;
    if (this.#behind() <= 0) {
      this.isPlaying = this.isLive;
      return;
    }
    const pace = this.isLive ? this.paceMs : Math.max(this.paceMs, LEAST_PACE_MS);
    this.timer = setTimeout(() => this.#step(), pace);
  }

  #step() {
    this.timer = 0;
    if (!this.isPlaying) return;
    const behind = this.#behind();
    if (this.isLive && !this.paceMs) this.position = this.length - 1;
    else this.position += this.isLive ? Math.max(1, behind - MOST_BEHIND) : 1;
    this.position = Math.min(this.position, this.length - 1);
    this.#advance();
    this.onChange();
  }
}
