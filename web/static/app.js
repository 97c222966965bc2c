// The page's state, and what changes it. Whatever happens changes the state
// and asks for a rendering of it; view.js renders, and nothing else.

import * as api from "./api.js";
import { digest } from "./digest.js";
import { text } from "./language.js";
import { Rates } from "./rates.js";
import * as session from "./session.js";
import { View } from "./view.js";
import * as words from "./words.js";

/**
 * A file on its way from this page to the gateway.
 * @typedef {object} Send
 * @property {string} key of its row
 * @property {File} file
 * @property {string} name that it is sent under
 * @property {number} sent bytes
 * @property {AbortController | null} running null while it waits for its turn, or has failed
 * @property {Cause | null} problem why it was not taken
 * @property {boolean} hopeless whether trying again makes no sense
 * @property {string} id of the upload that the gateway shows for it meanwhile, or ""
 */

/**
 * @typedef {import("./api.js").Upload} Upload
 * @typedef {import("./words.js").Cause} Cause
 * @typedef {import("./words.js").Comparison} Comparison
 */

/** How many files are sent at once; a browser opens six connections. */
const sendsAtOnce = 3;

/** How many uploads are asked for at once, and shown at first. */
const page = 50;

/** Milliseconds between two looks at the list. */
const pace = { moving: 400, waiting: 1000, resting: 4000, troubled: 2500 };

const state = {
  /** @type {"wanted" | "refused" | "trying" | null} how far the visitor is with showing a token; null if the gateway needs none, or takes it */
  signIn: session.current() === "" ? null : "trying",
  /** Whether the gateway knows the visitor by a token. */
  signedIn: false,
  /** @type {Send[]} in the order in which they were chosen */
  sends: [],
  /** @type {Upload[]} newest first */
  uploads: [],
  /** How many of them are to be shown. */
  wanted: page,
  /** Whether the gateway has more. */
  more: false,
  /** Whether the list has ever come. */
  loaded: false,
  /** @type {Cause | null} why the list does not come */
  trouble: null,
  /** @type {Map<string, Cause>} by the id of an upload, why what was asked for it did not happen */
  notes: new Map(),
  /** @type {Map<string, Comparison>} by the id of an upload, how what the gateway received compares to the file */
  compared: new Map(),
  /** How fast sends, by their keys, and deliveries, by the ids of uploads, are. */
  rates: new Rates(),
  /** @type {Map<string, string>} by the id of an upload, the key of the row that it took over from a send */
  rows: new Map(),
};

/** @typedef {typeof state} State */

/** @type {Map<string, {upload: Upload, at: number}>} what answers other than the list said of uploads, and when */
const learned = new Map();

/** @type {Map<string, number>} by the id of an upload, until when it is not shown, whatever the list says */
const hidden = new Map();

/** Milliseconds in which the gateway notices that a sender was cut off, and forgets what it has. */
const cutOff = 3000;

const view = new View({ choose, cancelSend, cancelWaiting, resend, remove, retry, saveReceipt, showMore, signIn, signOut });

let rendering = 0;

/** Renders once before the next frame, however often it is called. */
function changed() {
  rendering ||= requestAnimationFrame(() => {
    rendering = 0;
    view.render(state, Date.now());
  });
}

// Sending.

let sendsMade = 0;

/** @param {import("./choice.js").Chosen[]} files */
function choose(files) {
  for (const { file, name, empty } of files) {
    const problem = empty ? { text: text("folder"), theirs: false } : null;
    state.sends.push({ key: `send-${++sendsMade}`, file, name, sent: 0, running: null, problem, hopeless: empty, id: "" });
    if (problem) view.say(text("wasNotSent", { name }), problem);
  }
  sendNext();
  changed();
}

function sendNext() {
  if (state.signIn) return;
  let free = sendsAtOnce - state.sends.filter((s) => s.running).length;
  for (const send of state.sends) {
    if (free === 0) return;
    if (send.running || send.problem) continue;
    free--;
    run(send);
  }
}

/** @param {Send} send */
async function run(send) {
  send.running = new AbortController();
  look();
  try {
    const upload = await api.send(send.file, send.name, send.running.signal, (sent) => {
      send.sent = sent;
      state.rates.note(send.key, sent, performance.now());
      changed();
    });
    adopt(send, upload.id);
    drop(send);
    learn(upload);
    compare(upload, send.file);
  } catch (err) {
    if (send.running.signal.aborted) return;
    if (isUnknown(err)) {
      send.sent = 0; // it waits until the gateway knows the visitor
      return;
    }
    send.problem = inWords(err);
    view.say(text("wasNotSent", { name: send.name }), send.problem);
  } finally {
    send.running = null;
    state.rates.forget(send.key);
    sendNext();
    look();
    changed();
  }
}

