// Renders the page's state, and turns what people do into calls of actions.
// Rows are kept and changed in place, so that focus, selection and opened
// details stay where they are; those far from what is seen have their names
// alone. Names and messages only ever become text.

import { address, receipt } from "./api.js";
import * as attempts from "./attempts.js";
import { chosen, dropped, pasted } from "./choice.js";
import { say, setCause } from "./say.js";
import * as session from "./session.js";
import { exact, isolate, size, text, translateDocument, unturned } from "./language.js";
import { noFilter } from "./state.js";
import * as words from "./words.js";

/**
 * @typedef {import("./state.js").State} State
 * @typedef {import("./state.js").Send} Send
 * @typedef {import("./state.js").Terms} Terms
 * @typedef {import("./api.js").Upload} Upload
 * @typedef {import("./words.js").Cause} Cause
 * @typedef {import("./language.js").Key} Key
 */

/**
 * @typedef {object} Actions
 * @property {(files: import("./choice.js").Chosen[], terms: Terms) => void} choose
 * @property {(send: Send) => void} cancelSend
 * @property {() => void} cancelWaiting
 * @property {(sends: Send[], terms: Terms) => void} resend
 * @property {(id: string) => void} remove
 * @property {(id: string, action: "retry" | "hold" | "release") => void} control
 * @property {(terms: Terms) => void} retryFailed
 * @property {(upload: Upload) => void} saveReceipt
 * @property {(upload: Upload) => void} learnAttempts
 * @property {() => void} showMore
 * @property {(filter: Readonly<import("./state.js").Filter>) => void} filterBy
 * @property {(token: string) => void} signIn
 * @property {() => void} signOut
 */

/**
 * What a row shows.
 * @typedef {object} Item
 * @property {string} key
 * @property {string} name
 * @property {string} tone
 * @property {string} state
 * @property {string[]} facts
 * @property {string} exact when that was, or ""
 * @property {string} receipt its address, or ""
 * @property {() => void} saveReceipt
 * @property {Cause | null} reason
 * @property {[number, number] | null} received of how much, or null
 * @property {[number, number] | null} delivered of how much, or null
 * @property {import("./words.js").Line[]} details
 * @property {() => import("./attempts.js").Line[]} attempts asks for them as well
 * @property {"cancel" | "remove"} removeVerb
 * @property {() => void} remove
 * @property {"retry" | "retryNow" | null} retryVerb null if that is not possible
 * @property {() => void} retry
 * @property {"hold" | "release" | null} holdVerb null if that is not possible
 * @property {() => void} hold
 */

/**
 * A row that is to be: what it shows is made only where it is seen.
 * @typedef {{key: string, name: string, make: () => Item}} Entry
 */

const icons = {
  moving: "M8 2.5v10M4 9l4 4 4-4",
  waiting: "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8zM8 4.5V8l2.5 1.7",
  delivered: "M3 8.6l3.3 3.3L13 4.8",
  failed: "M8 2.8v6.4M8 12.4v.6",
  cancelled: "M4 4l8 8M12 4l-8 8",
};

/** How many of the files that have not begun have a row: the next ones. */
const nextAtMost = 5;

/** How many rows, from the top, are filled as they come. */
const topRows = 10;

/**
 * @template {Element} T
 * @param {ParentNode} parent
 * @param {string} selector
 * @param {new () => T} type
 * @returns {T}
 */
function find(parent, selector, type) {
  const found = parent.querySelector(selector);
  if (!(found instanceof type)) throw new Error(`the page has no ${selector}`);
  return found;
}

/** @param {string} selector */
const element = (selector) => find(document, selector, HTMLElement);

/**
 * Shows a line or not; the focus does not vanish with it.
 * @param {string} selector
 * @param {boolean} shown
 */
function show(selector, shown) {
  const line = element(selector);
  if (!shown && line.contains(document.activeElement)) element("#uploads-title").focus();
  line.hidden = !shown;
}

/**
 * What is chosen for the files that come next.
 * @returns {Terms}
 */
const terms = () => ({
  labels: find(document, "#labels", HTMLInputElement).value.split(/[\s,]+/).filter(Boolean),
  destination: find(document, "#destination", HTMLSelectElement).value,
});

/**
 * Offers a choice of destinations where there is one.
 * @param {string[]} names
 */
