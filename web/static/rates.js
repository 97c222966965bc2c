// How fast bytes move, as people want to read it: calm, and yet of now.

/** Milliseconds over which what was before counts less and less. */
const memory = 4000;

/** Milliseconds between two looks, at least: what comes in bursts has no speed in between. */
const step = 400;

/** Milliseconds, and steps as long as the last, without a byte after which something does not move any more. */
const still = { at: 3000, steps: 3 };

export class Rates {
  /** @type {Map<string, {bytes: number, at: number, took: number, rate: number}>} */
  #seen = new Map();

  /**
   * Notes how many bytes of something have moved. Fewer than before are a new
   * beginning.
   * @param {string} key
   * @param {number} bytes
   * @param {number} now in milliseconds
   */
  note(key, bytes, now) {
    const was = this.#seen.get(key);
    if (!was || bytes < was.bytes) {
      this.#seen.set(key, { bytes, at: now, took: 0, rate: 0 });
      return;
    }
    const passed = now - was.at;
    if (passed < step || bytes === was.bytes) return;
    const present = ((bytes - was.bytes) / passed) * 1000;
    const weight = was.rate === 0 ? 1 : 1 - Math.exp(-passed / memory);
    this.#seen.set(key, { bytes, at: now, took: passed, rate: was.rate + (present - was.rate) * weight });
  }

  /** @param {string} key */
  forget(key) {
    this.#seen.delete(key);
  }

  /**
   * Bytes a second; 0 if it is not known, or nothing moves.
   * @param {string} key
   * @param {number} now in milliseconds
   */
  of(key, now) {
    const seen = this.#seen.get(key);
    if (!seen || seen.rate < 1 || now - seen.at > Math.max(still.at, still.steps * seen.took)) return 0;
    return seen.rate;
  }
}