/**
 * Compares what the gateway says it received with the file here. This comes
 * after the sending, which it would slow down where both are fast, and nothing
 * waits for it.
 * @param {Upload} upload
 * @param {File} file
 */
async function compare({ id, name, sha256 }, file) {
  const ours = await digest(file);
  const result = ours === null ? "unread" : ours === sha256 ? "same" : "differs";
  state.compared.set(id, result);
  if (result === "differs") view.say(text("differs", { name }));
  changed();
}

/**
 * Lets the upload with that id take over the row of a send.
 * @param {Send} send
 * @param {string} id
 */
function adopt(send, id) {
  for (const other of state.sends) {
    if (other.id === id && other !== send) other.id = "";
  }
  if (send.id !== "") state.rows.delete(send.id);
  send.id = id;
  state.rows.set(id, send.key);
}

/** @param {Send} send */
function drop(send) {
  state.sends = state.sends.filter((s) => s !== send);
}

/** @param {Send} send */
function cancelSend(send) {
  if (!send.problem) view.say(text("isCancelled", { name: send.name }));
  // Not for ever: it may have been complete already.
  if (send.id !== "") hidden.set(send.id, performance.now() + cutOff);
  send.running?.abort();
  drop(send);
  merge(state.uploads);
}

/** Cancels what has not begun. */
function cancelWaiting() {
  const begun = state.sends.filter((s) => s.running || s.problem);
  view.say(text("areCancelled", { n: state.sends.length - begun.length }));
  state.sends = begun;
  changed();
}

/** @param {Send} send */
function resend(send) {
  Object.assign(send, { problem: null, sent: 0 });
  sendNext();
  changed();
}

// What the gateway has.

/** @param {Upload} upload */
function learn(upload) {
  learned.set(upload.id, { upload, at: performance.now() });
  merge([...state.uploads.filter((u) => u.id !== upload.id), upload]);
}

/** @param {Upload[]} uploads */
function merge(uploads) {
  const before = new Map(state.uploads.map((u) => [u.id, u]));
  const newest = state.uploads[0]?.id ?? "";
  const now = performance.now();
  state.uploads = uploads.filter((u) => !(now < (hidden.get(u.id) ?? 0))).sort((a, b) => (a.id < b.id ? 1 : -1));
  const news = [];
  for (const upload of state.uploads) {
    if (upload.phase === "sending") state.rates.note(upload.id, upload.progress.bytes, now);
    else state.rates.forget(upload.id);
    const was = before.get(upload.id);
    if (was?.state === upload.state) continue;
    state.notes.delete(upload.id);
    // What was there before the page was opened is no news, nor what "Show more" shows.
    if (state.loaded && (was || upload.id > newest)) news.push(upload);
  }
  tell(news);
  // Oldest first: this is the order in which they were sent.
  for (const upload of state.uploads.toReversed()) {
    if (upload.state === "receiving" && !state.rows.has(upload.id)) recognise(upload);
  }
  const ids = new Set(state.uploads.map((u) => u.id));
  for (const known of [state.notes, state.compared, state.rows]) {
    for (const id of known.keys()) if (!ids.has(id)) known.delete(id);
  }
  changed();
}

let untold = 0;

/**
 * Tells those who cannot see the page what uploads have come to: of many that
 * are delivered, how many, and that every few seconds.
 * @param {Upload[]} uploads
 */
function tell(uploads) {
  const delivered = uploads.filter((u) => u.state === "delivered");
  const many = delivered.length > 3;
  if (many) {
    if (untold === 0) setTimeout(tellDelivered, 5000);
    untold += delivered.length;
  }
  for (const upload of uploads) {
    if (!many || upload.state !== "delivered") view.say(words.news(upload), words.reason(upload));
  }
}