function offer(names) {
  const choice = find(document, "#destination", HTMLSelectElement);
  const offered = [...choice.options].map((o) => o.value);
  if (offered.length === names.length && offered.every((name, i) => name === names[i])) return;
  const { value } = choice;
  choice.replaceChildren(...names.map((name) => new Option(name, name)));
  choice.value = names.includes(value) ? value : (names[0] ?? "");
  element("#destination-line").hidden = names.length < 2;
}

/**
 * Sets text only where it differs: a selection in it survives.
 * @param {Element} node
 * @param {string} text
 */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Says in one word what the node is, and of which file for those who hear it alone.
 * @param {HTMLElement} node
 * @param {"receipt" | "details" | "cancel" | "remove" | "retry" | "retryNow" | "hold" | "release"} key
 * @param {string} name
 */
function setVerb(node, key, name) {
  setText(node, text(key));
  setName(node, text(`${key}Of`, { name }));
}

/**
 * @param {HTMLElement} node
 * @param {string} name
 */
function setName(node, name) {
  if (node.ariaLabel !== name) node.ariaLabel = name;
}

/** One row of the list: its name, and all else while it is near. */
class Row {
  node = document.createElement("li");
  /** @type {Content | null} while it is near */
  content = null;
  #template;
  #title = document.createElement("h3");
  #name = document.createElement("bdi");

