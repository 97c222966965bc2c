// Sends files to the gateway. One that is cut off while it is sent begins again
// by itself, from its beginning, as soon as the gateway answers.

import * as api from "./api.js";
import { digest, isSmall } from "./digest.js";
import { text } from "./language.js";
import { say } from "./say.js";
import { changed, state } from "./state.js";
import { adopt, hide, learn } from "./uploads.js";
import { inWords } from "./words.js";

/**
 * @typedef {import("./state.js").Send} Send
 * @typedef {import("./state.js").Terms} Terms
 */

/** How many files are sent at once; a browser opens six connections. */
const sendsAtOnce = 3;

/** How often a file is begun before somebody has to say that it is tried again. */
const attemptsAtMost = 12;

/** Milliseconds until a file that was cut off begins again: the first time, and at most. */
const pause = { first: 1000, most: 30_000 };

/** Milliseconds in which the gateway notices that a sender was cut off, and forgets what it has. */
const cutOff = 3000;

/** Where the tab keeps the names of what it had not sent when it was left. */
const unsentKey = "ferry-unsent";

/** How many of them. */
const unsentAtMost = 100;

let sendsMade = 0;

/**
 * What is called when the list is to be looked at, when something moves, and to
 * learn whether a failure means that the visitor is unknown.
 */
const on = { look: () => {}, moved: () => {}, isUnknown: (/** @type {unknown} */ _err) => false };

/** @param {typeof on} given */
export function begin(given) {
  Object.assign(on, given);
  for (const name of takeUnsent()) add({ file: new File([], name), name, terms: { labels: [], destination: "" }, problem: text("left") });
}

/**
 * @param {import("./choice.js").Chosen[]} files
 * @param {Terms} terms
 */
export function choose(files, terms) {
  for (const { file, name, problem } of files) add({ file, name, terms, problem: problem === "" ? "" : text(problem) });
  sendNext();
  changed();
}

/** @param {{file: File, name: string, terms: Terms, problem: string}} what */
function add({ file, name, terms, problem }) {
  const cause = problem === "" ? null : { text: problem, theirs: false };
  state.sends.push({ key: `send-${++sendsMade}`, file, name, terms, sent: 0, moved: 0, running: null, problem: cause, hopeless: cause !== null, attempts: 0, again: 0, id: "" });
  if (cause) say(text("wasNotSent", { name }), cause);
}

/** Begins with what may begin: nothing while the gateway does not answer. */
export function sendNext() {
  if (state.signIn || state.silent) return;
  let free = sendsAtOnce - state.sends.filter((s) => s.running).length;
  for (const send of state.sends) {
    if (free === 0) return;
    if (send.running || send.problem || send.again > performance.now()) continue;
    free--;
    run(send);
  }
}

/** @param {Send} send */
async function run(send) {
  send.running = new AbortController();
  send.attempts++;
  send.again = 0;
  send.moved = performance.now();
  on.moved();
  try {
    const { signal } = send.running;
    const ours = isSmall(send.file) ? await digest(send.file) : null;
    send.moved = performance.now();
    const upload = await api.send(send.file, send.name, send.terms, ours, signal, (sent) => {
      send.sent = sent;
      send.moved = performance.now();
      state.rates.note(send.key, sent, performance.now());
      changed();
    });
    adopt(send, upload.id);
    drop(send);
    learn(upload);
    compare(upload, send.file, ours);
  } catch (err) {
    if (send.running.signal.aborted) return;
    send.sent = 0;
    letGo(send);
    if (on.isUnknown(err)) return; // it waits until the gateway knows the visitor
    await fail(send, err);
  } finally {
    send.running = null;
    state.rates.forget(send.key);
    on.moved();
    sendNext();
    changed();
  }
}

/**
 * @param {Send} send
 * @param {unknown} err
 */
async function fail(send, err) {
  const passes = err instanceof api.Refusal && err.passes && send.attempts < attemptsAtMost;
  if (passes && (await isReadable(send.file))) {
    const wait = Math.min(pause.first * 2 ** (send.attempts - 1), pause.most);
    send.again = performance.now() + wait;
    setTimeout(sendNext, wait + 1);
    on.look();
    say(text("wasCut", { name: send.name }));
    return;
  }
  if (passes) send.problem = { text: text("unreadable"), theirs: false };
  else if (err instanceof api.Refusal && err.type === "/problems/mismatch") send.problem = { text: text("differs", { name: send.name }), theirs: false };
  else send.problem = inWords(err);
  say(text("wasNotSent", { name: send.name }), send.problem);
}

/**
 * Whether a file is still what was chosen.
 * @param {File} file
 */
async function isReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

/**
 * Parts a send from the upload that stood for it. Not for ever: it may have
 * been complete already.
 * @param {Send} send
 */
function letGo(send) {
  if (send.id === "") return;
  hide(send.id, cutOff);
  state.rows.delete(send.id);
  send.id = "";
  setTimeout(on.look, cutOff + 1);
}

/**
 * Compares what the gateway says it received with the file here. Of a large one
 * this comes after the sending, which it would slow down where both are fast, and
 * nothing waits for it.
 * @param {import("./api.js").Upload} upload
 * @param {File} file
 * @param {string | null} known the file's digest, if it was taken before
 */
async function compare({ id, name, sha256 }, file, known) {
  const ours = known ?? (await digest(file));
  const result = ours === null ? "unread" : ours === sha256 ? "same" : "differs";
  state.compared.set(id, result);
  if (result === "differs") say(text("differs", { name }));
  changed();
}

/** @param {Send} send */
function drop(send) {
  state.sends = state.sends.filter((s) => s !== send);
}

/** @param {Send} send */
export function cancelSend(send) {
  if (!send.problem) say(text("isCancelled", { name: send.name }));
  send.running?.abort();
  drop(send);
  letGo(send);
  changed();
}

/** Cancels what has not begun. */
export function cancelWaiting() {
  const begun = state.sends.filter((s) => s.running || s.problem);
  say(text("areCancelled", { n: state.sends.length - begun.length }));
  state.sends = begun;
  changed();
}

/** Ends all that is sent, and forgets it. */
export function endAll() {
  for (const send of state.sends) send.running?.abort();
  state.sends = [];
}

/**
 * @param {Send[]} sends
 * @param {Terms} terms
 */
export function resend(sends, terms) {
  for (const send of sends) Object.assign(send, { terms, problem: null, sent: 0, attempts: 0, again: 0 });
  sendNext();
  changed();
}

/** Whether leaving the page would end what is sent. */
export const isSending = () => state.sends.some((s) => !s.problem);

/** Milliseconds after which a file that is sent and does not move is a sign of trouble. */
const still = 5000;

/** Whether a file that is sent has not moved for a while: the gateway may be gone without a word. */
export const isStill = () => state.sends.some((s) => s.running && performance.now() - s.moved > still);

/** Notes the names of what is not sent, for when the page is loaded again. */
export function noteUnsent() {
  const names = state.sends.filter((s) => !s.problem).slice(0, unsentAtMost).map((s) => s.name);
  try {
    if (names.length > 0) sessionStorage.setItem(unsentKey, JSON.stringify(names));
  } catch {
    // The browser stores nothing: nobody is reminded.
  }
}

/** @returns {string[]} */
function takeUnsent() {
  try {
    const names = JSON.parse(sessionStorage.getItem(unsentKey) ?? "[]");
    sessionStorage.removeItem(unsentKey);
    return names;
  } catch {
    return [];
  }
}
