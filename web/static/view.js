// Renders the page's state, and turns what people do into calls of actions.
// Rows are kept and changed in place, so that focus, selection and opened
// details stay where they are. Names and messages only ever become text.

import { address, receipt } from "./api.js";
import * as words from "./words.js";

/**
 * @typedef {import("./app.js").State} State
 * @typedef {import("./app.js").Send} Send
 * @typedef {import("./api.js").Upload} Upload
 */

/**
 * @typedef {object} Actions
 * @property {(files: {file: File, problem: string}[]) => void} choose
 * @property {(send: Send) => void} cancelSend
 * @property {(send: Send) => void} resend
 * @property {(id: string) => void} remove
 * @property {(id: string) => void} retry
 * @property {() => void} showMore
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
 * @property {string} reason
 * @property {[number, number] | null} received of how much, or null
 * @property {[number, number] | null} delivered of how much, or null
 * @property {[string, string][]} details
 * @property {string} removeVerb
 * @property {() => void} remove
 * @property {string} retryVerb "" if that is not possible
 * @property {() => void} retry
 */

const icons = {
  moving: "M8 2.5v10M4 9l4 4 4-4",
  waiting: "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8zM8 4.5V8l2.5 1.7",
  delivered: "M3 8.6l3.3 3.3L13 4.8",
  failed: "M8 2.8v6.4M8 12.4v.6",
  cancelled: "M4 4l8 8M12 4l-8 8",
};

/** How many announcements stay, for screen readers that read late. */
const saidAtMost = 5;

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
 * Sets text only where it differs: a selection in it survives.
 * @param {Element} node
 * @param {string} text
 */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** One row of the list. */
class Row {
  /** @param {HTMLTemplateElement} template */
  constructor(template) {
    const copy = document.importNode(template.content, true);
    this.node = find(copy, "li", HTMLLIElement);
    this.icon = find(copy, "path", SVGPathElement);
    this.name = find(copy, ".name bdi", HTMLElement);
    this.names = this.node.querySelectorAll(".of");
    this.state = find(copy, ".state strong", HTMLElement);
    this.facts = find(copy, ".facts", HTMLElement);
    this.receipt = find(copy, ".receipt", HTMLAnchorElement);
    this.reason = find(copy, ".reason", HTMLElement);
    this.bars = find(copy, ".bars", HTMLElement);
    this.in = find(copy, ".in", HTMLProgressElement);
    this.out = find(copy, ".out", HTMLProgressElement);
    this.details = find(copy, "details", HTMLDetailsElement);
    this.list = find(copy, "dl", HTMLDListElement);
    this.retry = find(copy, ".retry", HTMLButtonElement);
    this.remove = find(copy, ".remove", HTMLButtonElement);
    /** @type {Item | undefined} */
    this.item = undefined;
    this.retry.addEventListener("click", () => this.item?.retry());
    this.remove.addEventListener("click", () => this.item?.remove());
    this.details.addEventListener("toggle", () => this.#renderDetails());
  }

  /** @param {Item} item */
  render(item) {
    this.item = item;
    this.node.dataset.tone = item.tone;
    const shape = icons[/** @type {keyof typeof icons} */ (item.tone)];
    if (this.icon.getAttribute("d") !== shape) this.icon.setAttribute("d", shape);
    setText(this.name, item.name);
    for (const name of this.names) setText(name, item.name);
    setText(this.state, item.state);
    setText(this.facts, item.facts.join(" · "));
    if (this.facts.title !== item.exact) this.facts.title = item.exact;
    if (item.receipt !== "" && this.receipt.href !== item.receipt) this.receipt.href = item.receipt;
    this.receipt.hidden = item.receipt === "";
    setText(this.reason, item.reason);
    this.reason.hidden = item.reason === "";
    this.bars.hidden = item.received === null && item.delivered === null;
    setBar(this.in, item.received, `${item.name}: received by the gateway`);
    setBar(this.out, item.delivered, `${item.name}: delivered to the destination`);
    this.details.hidden = item.details.length === 0;
    this.#renderDetails();
    setText(find(this.remove, ".verb", HTMLElement), item.removeVerb);
    setText(find(this.retry, ".verb", HTMLElement), item.retryVerb);
    if (item.retryVerb === "" && document.activeElement === this.retry) this.remove.focus();
    this.retry.hidden = item.retryVerb === "";
  }

  #renderDetails() {
    if (!this.details.open || !this.item) return;
    const lines = this.item.details;
    while (this.list.children.length > lines.length) this.list.lastElementChild?.remove();
    for (const [i, [term, value]] of lines.entries()) {
      const line = this.list.children[i] ?? this.list.appendChild(newLine());
      setText(line.children[0], term);
      setText(line.children[1], value);
    }
  }
}

function newLine() {
  const line = document.createElement("div");
  line.append(document.createElement("dt"), document.createElement("dd"));
  return line;
}

/**
 * @param {HTMLProgressElement} bar
 * @param {[number, number] | null} progress
 * @param {string} name
 */
function setBar(bar, progress, name) {
  bar.hidden = progress === null;
  if (progress === null) return;
  if (bar.ariaLabel !== name) bar.ariaLabel = name;
  const [done, all] = progress;
  bar.max = Math.max(all, 1);
  bar.value = all === 0 ? 1 : done;
}

export class View {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  #template = find(document, "#row", HTMLTemplateElement);
  #list = element("#rows");
  #said = element("#said");
  #actions;

  /** @param {Actions} actions */
  constructor(actions) {
    this.#actions = actions;
    const curl = `curl -F file=@FILE ${address}`;
    element("#curl").textContent = curl;
    element("#drop-hint").hidden = false;
    element("#uploads").hidden = false;
    element("#more").addEventListener("click", actions.showMore);
    this.#listenForFiles();
    this.#listenForCopy(curl);
  }