  /** @param {HTMLTemplateElement} template */
  constructor(template) {
    this.#template = template;
    this.node.className = "row far";
    this.#title.className = "name";
    this.#title.translate = false;
    this.#title.append(this.#name);
    this.node.append(this.#title);
  }

  /** @param {string} name */
  rename(name) {
    setText(this.#name, unturned(name));
  }

  /** @param {Item} item */
  render(item) {
    if (!this.content) {
      this.content = new Content(this.#template);
      this.node.append(this.content.fragment);
      find(this.node, ".what", HTMLElement).prepend(this.#title);
      this.node.classList.remove("far");
    }
    this.node.dataset.tone = item.tone;
    this.content.render(item);
  }

  /** Leaves the name alone, unless somebody is busy with the rest. */
  clear() {
    if (!this.content || this.content.details.open || this.node.contains(document.activeElement)) return;
    this.content = null;
    this.node.replaceChildren(this.#title);
    this.node.classList.add("far");
  }
}

/** What a row has beside its name. */
class Content {
  /** @param {HTMLTemplateElement} template */
  constructor(template) {
    const copy = this.fragment = document.importNode(template.content, true);
    this.icon = find(copy, "path", SVGPathElement);
    this.state = find(copy, ".state strong", HTMLElement);
    this.facts = find(copy, ".facts", HTMLElement);
    this.receipt = find(copy, ".receipt", HTMLAnchorElement);
    this.reason = find(copy, ".reason", HTMLElement);
    this.bars = find(copy, ".bars", HTMLElement);
    this.in = find(copy, ".in", HTMLProgressElement);
    this.out = find(copy, ".out", HTMLProgressElement);
    this.details = find(copy, "details", HTMLDetailsElement);
    this.summary = find(copy, "summary", HTMLElement);
    this.list = find(copy, "dl", HTMLDListElement);
    this.retry = find(copy, ".retry", HTMLButtonElement);
    this.hold = find(copy, ".hold", HTMLButtonElement);
    this.remove = find(copy, ".remove", HTMLButtonElement);
    /** @type {Item | undefined} */
    this.item = undefined;
    this.receipt.addEventListener("click", (event) => {
      // A link shows no token.
      if (session.current() === "") return;
      event.preventDefault();
      this.item?.saveReceipt();
    });
    this.retry.addEventListener("click", () => this.item?.retry());
    this.hold.addEventListener("click", () => this.item?.hold());
    this.remove.addEventListener("click", () => this.item?.remove());
    this.details.addEventListener("toggle", () => this.#renderDetails());
  }

  /** @param {Item} item */
  render(item) {
    this.item = item;
    const shape = icons[/** @type {keyof typeof icons} */ (item.tone)];
    if (this.icon.getAttribute("d") !== shape) this.icon.setAttribute("d", shape);
    setText(this.state, item.state);
    setText(this.facts, item.facts.map(isolate).join(" · "));
    if (this.facts.title !== item.exact) this.facts.title = item.exact;
    if (item.receipt !== "" && this.receipt.href !== item.receipt) this.receipt.href = item.receipt;
    this.receipt.hidden = item.receipt === "";
    setVerb(this.receipt, "receipt", item.name);
    setCause(this.reason, item.reason);
    this.reason.hidden = item.reason === null;
    this.bars.hidden = item.received === null && item.delivered === null;
    setBar(this.in, item.received, text("receivedBar", { name: item.name }));
    setBar(this.out, item.delivered, text("deliveredBar", { name: item.name }));
    this.details.hidden = item.details.length === 0;
    setVerb(this.summary, "details", item.name);
    this.#renderDetails();
    setVerb(this.remove, item.removeVerb, item.name);
    this.#renderChoice(this.retry, item.retryVerb, item.name);
    this.#renderChoice(this.hold, item.holdVerb, item.name);
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {"retry" | "retryNow" | "hold" | "release" | null} verb
   * @param {string} name
   */
  #renderChoice(button, verb, name) {
    if (verb) setVerb(button, verb, name);
    else if (document.activeElement === button) this.remove.focus();
    button.hidden = verb === null;
  }

  #renderDetails() {
    if (!this.details.open || !this.item) return;
    const lines = this.item.details;
    while (this.list.children.length > lines.length) this.list.lastElementChild?.remove();
    for (const [i, { term, value, words, copied, listed }] of lines.entries()) {
      const line = this.list.children[i] ?? this.list.appendChild(newLine());
      setText(find(line, "dt", HTMLElement), term);
      const shown = find(line, "bdi", HTMLElement);
      setText(shown, value);
      shown.translate = words;
      const tried = listed ? this.item.attempts() : [];
      attempts.show(find(line, "dd", HTMLElement), tried);
      shown.hidden = tried.some(({ number }) => number !== ""); // which can be counted
      const button = find(line, "button", HTMLButtonElement);
      button.hidden = !copied || !navigator.clipboard;
      setText(button, text("copy"));
      setName(button, text("copyOf", { what: term }));
    }
  }
}

function newLine() {
  const line = document.createElement("div");
  line.append(document.createElement("dt"), document.createElement("dd"));
  const shown = document.createElement("bdi");
  const button = document.createElement("button");
  button.type = "button";
  button.addEventListener("click", () => void copy(shown.textContent ?? "", shown));
  line.lastElementChild?.append(shown, button);
  return line;
}

/**
 * Copies text, or has it selected where the browser does not let it be copied.
 * @param {string} what
 * @param {HTMLElement} shown where it is
 * @returns {Promise<boolean>} whether it was copied
 */
async function copy(what, shown) {
  try {
    await navigator.clipboard.writeText(what);
    say(text("isCopied"));
    return true;
  } catch {
    say(text("copyRefused"));
    getSelection()?.selectAllChildren(shown);
    return false;
  }
}

/**
 * @param {HTMLProgressElement} bar
 * @param {[number, number] | null} progress
 * @param {string} name
 */
function setBar(bar, progress, name) {
  bar.hidden = progress === null;
  if (progress === null) return;
  setName(bar, name);
  const [done, all] = progress;
  bar.max = Math.max(all, 1);
  bar.value = done;
}

export class View {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /** @type {WeakMap<Element, Row>} */
  #rowOf = new WeakMap();
  /** @type {WeakSet<Element>} the rows that are seen, or soon would be */
  #near = new WeakSet();
  #watch = new IntersectionObserver((entries) => this.#moved(entries), { rootMargin: "100% 0px" });
  #template = find(document, "#row", HTMLTemplateElement);
  #list = element("#rows");
  #curl = "";
  /** @type {Map<string, Entry>} what there is a row for, by its key */
  #items = new Map();
  #actions;

  /** @param {Actions} actions */
  constructor(actions) {
    this.#actions = actions;
    translateDocument();
    element("#drop-hint").hidden = false;
    element("#more").addEventListener("click", actions.showMore);
    element("#cancel-waiting").addEventListener("click", actions.cancelWaiting);
    element("#retry-failed").addEventListener("click", () => actions.retryFailed(terms()));
    element("#labels-line").hidden = false;
    this.#listenForFilter();
    this.#listenForFiles();
    this.#listenForCopy();
    this.#listenForSignIn();
    // On paper all of the list is as good as seen.
    window.addEventListener("beforeprint", () => {
      for (const row of this.#rows.values()) this.#fill(row);
    });
    window.addEventListener("afterprint", () => {
      for (const { node } of this.#rows.values()) {
        this.#watch.unobserve(node);
        this.#watch.observe(node); // which tells of each where it is
      }
    });
  }

  /**
   * Has the browser keep a file.
   * @param {File} file
   */
  save(file) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = file.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  /**
   * @param {State} state
   * @param {number} now by the gateway's clock
   */
  render(state, now) {
    offer(state.destinations);
    const adopted = new Set(state.sends.map((s) => s.id));
    const listed = new Set(state.uploads.map((u) => u.id));
    const waiting = state.sends.filter((s) => !s.running && !s.problem);
    const shown = new Set([...waiting.filter((s) => s.again > 0), ...waiting.slice(0, nextAtMost)]);
    const others = waiting.length - shown.size;
    setText(element("#others"), text("others", { n: others }));
    show("#others-line", others > 0);
    const ofSend = (/** @type {Send} */ s) => ({ key: s.key, name: s.name, make: () => this.#sendItem(s, state) });
    const items = [
      // The newest on top, as below.
      ...state.sends.filter((s) => !listed.has(s.id) && (s.running || s.problem || shown.has(s))).reverse().map(ofSend),
      ...state.uploads.map((u) => {
        const send = adopted.has(u.id) && state.sends.find((s) => s.id === u.id);
        return send ? ofSend(send) : { key: state.rows.get(u.id) ?? u.id, name: u.name, make: () => this.#uploadItem(u, state, now) };
      }),
    ];
    this.#items = new Map(items.map((item) => [item.key, item]));
    this.#renderSignIn(state);
    this.#renderRows(items);
    setText(element("#summary"), words.summary(state.sends, state.uploads, state.next !== ""));
    setCause(element("#trouble"), state.trouble);
    element("#trouble").hidden = state.trouble === null;
    this.#renderTotal(words.total(state.sends, state.uploads, state.done, state.next !== ""));
    const failed = state.uploads.filter((u) => u.state === "failed").length + state.sends.filter((s) => s.problem && !s.hopeless).length;
    show("#failed-line", failed > 1);
    const filtered = state.filter !== noFilter;
    element("#filters").hidden = !filtered && state.uploads.length === 0;
    element("#empty").hidden = filtered || items.length > 0 || !state.loaded;
    element("#no-match").hidden = !filtered || items.length > 0 || !state.loaded;
    element("#more-line").hidden = state.next === "";
    if (state.loaded || state.trouble || (state.signIn && state.signIn !== "trying")) document.documentElement.dataset.answered = "";
  }

  /** @param {Entry[]} items */
  #renderRows(items) {
    const focused = document.activeElement;
    for (const [key, row] of this.#rows) {
      if (this.#items.has(key)) continue;
      if (row.node.contains(focused)) this.#focusBeside(row.node);
      this.#watch.unobserve(row.node);
      row.node.remove();
      this.#rows.delete(key);
    }
    let place = this.#list.firstElementChild;
    for (const [i, item] of items.entries()) {
      const row = this.#rows.get(item.key) ?? this.#newRow(item.key, i < topRows);
      if (place === row.node) place = place.nextElementSibling;
      else this.#list.insertBefore(row.node, place);
      row.rename(item.name);
      if (row.content || this.#near.has(row.node)) row.render(item.make());
    }
    // Moving a row takes the focus from it.
    if (focused instanceof HTMLElement && focused.isConnected && document.activeElement === document.body) {
      focused.focus({ preventScroll: true });
    }
  }

  /**
   * @param {string} key
   * @param {boolean} onTop whether it is as good as seen: filled later, it would push those below
   */
  #newRow(key, onTop) {
    const row = new Row(this.#template);
    if (onTop) this.#near.add(row.node);
    this.#rows.set(key, row);
    this.#rowOf.set(row.node, row);
    this.#watch.observe(row.node);
    row.node.dataset.key = key;
    return row;
  }

  /**
   * Fills the rows that come near, and clears those that go.
   * @param {IntersectionObserverEntry[]} entries
   */
  #moved(entries) {
    for (const { target, isIntersecting } of entries) {
      const row = this.#rowOf.get(target);
      if (isIntersecting) this.#near.add(target);
      else this.#near.delete(target);
      if (!isIntersecting) row?.clear();
      else if (row) this.#fill(row);
    }
  }

  /** @param {Row} row */
  #fill(row) {
    const item = this.#items.get(row.node.dataset.key ?? "");
    if (item) row.render(item.make());
  }

  /**
   * Moves the focus from a row that disappears.
   * @param {Element} node
   */
  #focusBeside(node) {
    const row = this.#rowOf.get(node.nextElementSibling ?? node.previousElementSibling ?? node);
    if (!row || row.node === node) {
      element("#uploads-title").focus();
      return;
    }
    if (!row.content) this.#fill(row);
    row.content?.remove.focus();
  }

  /**
   * @param {Send} send
   * @param {State} state
   * @returns {Item}
   */
  #sendItem(send, state) {
    const { file, problem } = send;
    const sent = Math.min(send.sent, file.size);
    const pace = words.pace(state.rates.of(send.key, performance.now()), file.size - sent);
    return {
      key: send.key,
      name: send.name,
      tone: problem ? "failed" : send.running ? "moving" : "waiting",
      state: text(problem ? "notSent" : send.running ? "receiving" : send.again > 0 ? "interrupted" : "next"),
      facts: words.sendFacts(send, sent, pace, state.silent, performance.now()),
      exact: "",
      receipt: "",
      saveReceipt: () => {},
      reason: problem ?? (send.again > 0 ? { text: text("cut"), theirs: false } : null),
      received: problem ? null : [words.almost(sent, file.size), Math.max(file.size, 1)],
      delivered: problem ? null : [0, 1],
      details: [],
      attempts: () => [],
      removeVerb: problem ? "remove" : "cancel",
      remove: () => this.#actions.cancelSend(send),
      retryVerb: problem && !send.hopeless ? "retry" : null,
      retry: () => this.#actions.resend([send], terms()),
      holdVerb: null,
      hold: () => {},
    };
  }

  /**
   * @param {Upload} upload
   * @param {State} state
   * @param {number} now
   * @returns {Item}
   */
  #uploadItem(upload, state, now) {
    const moving = words.isMoving(upload);
    const { bytes, total_bytes } = upload.progress;
    const received = upload.state === "receiving";
    const comparison = state.compared.get(upload.id);
    const difference = words.difference(upload, comparison);
    const holdVerb = upload.held ? "release" : upload.state === "waiting" || upload.state === "queued" ? "hold" : null;
    return {
      key: state.rows.get(upload.id) ?? upload.id,
      name: upload.name,
      tone: difference ? "failed" : tone(upload),
      state: words.state(upload),
      facts: words.facts(upload, now, state.rates.of(upload.id, performance.now())),
      exact: moving ? "" : exact(upload.delivered_at ?? upload.updated_at),
      receipt: receipt(upload),
      saveReceipt: () => this.#actions.saveReceipt(upload),
      reason: state.notes.get(upload.id) ?? difference ?? words.reason(upload),
      received: !moving ? null : received ? [upload.size === null ? 0 : words.almost(bytes, upload.size), upload.size ?? 1] : [1, 1],
      delivered: !moving ? null : received ? [0, 1] : [words.there(upload), total_bytes],
      details: received ? [] : words.details(upload, comparison, state.attempts.get(upload.id)?.list ?? []),
      attempts: () => {
        this.#actions.learnAttempts(upload);
        return attempts.lines(upload, state.attempts.get(upload.id));
      },
      removeVerb: moving ? "cancel" : "remove",
      remove: () => this.#actions.remove(upload.id),
      retryVerb: retryVerb(upload),
      retry: () => this.#actions.control(upload.id, "retry"),
      holdVerb,
      hold: () => holdVerb && this.#actions.control(upload.id, holdVerb),
    };
  }

  #listenForFiles() {
    find(document, "#form", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
    this.#listenForChoice(find(document, "#files", HTMLInputElement));
    const folder = find(document, "#folder", HTMLInputElement);
    this.#listenForChoice(folder);
    element("#choose-folder").hidden = !("webkitdirectory" in folder) || matchMedia("(pointer: coarse)").matches;
    element("#choose-folder").addEventListener("click", () => folder.click());
    window.addEventListener("paste", (event) => {
      const files = event.clipboardData?.files ?? [];
      if (files.length === 0) return;
      event.preventDefault();
      this.#actions.choose(pasted(files), terms());
    });
    const hover = (/** @type {boolean} */ on) => document.body.classList.toggle("hover", on);
    window.addEventListener("dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      hover(true);
    });
    window.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) hover(false);
    });
    window.addEventListener("drop", (event) => {
      hover(false);
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      void dropped(event.dataTransfer, (files) => this.#actions.choose(files, terms()));
    });
  }

  /** @param {HTMLInputElement} input */
  #listenForChoice(input) {
    input.addEventListener("change", () => {
      this.#actions.choose(chosen(input.files ?? []), terms());
      input.value = ""; // the same file may be chosen again
    });
    input.addEventListener("keydown", (event) => {
      // Some browsers open the choice with the space bar alone; it looks like a button.
      if (event.key !== "Enter") return;
      event.preventDefault();
      input.click();
    });
  }

  /** @param {{there: number, all: number} | null} total */
  #renderTotal(total) {
    element("#total-line").hidden = total === null;
    if (total === null) return;
    const bar = find(document, "#total", HTMLProgressElement);
    setBar(bar, [total.there, total.all], text("total"));
    setText(element("#total-text"), text("sizeOf", { size: size(total.there), total: size(total.all) }));
  }

