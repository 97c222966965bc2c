// How an upload's attempts are said and shown.

import { count, duration, exact, isolate, size, text } from "./language.js";
import { setCause } from "./say.js";
import { theirs } from "./words.js";

/**
 * @typedef {import("./api.js").Upload} Upload
 * @typedef {import("./api.js").Attempt} Attempt
 * @typedef {import("./words.js").Cause} Cause
 */

/**
 * What is known of the attempts of an upload whose details are open.
 * @typedef {object} Known
 * @property {string} of how the upload stood when they were asked for
 * @property {Attempt[]} list
 * @property {Cause | null} problem why the list is not there, or is old
 * @property {number} again when they are asked for again after a problem, on the clock of performance.now
 */

/**
 * @typedef {object} Line
 * @property {string} number
 * @property {string[]} facts
 * @property {string} to where it went, if that is elsewhere than the upload says
 * @property {Cause | null} cause
 */

/**
 * What changes when an attempt begins or ends.
 * @param {Upload} upload
 */
export const standing = ({ state, attempts, updated_at }) => `${state} ${attempts.count} ${updated_at}`;

const outcomes = /** @type {const} */ ({ delivered: "delivered", failed: "failed", postponed: "undelivered", cancelled: "cancelled", interrupted: "interrupted" });

/**
 * @param {Upload} upload
 * @param {Known | undefined} known
 * @returns {Line[]}
 */
export function lines(upload, known) {
  /** @type {Line[]} */
  const all = [];
  let last = 0;
  for (const attempt of known?.list ?? []) {
    const missing = attempt.number - last - 1;
    if (missing > 0) all.push(unlisted(missing));
    last = attempt.number;
    all.push({
      number: count(attempt.number),
      facts: facts(attempt, upload),
      to: attempt.destination === upload.destination ? "" : attempt.destination,
      cause: theirs(attempt.error ?? ""),
    });
  }
  const missing = known?.of === standing(upload) && last > 0 ? upload.attempts.count - last : 0;
  if (missing > 0) all.push(unlisted(missing));
  if (known?.problem) all.push({ number: "", facts: [], to: "", cause: known.problem });
  return all;
}

/**
 * @param {number} n
 * @returns {Line}
 */
const unlisted = (n) => ({ number: "", facts: [text("unlisted", { n })], to: "", cause: null });

/**
 * @param {Attempt} attempt
 * @param {Upload} upload
 */
function facts({ began_at, ended_at, outcome, bytes, resumed_from }, upload) {
  const total = upload.size ?? 0;
  const all = [exact(began_at), outcome === null ? text("delivering") : Object.hasOwn(outcomes, outcome) ? text(outcomes[outcome]) : outcome];
  if (ended_at !== null) all.push(text("took", { time: duration((Date.parse(ended_at) - Date.parse(began_at)) / 1000) }));
  if (resumed_from !== null && resumed_from > 0 && resumed_from < total) all.push(text("resumed", { size: size(resumed_from) }));
  // How far one is that runs, the bar shows.
  if (outcome !== null && bytes !== null && bytes > 0 && bytes < total) all.push(text("sizeOf", { size: size(bytes), total: size(total) }));
  return all;
}

/**
 * Shows lines in a list at the end of a node, which has none if there are none.
 * @param {Element} node
 * @param {Line[]} lines
 */
export function show(node, lines) {
  let list = node.querySelector("ol");
  if (lines.length === 0) {
    list?.remove();
    return;
  }
  list ??= node.appendChild(newList());
  while (list.children.length > lines.length) list.lastElementChild?.remove();
  for (const [i, { number, facts, to, cause }] of lines.entries()) {
    const [n, said, where, why] = /** @type {Iterable<HTMLElement>} */ ((list.children[i] ?? list.appendChild(newLine())).children);
    set(n, number);
    set(said, facts.map(isolate).join(" · "));
    set(where, to);
    setCause(why, cause);
    why.hidden = cause === null;
  }
}

/**
 * @param {HTMLElement} node
 * @param {string} text
 */
function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
  node.hidden = text === "";
}

function newList() {
  const list = document.createElement("ol");
  list.className = "attempts";
  list.setAttribute("role", "list"); // some browsers take one without markers for none
  return list;
}

function newLine() {
  const line = document.createElement("li");
  for (const [tag, name] of [["span", "number"], ["span", "said"], ["bdi", "where"], ["p", "why"]]) {
    line.appendChild(document.createElement(tag)).className = name;
  }
  line.querySelector("bdi")?.setAttribute("translate", "no");
  return line;
}
