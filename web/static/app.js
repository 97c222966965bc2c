// The page's beginning: what it asks the gateway for, and when, and who the
// visitor is.

import * as api from "./api.js";
import { standing } from "./attempts.js";
import { text } from "./language.js";
import { Live } from "./live.js";
import { say } from "./say.js";
import * as sending from "./sending.js";
import * as session from "./session.js";
import { changed, page, renderBy, state } from "./state.js";
import * as uploads from "./uploads.js";
import { View } from "./view.js";
import { inWords, isMoving } from "./words.js";

/** @typedef {import("./api.js").Upload} Upload */

/** How many uploads the gateway lists at once, at most. */
const pageAtMost = 500;

/** Milliseconds between two looks at the list where no events come. */
const pace = { moving: 400, waiting: 1000, resting: 4000, troubled: 2000 };

const { choose, cancelSend, cancelWaiting, resend } = sending;
const view = new View({ choose, cancelSend, cancelWaiting, resend, remove, control, retryFailed, saveReceipt, learnAttempts, showMore, filterBy, signIn, signOut });
const live = new Live(look, happened);

// What is asked of the gateway.

/** @param {string} id */
async function remove(id) {
  await act(id, async () => {
    const upload = await api.remove(id);
    if (upload === null) {
      uploads.forget([id]);
      return;
    }
    uploads.learn(upload);
    if (upload.state === "cancelled") say(text("isCancelled", { name: upload.name }));
  });
}

/**
 * @param {string} id
 * @param {"retry" | "hold" | "release"} action
 */
async function control(id, action) {
  await act(id, async () => uploads.learn(await api.control(id, action)));
}

/**
 * Tries again all that failed and is known here.
 * @param {import("./state.js").Terms} terms of what is sent again
 */
async function retryFailed(terms) {
  sending.resend(state.sends.filter((s) => s.problem && !s.hopeless), terms);
  const ids = state.uploads.filter((u) => u.state === "failed").map((u) => u.id);
  try {
    for (let i = 0; i < ids.length; i += api.retriesAtMost) {
      for (const upload of await api.retryAll(ids.slice(i, i + api.retriesAtMost))) uploads.learn(upload);
    }
  } catch (err) {
    if (!isUnknown(err)) notice(err);
  }
  look();
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
    say("", problem);
    if (err instanceof api.Refusal && err.status === 404) uploads.forget([id]);
  }
  look();
  changed();
}

/** @param {Upload} upload */
async function saveReceipt(upload) {
  await act(upload.id, async () => view.save(await api.receiptFile(upload)));
}

/** @type {Set<string>} the ids of uploads whose attempts are being asked for */
const asking = new Set();

/**
 * Asks for an upload's attempts, unless what is known of them is of how it stands.
 * @param {Upload} upload
 */
async function learnAttempts(upload) {
  const { id } = upload;
  const of = standing(upload);
  const known = state.attempts.get(id);
  if (asking.has(id) || (known?.of === of && !(known.problem && performance.now() >= known.again))) return;
  asking.add(id);
  const token = session.current();
  let list = known?.list ?? [];
  let problem = null;
  try {
    list = await api.attempts(id);
  } catch (err) {
    if (!isUnknown(err)) problem = inWords(err);
  }
  asking.delete(id);
  if (token !== session.current()) return;
  state.attempts.set(id, { of, list, problem, again: performance.now() + pace.resting });
  changed();
}

/** Shows as many more as are shown, also if the list comes anew meanwhile. */
async function showMore() {
  const token = session.current();
  const { filter } = state;
  const wanted = state.uploads.length + Math.min(Math.max(state.uploads.length, page), pageAtMost);
  try {
    while (state.next !== "" && state.uploads.length < wanted) {
      const from = state.next;
      const { uploads: more, next } = await api.list(from, Math.min(wanted - state.uploads.length, pageAtMost));
      if (token !== session.current() || filter !== state.filter) return; // it is another list
      if (state.next !== from) continue;
      state.next = next;
      uploads.append(more);
    }
  } catch (err) {
    if (!isUnknown(err)) notice(err);
  }
  changed();
}

/** @param {Readonly<import("./state.js").Filter>} filter */
function filterBy(filter) {
  uploads.filterBy(filter);
  look();
  changed();
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
  sending.endAll();
  forgetVisitor();
  state.signIn = "wanted";
  say(text("signedOut"));
  look(); // a gateway may need no token
}

/** The gateway has answered, and so lets the visitor in. */
function letIn() {
  if (state.signIn && session.current() !== "") say(text("signedIn"));
  state.trouble = null;
  state.silent = false;
  state.signIn = null;
  state.signedIn = session.current() !== "";
  live.start();
  sending.sendNext();
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
  if (problem) say(text("tokenRefused"));
  changed();
  return true;
}

