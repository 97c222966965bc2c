// Computes the SHA-256 of files in a worker, one after the other: what the
// gateway has received is compared with it.

/**
 * @typedef {object} Job
 * @property {File} file
 * @property {(digest: string | null) => void} finish
 */

/** @type {Job[]} the first is under way */
const jobs = [];

/** @type {{createScriptURL: (url: string) => string} | undefined} where the browser knows trusted types */
let policy;

/** @type {Worker | null} */
let worker = null;

/**
 * The digest of a file in hexadecimal digits, or null if it cannot be read.
 * @param {File} file
 * @returns {Promise<string | null>}
 */
export function digest(file) {
  return new Promise((finish) => {
    if (jobs.push({ file, finish }) === 1) start();
  });
}

function start() {
  if (jobs.length === 0) return;
  if (!worker) {
    worker = new Worker(scriptURL(new URL("digest-worker.js", import.meta.url).href), { type: "module" });
    worker.addEventListener("message", ({ data }) => finish(data.digest ?? null));
    worker.addEventListener("error", () => finish(null));
  }
  worker.postMessage(jobs[0].file);
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

/** @param {string | null} digest */
function finish(digest) {
  jobs.shift()?.finish(digest);
  start();
}
