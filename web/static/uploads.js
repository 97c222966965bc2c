// What the gateway has, as its list, its answers and its events say it.

import { listAddress } from "./api.js";
import { tell } from "./say.js";
import { changed, noFilter, state } from "./state.js";
import { isMoving, isUnreached, isWaiting } from "./words.js";

/**
 * @typedef {import("./api.js").Upload} Upload
 * @typedef {import("./state.js").Send} Send
 */

/** How many uploads a list that grows by itself has, at most. */
export const mostByItself = 2000;

/** How many uploads are kept of it: more if more were asked for. */
let most = mostByItself;

/** @type {Map<string, {upload: Upload, at: number}>} what was learned of uploads since the list was asked for, and when */
const learned = new Map();

/** @type {Map<string, number>} by the id of an upload, until when it is not shown, whatever is said */
const hidden = new Map();

/**
 * Takes in what a list has, which was asked for at that time.
 * @param {Map<string, Upload>} seen by their ids
 * @param {number} asked
 */
export function list(seen, asked) {
  for (const [id, { upload, at }] of learned) {
    const listed = seen.get(id);
    // What was learned since then is newer, unless the list says otherwise.
    if (at >= asked && !(listed && isNewer(listed, upload))) seen.set(id, upload);
    else learned.delete(id);
  }
  merge([...seen.values()]);
  state.loaded = true;
}

/**
 * Takes in what follows on the list.
 * @param {Upload[]} more
 */
export function append(more) {
  const known = new Set(state.uploads.map((u) => u.id));
  most = Math.max(most, known.size + more.length);
  merge([...state.uploads, ...more.filter((u) => !known.has(u.id))], true);
}

/**
 * Takes in what an answer says of an upload, which may be older than what is
 * known already.
 * @param {Upload} upload
 */
export function learn(upload) {
  const known = state.uploads.find((u) => u.id === upload.id);
  if (!known || !isNewer(known, upload)) hear([upload]);
}

/** Whether the list is not of all uploads. */
export const isFiltered = () => state.filter !== noFilter;

/**
 * Takes in what events say, the latest last. What is further down the list than
 * what is shown stays there; what a filter lets through only the list says.
 * @param {Upload[]} uploads
 */
export function hear(uploads) {
  const known = new Map(state.uploads.map((u) => [u.id, u]));
  const oldest = state.next === "" ? "" : (state.uploads.at(-1)?.id ?? "");
  for (const upload of uploads) {
    if (!known.has(upload.id) && (isFiltered() || upload.id < oldest)) continue;
    known.set(upload.id, upload);
    learned.delete(upload.id); // so that the latest are the last
    learned.set(upload.id, { upload, at: performance.now() });
  }
  for (const id of learned.keys()) {
    if (learned.size <= most) break;
    learned.delete(id);
  }
  merge([...known.values()]);
  if (state.uploads.length <= most) return;
  state.uploads.length = most;
  state.next = listAddress(state.filter, state.uploads[most - 1].id);
}

/**
 * Whether what events say of uploads, before it is taken in, is about their
 * destinations as well: of others that wait there, which it holds for, no event
 * comes.
 * @param {Map<string, Upload>} told by their ids
 */
export function concernsOthers(told) {
  const known = new Map(state.uploads.map((u) => [u.id, u]));
  /** @type {Map<string, string | null>} by the name of a destination, why others wait for it */
  const blocked = new Map();
  for (const upload of told.values()) {
    const begins = upload.phase === "sending" && known.get(upload.id)?.phase !== "sending";
    if (begins || upload.state === "delivered") blocked.set(upload.destination_name, null);
    else if (isWaiting(upload)) blocked.set(upload.destination_name, upload.blocked);
  }
  return state.uploads.some((u) => isWaiting(u) && !told.has(u.id) && blocked.has(u.destination_name) && blocked.get(u.destination_name) !== u.blocked);
}