function tellDelivered() {
  view.say(text("areDelivered", { n: untold }));
  untold = 0;
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

/** @param {string} id */
async function remove(id) {
  await act(id, async () => {
    const upload = await api.remove(id);
    if (upload === null) {
      forget(id);
      return;
    }
    learn(upload);
    if (upload.state === "cancelled") view.say(text("isCancelled", { name: upload.name }));
  });
}

/** @param {string} id */
function forget(id) {
  hidden.set(id, Infinity); // ids are never used again
  merge(state.uploads);
}

/** @param {string} id */
async function retry(id) {
  await act(id, async () => learn(await api.retry(id)));
}

/**
 * @param {string} id
 * @param {() => Promise<void>} action
 */
async function act(id, action) {
  try {
    await action();
    state.notes.delete(id);
  } catch (err) {
    if (isUnknown(err)) return;
    const problem = inWords(err);
    state.notes.set(id, problem);
    view.say("", problem);
    if (err instanceof api.Refusal && err.status === 404) forget(id);
  }
  look();
  changed();
}

/** @param {Upload} upload */
async function saveReceipt(upload) {
  await act(upload.id, async () => view.save(await api.receiptFile(upload)));
}

function showMore() {
  state.wanted += page;
  look();
}

// Who the visitor is.

/** @param {string} token */
function signIn(token) {
  session.keep(token);
  state.signIn = "trying";
  look();
  changed();
}

function signOut() {
  for (const send of state.sends) send.running?.abort();
  state.sends = [];
  forgetVisitor();
  state.signIn = "wanted";
  view.say(text("signedOut"));
  look(); // a gateway may need no token
}

/** The gateway has answered, and so lets the visitor in. */
function letIn() {
  if (state.signIn && session.current() !== "") view.say(text("signedIn"));
  state.signIn = null;
  state.signedIn = session.current() !== "";
  sendNext();
}

/**
 * Whether a request failed because the gateway does not know the visitor. If
 * so, the page asks for a token, unless it has another one by now.
 * @param {unknown} err
 */
function isUnknown(err) {
  if (!(err instanceof api.Refusal) || err.status !== 401) return false;
  if (err.token !== session.current()) return true;
  const problem = err.token === "" ? null : "refused";
  forgetVisitor();
  // That a token was refused stays said until there is another one.
  state.signIn = problem ?? (state.signIn === "refused" ? "refused" : "wanted");
  if (problem) view.say(text("tokenRefused"));
  changed();
  return true;
}

/** Nothing of what one visitor sees is left for the next one. */
function forgetVisitor() {
  session.keep("");
  state.signedIn = false;
  state.loaded = false;
  state.more = false;
  state.wanted = page;
  state.trouble = null;
  state.uploads = [];
  for (const known of [state.notes, state.compared, state.rows, learned, hidden]) known.clear();
  for (const send of state.sends) send.id = "";
}

/**
 * @param {unknown} err
 * @returns {Cause}
 */
function inWords(err) {
  if (!(err instanceof api.Refusal)) {
    console.error(err);
    return { text: String(err), theirs: true };
  }
  if (err.kind === "told") return { text: err.message, theirs: true };
  return { text: text(err.kind, { answer: err.message }), theirs: false };
}

// Looking: at most one look at a time, none while nobody sees the page.

let looking = false;
let again = false;
let timer = 0;

/** Looks at the list now, or as soon as the present look is over. */
function look() {
  clearTimeout(timer);
  again = looking;
  if (looking || document.hidden) return;
  looking = true;
  refresh().finally(() => {
    looking = false;
    // Until there is a token, the answer stays the same.
    if (again || !isOut()) timer = setTimeout(look, again ? 100 : interval());
    again = false;
    changed();
  });
}

const isOut = () => state.signIn === "wanted" || state.signIn === "refused";

async function refresh() {
  const started = performance.now();
  /** @type {Map<string, Upload>} */
  const seen = new Map();
  try {
    let more = true;
    let last;
    while (more && seen.size < state.wanted) {
      const answer = await api.list(page, last);
      for (const upload of answer.uploads) seen.set(upload.id, upload);
      last = answer.uploads.at(-1)?.id;
      more = answer.more && last !== undefined;
    }
    state.more = more;
    state.trouble = null;
    letIn();
  } catch (err) {
    if (isUnknown(err)) return;
    const problem = inWords(err);
    if (state.trouble?.text !== problem.text) view.say("", problem);
    state.trouble = problem;
    return;
  }
  for (const [id, { upload, at }] of learned) {
    const listed = seen.get(id);
    // What was learned since the look began is newer, unless the list says otherwise.
    if (at >= started && !(listed && Date.parse(listed.updated_at) > Date.parse(upload.updated_at))) seen.set(id, upload);
    else learned.delete(id);
  }
  merge([...seen.values()]);
  state.loaded = true;
}

function interval() {
  if (state.trouble) return pace.troubled;
  const moving = state.uploads.filter(words.isMoving);
  if (state.sends.some((s) => s.running) || moving.some((u) => u.state !== "waiting")) return pace.moving;
  return moving.length > 0 ? pace.waiting : pace.resting;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});

window.addEventListener("beforeunload", (event) => {
  if (state.sends.some((s) => !s.problem)) event.preventDefault();
});

look();