  #listenForFilter() {
    const form = find(document, "#filter", HTMLFormElement);
    const value = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (element(id)).value;
    let timer = 0;
    const apply = () => {
      const label = value("#by-label").trim();
      const since = new Date(`${value("#by-time")}T00:00`);
      const filter = {
        states: value("#by-state"),
        name: value("#by-name"),
        label: /^[^=]+=/.test(label) ? label : "", // it is being written
        since: Number.isNaN(since.getTime()) ? "" : since.toISOString(),
      };
      this.#actions.filterBy(Object.values(filter).every((v) => v === "") ? noFilter : filter);
    };
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(apply, 300);
    };
    form.addEventListener("input", soon);
    form.addEventListener("reset", soon);
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** @param {State} state */
  #renderSignIn({ signIn, signedIn, sends, trouble }) {
    const section = element("#sign-in");
    const focus = document.activeElement;
    const opens = section.hidden && signIn !== null && signIn !== "trying";
    const closes = !section.hidden && signIn === null;
    if (signIn !== "trying") section.hidden = signIn === null;
    element("#form").hidden = signIn !== null;
    element("#uploads").hidden = signIn !== null && sends.length === 0 && trouble === null;
    element("#sign-out").hidden = !signedIn;
    const refused = signIn === "refused";
    const input = find(section, "#token", HTMLInputElement);
    setText(element("#token-trouble"), refused ? text("tokenRefused") : "");
    element("#token-trouble").hidden = !refused;
    input.ariaInvalid = refused ? "true" : null;
    setText(element("#curl"), this.#curl = `curl ${signedIn ? '-H "Authorization: Bearer TOKEN" ' : ""}-F file=@FILE ${address}`);
    // Whoever was about to do something goes on from here.
    if (opens && (focus === document.body || !focus?.checkVisibility())) input.focus();
    if (closes && section.contains(focus)) element("#files").focus();
  }

  #listenForSignIn() {
    const input = find(document, "#token", HTMLInputElement);
    find(document, "#sign-in-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      const token = input.value.trim();
      if (token === "") return;
      input.value = "";
      this.#actions.signIn(token);
    });
    element("#sign-out").addEventListener("click", this.#actions.signOut);
  }

  #listenForCopy() {
    const button = element("#copy");
    setName(button, text("copyCommand"));
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      if (!(await copy(this.#curl, element("#curl")))) return;
      setText(button, text("copied"));
      setTimeout(() => setText(button, text("copy")), 1500);
    });
  }
}

/** @param {Upload} upload */
function retryVerb(upload) {
  if (upload.held) return null;
  if (upload.state === "waiting" || words.isUnreached(upload)) return "retryNow";
  return upload.state === "failed" || upload.state === "cancelled" ? "retry" : null;
}

/** @param {Upload} upload */
function tone({ state }) {
  switch (state) {
    case "delivered":
    case "failed":
    case "cancelled":
      return state;
    case "waiting":
    case "queued":
      return "waiting";
    default:
      return "moving";
  }
}