/**
 * Whether a destination was to be tried so many milliseconds ago, as far as is
 * known here: no event tells when it is tried next.
 * @param {number} ago
 * @param {number} now by the gateway's clock
 */
export const isOverdue = (ago, now) => state.uploads.some((u) => isUnreached(u) && now - Date.parse(u.attempts.next_at ?? "") > ago);

/** @param {string[]} ids */
export function forget(ids) {
  for (const id of ids) hidden.set(id, Infinity); // ids are never used again
  merge(state.uploads);
}

/**
 * Hides an upload for some milliseconds.
 * @param {string} id
 * @param {number} duration
 */
export function hide(id, duration) {
  hidden.set(id, performance.now() + duration);
  merge(state.uploads);
}

/**
 * Begins another list.
 * @param {Readonly<import("./state.js").Filter>} filter
 */
export function filterBy(filter) {
  state.filter = filter;
  state.uploads = [];
  state.next = "";
  state.loaded = false;
  learned.clear();
}

/** Nothing of what one visitor sees is left for the next one. */
export function forgetAll() {
  state.uploads = [];
  state.next = "";
  state.loaded = false;
  state.done = 0;
  for (const known of [state.notes, state.compared, state.attempts, state.rows, learned, hidden]) known.clear();
}

/**
 * Lets the upload with that id take over the row of a send.
 * @param {Send} send
 * @param {string} id
 */
export function adopt(send, id) {
  for (const other of state.sends) {
    if (other.id === id && other !== send) other.id = "";
  }
  if (send.id !== "") state.rows.delete(send.id);
  send.id = id;
  state.rows.set(id, send.key);
}

/**
 * @param {Upload} a
 * @param {Upload} b
 */
const isNewer = (a, b) => Date.parse(a.updated_at) > Date.parse(b.updated_at);

/** @type {(a: Upload, b: Upload) => number} */
const byTime = (a, b) => (a.id < b.id ? 1 : -1);

/** @type {(a: Upload, b: Upload) => number} */
const byName = (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : byTime(a, b));

/**
 * @param {Upload[]} uploads
 * @param {boolean} [old] whether those that were not known are no news
 */
function merge(uploads, old = false) {
  const before = new Map(state.uploads.map((u) => [u.id, u]));
  const newest = state.uploads[0]?.id ?? "";
  const now = performance.now();
  state.uploads = uploads.filter((u) => !(now < (hidden.get(u.id) ?? 0))).sort(state.filter.name === "" ? byTime : byName);
  const news = [];
  for (const upload of state.uploads) {
    if (upload.phase === "sending") state.rates.note(upload.id, upload.progress.bytes, now);
    else state.rates.forget(upload.id);
    const was = before.get(upload.id);
    if (was?.state === upload.state) continue;
    state.notes.delete(upload.id);
    if (was && upload.state === "delivered") state.done += upload.size ?? 0;
    // What was there before the page was opened is no news.
    if (state.loaded && (was || (!old && upload.id > newest))) news.push(upload);
  }
  if (!state.uploads.some(isMoving) && state.sends.every((s) => s.problem)) state.done = 0;
  tell(news);
  // Oldest first: this is the order in which they were sent.
  for (const upload of state.uploads.toReversed()) {
    if (upload.state === "receiving" && !state.rows.has(upload.id)) recognise(upload);
  }
  const ids = new Set(state.uploads.map((u) => u.id));
  for (const known of [state.notes, state.compared, state.attempts, state.rows]) {
    for (const id of known.keys()) if (!ids.has(id)) known.delete(id);
  }
  changed();
}

/**
 * Finds the send that an upload being received is the other end of, so that
 * they are not shown as two. Should it pick the wrong one of two that look the
 * same, the answer to the request puts that right.
 * @param {Upload} upload
 */
function recognise(upload) {
  const send = state.sends.find((s) => s.running && s.id === "" && s.name === upload.name && s.file.size === upload.size);
  if (send) adopt(send, upload.id);
}