/** Nothing of what one visitor sees is left for the next one. */
function forgetVisitor() {
  live.stop();
  session.keep("");
  state.signedIn = false;
  state.trouble = null;
  state.silent = false;
  uploads.forgetAll();
  for (const send of state.sends) send.id = "";
}

// Looking: one look at a time, whenever something may have changed that no
// event tells; none while nobody sees the page and nothing waits to be sent.

let looking = false;
let again = false;
let timer = 0;

const isIdle = () => document.hidden && !sending.isSending();

/** Looks at the list now, or as soon as the present look is over. */
function look() {
  clearTimeout(timer);
  again = looking;
  if (looking || isIdle()) return;
  looking = true;
  refresh().finally(() => {
    looking = false;
    // Until there is a token, the answer stays the same.
    if (again) timer = setTimeout(look, 100);
    else if (!isOut() && (!live.is || state.silent)) timer = setTimeout(look, interval());
    again = false;
    changed();
  });
}

const isOut = () => state.signIn === "wanted" || state.signIn === "refused";

async function refresh() {
  const asked = performance.now();
  const token = session.current();
  const { filter } = state;
  /** @type {Map<string, Upload>} */
  const seen = new Map();
  const wanted = () => Math.max(page, state.uploads.length); // which "Show more" raises meanwhile
  let from = api.listAddress(filter);
  try {
    do {
      const left = wanted() - seen.size;
      const answer = await api.list(from, left > 0 ? Math.min(left, pageAtMost) : pageAtMost);
      for (const upload of answer.uploads) seen.set(upload.id, upload);
      from = answer.next;
      if (token !== session.current() || filter !== state.filter) return; // it is another list
    } while (from !== "" && (seen.size < wanted() || goesOn(seen)));
  } catch (err) {
    if (!isUnknown(err)) notice(err);
    return;
  }
  state.next = from;
  if (!state.loaded || state.trouble) void learnDestinations();
  letIn();
  uploads.list(seen, asked);
}

/**
 * Whether a list is to go on, so that what is on the way can be counted.
 * @param {Map<string, Upload>} seen
 */
function goesOn(seen) {
  const last = [...seen.values()].at(-1);
  return last !== undefined && isMoving(last) && seen.size < uploads.mostByItself;
}

/** Asks where uploads may go: a gateway that has started again may have others. */
async function learnDestinations() {
  try {
    state.destinations = await api.destinations();
  } catch (err) {
    if (!isUnknown(err)) notice(err);
  }
  changed();
}

/**
 * Notes why the list does not come.
 * @param {unknown} err
 */
function notice(err) {
  const problem = inWords(err);
  if (state.trouble?.text !== problem.text) say("", problem);
  state.trouble = problem;
  state.silent = !(err instanceof api.Refusal && err.isOfRequest);
  sending.sendNext();
}

function interval() {
  if (state.silent) return pace.troubled;
  const moving = state.uploads.filter(isMoving);
  const rest = state.sends.some((s) => s.running) || moving.some((u) => u.state !== "waiting") ? pace.moving : moving.length > 0 ? pace.waiting : pace.resting;
  return rest + state.uploads.length; // long lists take long
}

let soon = 0;

/** Looks at the list before long, however often it is called. */
function lookSoon() {
  soon ||= setTimeout(() => {
    soon = 0;
    look();
  }, pace.waiting);
}

let overdue = 0;

/** Learns when destinations that cannot be reached are tried next, should no event have come of the last time. */
function lookIfOverdue() {
  if (performance.now() < overdue || !uploads.isOverdue(pace.troubled, api.now())) return;
  overdue = performance.now() + pace.resting + state.uploads.length;
  look();
}

/** @param {import("./api.js").Happening[]} happenings */
function happened(happenings) {
  /** @type {Map<string, Upload>} */
  const told = new Map();
  const gone = [];
  for (const happening of happenings) {
    if ("upload" in happening) told.set(happening.upload.id, happening.upload);
    else if ("id" in happening) gone.push(happening.id);
  }
  if (told.size > 0 && (uploads.isFiltered() || uploads.concernsOthers(told))) lookSoon();
  if (told.size > 0) uploads.hear([...told.values()]);
  if (gone.length > 0) uploads.forget(gone);
}

document.addEventListener("visibilitychange", () => {
  if (isIdle()) live.stop();
  else look();
});

window.addEventListener("online", look);

window.addEventListener("beforeunload", (event) => {
  if (sending.isSending()) event.preventDefault();
});

window.addEventListener("pagehide", sending.noteUnsent);

// "2 minutes ago" becomes 3.
setInterval(() => {
  if (isIdle()) live.stop();
  if (sending.isStill()) lookSoon();
  if (live.is) lookIfOverdue();
  if (!document.hidden) changed();
}, 1000);

renderBy(() => view.render(state, api.now()));
sending.begin({ look, moved: () => live.is || look(), isUnknown });
look();