  /**
   * Tells those who cannot see the page. It does not wait for the next frame:
   * a tab in the background has none.
   * @param {string} text
   */
  say(text) {
    if (text === "") return;
    const line = document.createElement("p");
    line.textContent = text;
    this.#said.append(line);
    while (this.#said.children.length > saidAtMost) this.#said.firstElementChild?.remove();
  }

  /**
   * @param {State} state
   * @param {number} now
   */
  render(state, now) {
    const adopted = new Set(state.sends.map((s) => s.id));
    const items = [
      // The newest on top, as below.
      ...state.sends.filter((s) => s.id === "").reverse().map((s) => this.#sendItem(s)),
      ...state.uploads.map((u) => {
        const send = adopted.has(u.id) && state.sends.find((s) => s.id === u.id);
        return send ? this.#sendItem(send) : this.#uploadItem(u, state, now);
      }),
    ];
    this.#renderRows(items);
    setText(element("#summary"), words.summary(state.sends, state.uploads));
    setText(element("#trouble"), state.trouble);
    element("#trouble").hidden = state.trouble === "";
    element("#empty").hidden = items.length > 0 || !state.loaded;
    element("#more-line").hidden = !state.more;
  }

  /** @param {Item[]} items */
  #renderRows(items) {
    const focused = document.activeElement;
    const keys = new Set(items.map((item) => item.key));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      if (row.node.contains(focused)) neighbour(row.node).focus();
      row.node.remove();
      this.#rows.delete(key);
    }
    for (const [i, item] of items.entries()) {
      let row = this.#rows.get(item.key);
      if (!row) this.#rows.set(item.key, row = new Row(this.#template));
      if (this.#list.children[i] !== row.node) this.#list.insertBefore(row.node, this.#list.children[i] ?? null);
      row.render(item);
    }
    // Moving a row takes the focus from it.
    if (focused instanceof HTMLElement && focused.isConnected && document.activeElement === document.body) {
      focused.focus({ preventScroll: true });
    }
  }

  /**
   * @param {Send} send
   * @returns {Item}
   */
  #sendItem(send) {
    const { file, problem } = send;
    const total = words.size(file.size);
    return {
      key: send.key,
      name: file.name,
      tone: problem ? "failed" : send.running ? "moving" : "waiting",
      state: problem ? "Not sent" : send.running ? "Receiving" : "Next",
      facts: [problem ? (send.hopeless ? "" : total) : send.running ? `${words.size(Math.min(send.sent, file.size))} of ${total}` : total].filter(Boolean),
      exact: "",
      receipt: "",
      reason: problem,
      received: problem ? null : [Math.min(send.sent, file.size), Math.max(file.size, 1)],
      delivered: problem ? null : [0, 1],
      details: [],
      removeVerb: problem ? "Remove" : "Cancel",
      remove: () => this.#actions.cancelSend(send),
      retryVerb: problem && !send.hopeless ? "Try again" : "",
      retry: () => this.#actions.resend(send),
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
    return {
      key: state.rows.get(upload.id) ?? upload.id,
      name: upload.name,
      tone: tone(upload),
      state: words.state(upload),
      facts: words.facts(upload, now),
      exact: moving ? "" : words.exact(upload.delivered_at ?? upload.updated_at),
      receipt: receipt(upload),
      reason: state.notes.get(upload.id) ?? words.reason(upload),
      received: !moving ? null : received ? [upload.size === null ? 0 : bytes, upload.size ?? 1] : [1, 1],
      delivered: !moving ? null : received ? [0, 1] : [bytes, total_bytes],
      details: received ? [] : words.details(upload),
      removeVerb: moving ? "Cancel" : "Remove",
      remove: () => this.#actions.remove(upload.id),
      retryVerb: upload.state === "waiting" ? "Try now" : upload.state === "failed" || upload.state === "cancelled" ? "Try again" : "",
      retry: () => this.#actions.retry(upload.id),
    };
  }

  #listenForFiles() {
    const input = find(document, "#files", HTMLInputElement);
    find(document, "#form", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
    input.addEventListener("change", () => {
      this.#actions.choose(Array.from(input.files ?? [], (file) => ({ file, problem: "" })));
      input.value = ""; // the same file may be chosen again
    });
    input.addEventListener("keydown", (event) => {
      // Some browsers open the choice with the space bar alone; it looks like a button.
      if (event.key !== "Enter") return;
      event.preventDefault();
      input.click();
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
      this.#actions.choose(droppedFiles(event.dataTransfer));
    });
  }

  /** @param {string} curl */
  #listenForCopy(curl) {
    const button = element("#copy");
    const verb = find(button, ".verb", HTMLElement);
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(curl);
        this.say("The command is copied.");
        setText(verb, "Copied");
        setTimeout(() => setText(verb, "Copy"), 1500);
      } catch {
        this.say("The browser did not allow copying.");
        getSelection()?.selectAllChildren(element("#curl"));
      }
    });
  }
}

/**
 * @param {DataTransfer} transfer
 * @returns {{file: File, problem: string}[]}
 */
function droppedFiles(transfer) {
  const files = [];
  for (const item of transfer.items) {
    const file = item.getAsFile();
    if (!file) continue;
    const folder = item.webkitGetAsEntry()?.isDirectory;
    files.push({ file, problem: folder ? "It is a folder. Ferry carries files: make an archive of it, and send that." : "" });
  }
  return files;
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

/**
 * Where the focus goes when a row that has it disappears.
 * @param {Element} row
 * @returns {HTMLElement}
 */
function neighbour(row) {
  const next = row.nextElementSibling ?? row.previousElementSibling;
  return next ? find(next, ".remove", HTMLElement) : element("#uploads-title");
}
