// Computes the SHA-256 of files in a worker, one after the other: what the
// gateway has received is compared with it.

/**
 * @typedef {object} Job
 * @property {File} file
 * @property {(digest: string | null) => void} finish
 */

/** @type {Job[]} the first is under way */
const jobs = [];

/** @type {Worker | null} */
let worker = null;

/**
 * The digest of a file in hexadecimal digits, or null if it cannot be read or
 * signal came before it was known.
 * @param {File} file
 * @param {AbortSignal} signal
 * @returns {Promise<string | null>}
 */
export function digest(file, signal) {
  return new Promise((finish) => {
    const job = { file, finish };
    signal.addEventListener("abort", () => stop(job), { once: true });
    jobs.push(job);
    if (jobs.length === 1) start();
  });
}

function start() {
  if (jobs.length === 0) return;
  if (!worker) {
    worker = new Worker(new URL("digest-worker.js", import.meta.url), { type: "module" });
    worker.addEventListener("message", ({ data }) => finish(data.digest ?? null));
    worker.addEventListener("error", () => finish(null));
  }
  worker.postMessage(jobs[0].file);
}

/** @param {string | null} digest */
function finish(digest) {
  jobs.shift()?.finish(digest);
  start();
}

/** @param {Job} job */
function stop(job) {
  const at = jobs.indexOf(job);
  if (at < 0) return;
  jobs.splice(at, 1);
  job.finish(null);
  if (at > 0) return;
  worker?.terminate(); // in the middle of the file
  worker = null;
  start();
}
