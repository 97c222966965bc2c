// How things are said of uploads. Everything here is a pure function.

import { Refusal } from "./api.js";
import { count, distance, exact, size, speed, text } from "./language.js";

/**
 * @typedef {import("./api.js").Upload} Upload
 * @typedef {import("./state.js").Send} Send
 */

/**
 * Why something is as it is.
 * @typedef {object} Cause
 * @property {string} text
 * @property {boolean} theirs whether it is the gateway's text, which is English
 */

/**
 * @param {string} time
 * @param {number} now
 */
function since(time, now) {
  const seconds = Math.max(0, now - Date.parse(time)) / 1000;
  return seconds < 10 ? text("justNow") : distance(-seconds);
}

/**
 * @param {string} time
 * @param {number} now
 */
function until(time, now) {
  const seconds = Math.ceil((Date.parse(time) - now) / 1000);
  return seconds > 0 ? text("nextAttempt", { when: distance(seconds) }) : text("nextAttemptNow");
}

const states = /** @type {const} */ (["receiving", "queued", "delivering", "waiting", "delivered", "failed", "cancelled"]);

/** @param {Upload} upload */
export const state = (upload) => (upload.held ? text("held") : states.includes(upload.state) ? text(upload.state) : upload.state);

/**
 * @param {Upload} upload
 * @param {number} now
 * @param {number} rate bytes that are delivered of it in a second; 0 if that is not known
 * @returns {string[]} what is worth knowing in this state
 */
export function facts(upload, now, rate) {
  const { progress, attempts } = upload;
  const total = size(upload.size ?? progress.total_bytes);
  switch (upload.state) {
    case "receiving":
      return [upload.size === null ? text("soFar", { size: size(progress.bytes) }) : text("sizeOf", { size: size(progress.bytes), total })];
    case "queued":
      return [total, text(upload.held ? "untilReleased" : "kept"), ...(attempts.next_at ? [until(attempts.next_at, now)] : [])];
    case "delivering":
      return [...(attempts.count > 1 ? [text("attempt", { n: attempts.count })] : []), phase(upload), total, ...pace(rate, progress.total_bytes - progress.bytes)];
    case "waiting":
      return [total, text("attempts", { n: attempts.count }), ...(upload.held ? [text("untilReleased")] : []), ...(attempts.next_at ? [until(attempts.next_at, now)] : [])];
    case "delivered":
      return [total, since(upload.delivered_at ?? upload.updated_at, now)];
    default:
      return [total, since(upload.updated_at, now)];
  }
}

/**
 * How fast something is, and when it will be through.
 * @param {number} rate bytes a second
 * @param {number} left bytes
 */
export function pace(rate, left) {
  return rate === 0 || left <= 0 ? [] : [speed(rate), text("doneIn", { when: distance(Math.max(1, Math.round(left / rate))) })];
}

/**
 * What is worth knowing of a file that this page sends.
 * @param {Send} send
 * @param {number} sent bytes
 * @param {string[]} pace
 * @param {boolean} silent whether the gateway does not answer
 * @param {number} now
 * @returns {string[]}
 */
export function sendFacts(send, sent, pace, silent, now) {
  if (send.hopeless) return [];
  const total = size(send.file.size);
  if (send.running) return [...(send.attempts > 1 ? [text("attempt", { n: send.attempts })] : []), text("sizeOf", { size: size(sent), total }), ...pace];
  if (send.problem || send.again === 0) return [total];
  const seconds = Math.ceil((send.again - now) / 1000);
  const when = silent ? text("againWhenBack") : seconds > 0 ? text("againAt", { when: distance(seconds) }) : text("againNow");
  return [total, text("attempts", { n: send.attempts }), when];
}

/** @param {Upload} upload */
function phase({ phase, progress }) {
  switch (phase) {
    case "connecting":
    case "keying":
    case "verifying":
      return text(phase);
    case "sending":
      return text("packet", { n: progress.packets, all: progress.total_packets });
    default:
      return text("starting");
  }
}

/**
 * Why an upload stands where it stands, or null.
 * @param {Upload} upload
 * @returns {Cause | null}
 */
export function reason(upload) {
  if (upload.state === "failed") return theirs(upload.error ?? upload.attempts.last_error ?? "");
  if (upload.state === "waiting" || upload.state === "queued") return theirs(upload.blocked ?? upload.attempts.last_error ?? "");
  return null;
}

/**
 * What is wrong with what the gateway received, or null.
 * @param {Upload} upload
 * @param {Comparison | undefined} comparison
 * @returns {Cause | null}
 */
export const difference = ({ name }, comparison) => (comparison === "differs" ? { text: text("differs", { name }), theirs: false } : null);

/**
 * The gateway's text as a sentence.
 * @param {string} text
 * @returns {Cause | null}
 */
export function theirs(text) {
  if (text === "") return null;
  const end = /[.!?]$/.test(text) ? "" : ".";
  return { text: text[0].toUpperCase() + text.slice(1) + end, theirs: true };
}

/**
 * What has happened to an upload, for those who cannot see it; "" if it is not
 * worth an interruption.
 * @param {Upload} upload
 */
export function news({ state, name }) {
  switch (state) {
    case "delivered":
      return text("isDelivered", { name });
    case "failed":
      return text("hasFailed", { name });
    case "waiting":
      return text("isWaiting", { name });
    default:
      return "";
  }
}

