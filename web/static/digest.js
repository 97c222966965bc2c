// Computes the SHA-256 of files in workers: of small ones before they are sent, so
// that the gateway refuses what arrives damaged, and of large ones after, to compare
// it with what the gateway has received. Neither waits for the other.

/** Bytes up to which a file is read once more before its first byte goes. */
const smallAtMost = 64 << 20;

/** @param {File} file */
export const isSmall = (file) => file.size <= smallAtMost;

/**
 * @typedef {object} Job
 * @property {File} file
 * @property {(digest: string | null) => void} finish
 */

/** Takes one file after the other. */
class Line {
  /** @type {Job[]} the first is under way */
  #jobs = [];
  /** @type {Worker | null} */
  #worker = null;

  /** @param {Job} job */
  add(job) {
    if (this.#jobs.push(job) === 1) this.#start();
  }

  #start() {
    if (this.#jobs.length === 0) return;
    if (!this.#worker) {
      this.#worker = new Worker(scriptURL(new URL("digest-worker.js", import.meta.url).href), { type: "module" });
      this.#worker.addEventListener("message", ({ data }) => this.#finish(data.digest ?? null));
      this.#worker.addEventListener("error", () => this.#finish(null));
    }
    this.#worker.postMessage(this.#jobs[0].file);
  }

  /** @param {string | null} digest */
  #finish(digest) {
    this.#jobs.shift()?.finish(digest);
    this.#start();
  }
}

const [small, large] = [new Line(), new Line()];

/** @type {{createScriptURL: (url: string) => string} | undefined} where the browser knows trusted types */
let policy;

/**
 * The digest of a file in hexadecimal digits, or null if it cannot be read.
 * @param {File} file
 * @returns {Promise<string | null>}
 */
export function digest(file) {
  return new Promise((finish) => (isSmall(file) ? small : large).add({ file, finish }));
}

/**
 * Has the browser take an address of ours for one of a script: the page's policy
 * lets no other string be one.
 * @param {string} url
 * @returns {string}
 */
function scriptURL(url) {
  const { trustedTypes } = /** @type {any} */ (globalThis);
  policy ??= trustedTypes?.createPolicy("ferry", { createScriptURL: (/** @type {string} */ url) => url });
  return policy ? policy.createScriptURL(url) : url;
}
