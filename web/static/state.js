// What the page knows, in one place. Whatever happens changes it and says so;
// view.js renders it.

import { Rates } from "./rates.js";
import * as session from "./session.js";

/**
 * A file on its way from this page to the gateway.
 * @typedef {object} Send
 * @property {string} key of its row
 * @property {File} file
 * @property {string} name that it is sent under
 * @property {Terms} terms
 * @property {number} sent bytes
 * @property {number} moved when it was begun, or that became more, on the clock of performance.now
 * @property {AbortController | null} running null while it waits for its turn, or has failed
 * @property {Cause | null} problem why it was not taken
 * @property {boolean} hopeless whether trying again makes no sense
 * @property {number} attempts how often it was begun
 * @property {number} again when it is begun again after it was cut off, on the clock of performance.now; 0 if it was not
 * @property {string} id of the upload that the gateway shows for it meanwhile, or ""
 */

/**
 * How files are to be taken.
 * @typedef {object} Terms
 * @property {string[]} labels as key=value
 * @property {string} destination by its name; "" for the gateway's first
 */

/**
 * @typedef {import("./api.js").Upload} Upload
 * @typedef {import("./words.js").Cause} Cause
 * @typedef {import("./words.js").Comparison} Comparison
 */

/**
 * Which uploads are shown; "" where any are.
 * @typedef {object} Filter
 * @property {string} states one or several
 * @property {string} name that theirs begin with
 * @property {string} label as key=value
 * @property {string} since a time
 */

/** @type {Readonly<Filter>} */
export const noFilter = { states: "", name: "", label: "", since: "" };

/** How many uploads are asked for at first. */
export const page = 50;

export const state = {
  /** @type {"wanted" | "refused" | "trying" | null} how far the visitor is with showing a token; null if the gateway needs none, or takes it */
  signIn: session.current() === "" ? null : "trying",
  /** Whether the gateway knows the visitor by a token. */
  signedIn: false,
  /** @type {Send[]} in the order in which they were chosen */
  sends: [],
  /** @type {Readonly<Filter>} replaced when it changes */
  filter: noFilter,
  /** @type {Upload[]} newest first; by their names if the filter has one */
  uploads: [],
  /** @type {string[]} the names of where uploads may go, the usual one first */
  destinations: [],
  /** Bytes that were delivered since nothing was on the way. */
  done: 0,
  /** The address of the uploads that follow them, or "". */
  next: "",
  /** Whether the list has ever come. */
  loaded: false,
  /** @type {Cause | null} why the list does not come */
  trouble: null,
  /** Whether that is for all that is asked: the gateway is not there, or not well. */
  silent: false,
  /** @type {Map<string, Cause>} by the id of an upload, why what was asked for it did not happen */
  notes: new Map(),
  /** @type {Map<string, Comparison>} by the id of an upload, how what the gateway received compares to the file */
  compared: new Map(),
  /** @type {Map<string, import("./attempts.js").Known>} by the id of an upload, its attempts, if anybody has looked at them */
  attempts: new Map(),
  /** How fast sends, by their keys, and deliveries, by the ids of uploads, are. */
  rates: new Rates(),
  /** @type {Map<string, string>} by the id of an upload, the key of the row that it took over from a send */
  rows: new Map(),
};

/** @typedef {typeof state} State */

let render = () => {};
let rendering = 0;

/** @param {() => void} how */
export function renderBy(how) {
  render = how;
}

/** Renders once before the next frame, however often it is called. */
export function changed() {
  rendering ||= requestAnimationFrame(() => {
    rendering = 0;
    render();
  });
}