/**
 * Why something that was asked for did not happen.
 * @param {unknown} err
 * @returns {Cause}
 */
export function inWords(err) {
  if (!(err instanceof Refusal)) {
    console.error(err);
    return { text: String(err), theirs: true };
  }
  if (err.kind === "told") return { text: err.message, theirs: true };
  return { text: text(err.kind, { answer: err.message }), theirs: false };
}

/**
 * How what the gateway received compares to the file that was sent.
 * @typedef {"same" | "differs" | "unread"} Comparison
 */

/**
 * A line of what there is to know of an upload.
 * @typedef {object} Line
 * @property {string} term
 * @property {string} value
 * @property {boolean} words whether the value is in the page's language
 * @property {boolean} copied whether people may want to take it elsewhere
 * @property {boolean} listed whether the attempts are listed with it
 */

/**
 * All of an upload, for those who want to compare.
 * @param {Upload} upload
 * @param {Comparison | undefined} comparison if this page has sent it
 * @param {import("./api.js").Attempt[]} attempts as far as they are known
 * @returns {Line[]}
 */
export function details(upload, comparison, attempts) {
  /** @type {Line[]} */
  const lines = [];
  const add = (/** @type {import("./language.js").Key} */ key, /** @type {string | null} */ value, words = false, copied = false) => {
    if (value !== null) lines.push({ term: text(key), value, words, copied, listed: key === "attemptsMade" });
  };
  add("sha256", upload.sha256, false, true);
  add("cksum", upload.cksum === null ? null : `${upload.cksum} ${upload.size}`, false, true);
  if (comparison === "same" || comparison === "unread") add("compared", text(comparison), true);
  add("destination", upload.destination_name === "default" ? upload.destination : `${upload.destination_name} · ${upload.destination}`);
  add("attemptsMade", upload.attempts.count > 0 ? count(upload.attempts.count) : null, true);
  if (attempts.every((a) => a.error !== upload.attempts.last_error)) add("lastError", upload.attempts.last_error);
  add("labels", Object.keys(upload.labels).length === 0 ? null : Object.entries(upload.labels).map(([key, value]) => `${key}=${value}`).join(" "));
  add("sentAt", exact(upload.created_at), true);
  add("deliveredAt", upload.delivered_at === null ? null : exact(upload.delivered_at), true);
  add("id", upload.id, false, true);
  return lines;
}

/**
 * Whether uploads that follow on the list may be on the way as well.
 * @param {Upload[]} uploads
 * @param {boolean} more whether any follow
 */
function isOpen(uploads, more) {
  const last = uploads.at(-1);
  return more && last !== undefined && isMoving(last);
}

/**
 * How all stand together.
 * @param {Send[]} sends
 * @param {Upload[]} uploads
 * @param {boolean} more whether others follow on the list
 */
export function summary(sends, uploads, more) {
  const failed = uploads.filter((u) => u.state === "failed").length + sends.filter((s) => s.problem).length;
  const listed = new Set(uploads.map((u) => u.id));
  const moving = uploads.filter(isMoving).length + sends.filter((s) => !s.problem && !listed.has(s.id)).length;
  return [moving > 0 ? text(isOpen(uploads, more) ? "onTheWayAtLeast" : "onTheWay", { n: moving }) : "", failed > 0 ? text("failures", { n: failed }) : ""].filter(Boolean).join(" · ");
}

/**
 * How much of what is on the way, and of what was with it, is there already;
 * null if nothing is on the way, or nobody knows how much it is.
 * @param {Send[]} sends
 * @param {Upload[]} uploads
 * @param {number} done bytes that were delivered meanwhile
 * @param {boolean} more whether others follow on the list
 * @returns {{there: number, all: number} | null}
 */
export function total(sends, uploads, done, more) {
  const adopted = new Set(sends.map((s) => s.id));
  const moving = uploads.filter((u) => isMoving(u) && !adopted.has(u.id));
  const left = moving.map((u) => u.size ?? 0).concat(sends.filter((s) => !s.problem).map((s) => s.file.size));
  const all = left.reduce((sum, size) => sum + size, done);
  if (left.length === 0 || all === 0 || isOpen(uploads, more)) return null;
  return { there: done + moving.reduce((sum, u) => sum + there(u), 0), all };
}

/**
 * How many bytes count as done of a way that has not come to its end: however
 * many they are, something is missing until the other side says that it has all.
 * @param {number} bytes
 * @param {number} all
 */
export const almost = (bytes, all) => Math.min(bytes, Math.floor(all * 0.99));

/**
 * How many bytes of an upload on its way are delivered.
 * @param {Upload} upload
 */
export const there = ({ state, progress }) => (state === "receiving" ? 0 : almost(progress.bytes, progress.total_bytes));

/**
 * Whether an upload waits for an attempt.
 * @param {Upload} upload
 */
export const isWaiting = ({ state, held }) => (state === "queued" || state === "waiting") && !held;

/**
 * Whether an upload waits because its destination cannot be reached.
 * @param {Upload} upload
 */
export const isUnreached = (upload) => isWaiting(upload) && upload.blocked !== null && upload.attempts.next_at !== null;

/**
 * Whether an upload goes on without anybody doing anything.
 * @param {Upload} upload
 */
export const isMoving = ({ state }) => !["delivered", "failed", "cancelled"].includes(state);
