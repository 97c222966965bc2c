// What the page asks of the gateway.

import * as session from "./session.js";

/**
 * An upload as the gateway shows it.
 * @typedef {object} Upload
 * @property {string} id
 * @property {string} name
 * @property {number | null} size
 * @property {"receiving" | "queued" | "delivering" | "waiting" | "delivered" | "failed" | "cancelled"} state
 * @property {boolean} held
 * @property {"connecting" | "keying" | "sending" | "verifying" | null} phase
 * @property {{bytes: number, total_bytes: number, packets: number, total_packets: number}} progress
 * @property {{count: number, last_error: string | null, next_at: string | null}} attempts
 * @property {string | null} sha256
 * @property {number | null} cksum
 * @property {string} destination
 * @property {string} destination_name
 * @property {string | null} blocked why it waits for more than its turn
 * @property {string} created_at
 * @property {string} updated_at
 * @property {string | null} delivered_at
 * @property {string | null} receipt
 * @property {string | null} error
 * @property {Record<string, string>} labels
 */

/**
 * An attempt to deliver an upload; the last one has no outcome while it runs.
 * @typedef {object} Attempt
 * @property {number} number
 * @property {string} began_at
 * @property {string | null} ended_at
 * @property {"delivered" | "failed" | "postponed" | "cancelled" | "interrupted" | null} outcome
 * @property {string | null} error
 * @property {number | null} bytes that the destination had then
 * @property {number | null} resumed_from
 * @property {string} destination
 */

/**
 * What the gateway says has happened. Events are numbered, but for progress;
 * ready comes first, and says that nothing is missed from there on.
 * @typedef {{event: "ready" | "reset"} | {event: "upload" | "progress", upload: Upload} | {event: "forgotten", id: string}} Happening
 */

const uploads = new URL("uploads", document.baseURI);

/** The address that files are posted to, for people. */
export const address = uploads.href;

/** Patience with a request that carries no file. */
const patience = 15_000;

/** Milliseconds by which the gateway's clock is ahead of the browser's, as far as its answers tell. */
let ahead = 0;

/** The time by the gateway's clock, which all times it tells are of. */
export const now = () => Date.now() + ahead;

/**
 * Learns how the clocks differ from when an answer was given, which is told in
 * whole seconds. What can be the way there and back is no difference.
 * @param {string | null} given
 * @param {number} asked
 */
function compareClocks(given, asked) {
  const least = Date.parse(given ?? "") - Date.now();
  const most = Date.parse(given ?? "") + 1000 - asked;
  if (!Number.isNaN(least)) ahead = least > 0 || most < 0 ? (least + most) / 2 : 0;
}

/** An answer that is not the one hoped for, or none. */
export class Refusal extends Error {
  /**
   * @param {"told" | "odd" | "silent" | "broken"} kind told if the message is the gateway's, for people
   * @param {number} [status]
   * @param {string} [message] of an odd answer, its status
   * @param {string} [token] that the request showed
   * @param {string} [type] of the problem
   */
  constructor(kind, status = 0, message = "", token = "", type = "") {
    super(message || kind);
    this.type = type;
    this.kind = kind;
    this.status = status;
    this.token = token;
  }

  /** Whether it is what was asked for that the gateway refuses, while it is well. */
  get isOfRequest() {
    return this.kind === "told" && this.status >= 400 && this.status < 500 && !this.passes;
  }

  /** Whether the same may succeed a little later, with nothing changed. */
  get passes() {
    return ["silent", "broken"].includes(this.kind) || [408, 429, 502, 503, 504].includes(this.status);
  }
}

/**
 * Where a list begins: with what is older than the upload before, or with its
 * first.
 * @param {import("./state.js").Filter} filter
 * @param {string} [before]
 */
export function listAddress(filter, before) {
  const url = new URL(uploads);
  for (const state of filter.states.split(" ").filter(Boolean)) url.searchParams.append("state", state);
  for (const key of /** @type {const} */ (["name", "label", "since"])) if (filter[key] !== "") url.searchParams.set(key, filter[key]);
  if (before) url.searchParams.set("before", before);
  return url.href;
}

/**
 * Up to limit uploads of a list, and the address of what follows them, or "".
 * @param {string} address
 * @param {number} limit
 * @returns {Promise<{uploads: Upload[], next: string}>}
 */
export async function list(address, limit) {
  const url = new URL(address);
  url.searchParams.set("limit", String(limit));
  const answer = await ask("GET", url);
  const body = await answer.json();
  const next = /<([^>]*)>;\s*rel="?next"?/.exec(answer.headers.get("Link") ?? "");
  return { uploads: body.uploads, next: next ? new URL(new URL(next[1], url).search, uploads).href : "" };
}

/**
 * The names of the destinations that uploads may have, the usual one first.
 * @returns {Promise<string[]>}
 */
export async function destinations() {
  const answer = await ask("GET", new URL("destinations", document.baseURI));
  const body = await answer.json();
  return body.destinations.filter((/** @type {{state: string}} */ d) => d.state !== "removed").map((/** @type {{name: string}} */ d) => d.name);
}

/**
 * What happens from now on, in the order in which it does, until the gateway
 * or signal ends that. A sign of life is an empty array.
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Happening[], void, void>}
 */
export async function* follow(signal) {
  // An EventSource shows no token. What was asked for goes first.
  const token = session.current();
  const answer = await fetch(new URL("events", document.baseURI), { cache: "no-store", priority: "low", headers: { ...headers(token), Accept: "text/event-stream" }, signal });
  if (!answer.ok || !answer.body) throw refusal(answer.status, answer.statusText, await answer.text(), token);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop() ?? "";
    yield blocks.map(happening).filter((h) => h !== null);
  }
}

/**
 * Reads the lines of an event; null for a comment.
 * @param {string} block
 * @returns {Happening | null}
 */
function happening(block) {
  const field = (/** @type {string} */ name) => block.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? "";
  const data = JSON.parse(field("data") || "{}");
  const event = field("event");
  switch (event) {
    case "ready":
    case "reset":
      return { event };
    case "upload":
    case "progress":
      return { event, upload: data };
    case "forgotten":
      return { event, id: data.id };
    default:
      return null;
  }
}

/**
 * The attempts to deliver an upload: of very many, the first ones and the latest.
 * @param {string} id
 * @returns {Promise<Attempt[]>}
 */
export async function attempts(id) {
  const answer = await ask("GET", one(id, "/attempts"));
  return (await answer.json()).attempts;
}

/**
 * Cancels an upload under way, or forgets one that is not. It resolves to what
 * the upload is now, or to null if it is forgotten.
 * @param {string} id
 * @returns {Promise<Upload | null>}
 */
export async function remove(id) {
  const answer = await ask("DELETE", one(id));
  return answer.status === 204 ? null : answer.json();
}

/**
 * Has a delivery tried again at once, or kept back, or let go.
 * @param {string} id
 * @param {"retry" | "hold" | "release"} action
 * @returns {Promise<Upload>}
 */
export async function control(id, action) {
  const answer = await ask("POST", one(id, `/${action}`));
  return answer.json();
}

/** How many uploads retryAll takes. */
export const retriesAtMost = 1000;

/**
 * Has deliveries tried again at once.
 * @param {string[]} ids
 * @returns {Promise<Upload[]>} what they are now, those that could be
 */
export async function retryAll(ids) {
  const answer = await ask("POST", one("bulk"), JSON.stringify({ action: "retry", ids }));
  const { results } = await answer.json();
  return results.map((/** @type {{upload: Upload | null}} */ r) => r.upload).filter((/** @type {Upload | null} */ u) => u !== null);
}

/**
 * An upload's receipt as a file.
 * @param {Upload} upload
 * @returns {Promise<File>}
 */
export async function receiptFile({ id, name }) {
  const answer = await ask("GET", one(id, "/receipt"));
  return new File([await answer.blob()], `${name.split("/").at(-1)}.receipt.json`);
}

/**
 * The address of an upload's receipt, for people; "" if it has none.
 * @param {Upload} upload
 */
export const receipt = (upload) => (upload.receipt === null ? "" : one(upload.id, "/receipt").href);

/**
 * Sends a file. It resolves once the gateway holds it durably; aborting signal
 * rejects with an AbortError.
 * @param {File} file
 * @param {string} name
 * @param {import("./state.js").Terms} terms
 * @param {string | null} digest its SHA-256 in hexadecimal digits, if that is known: the gateway keeps nothing else
 * @param {AbortSignal} signal
 * @param {(sent: number) => void} onProgress
 * @returns {Promise<Upload>}
 */
export async function send(file, name, { labels, destination }, digest, signal, onProgress) {
  const url = new URL(uploads);
  url.searchParams.set("name", name);
  for (const label of labels) url.searchParams.append("label", label);
  if (destination !== "") url.searchParams.set("destination", destination);
  // fetch does not tell how far the body of a request is.
  const request = new XMLHttpRequest();
  const token = session.current();
  await new Promise((resolve, reject) => {
    signal.throwIfAborted();
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded));
    request.addEventListener("abort", () => reject(signal.reason));
    request.addEventListener("error", () => reject(new Refusal("broken")));
    request.addEventListener("load", resolve);
    request.open("POST", url);
    for (const [name, value] of Object.entries(headers(token))) request.setRequestHeader(name, value);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    if (digest !== null) request.setRequestHeader("Repr-Digest", `sha-256=:${inBase64(digest)}:`);
    request.send(file);
  });
  // 200: the gateway had it already.
  if (![200, 201, 202].includes(request.status)) throw refusal(request.status, request.statusText, request.responseText, token);
  return JSON.parse(request.responseText);
}

/** @param {string} digits hexadecimal ones */
const inBase64 = (digits) => btoa(digits.replace(/../g, (byte) => String.fromCharCode(parseInt(byte, 16))));

/**
 * @param {string} id
 * @param {string} [more]
 */
function one(id, more = "") {
  return new URL(`${uploads}/${encodeURIComponent(id)}${more}`);
}

/**
 * @param {string} method
 * @param {URL} url
 * @param {string} [body] JSON
 */
async function ask(method, url, body) {
  const token = session.current();
  const asked = Date.now();
  let answer;
  try {
    answer = await fetch(url, { method, body, cache: "no-store", headers: { ...headers(token), ...(body ? { "Content-Type": "application/json" } : {}) }, signal: AbortSignal.timeout(patience) });
  } catch {
    throw new Refusal("silent");
  }
  compareClocks(answer.headers.get("Date"), asked);
  if (!answer.ok) throw refusal(answer.status, answer.statusText, await answer.text(), token);
  return answer;
}

/**
 * @param {string} token
 * @returns {Record<string, string>}
 */
function headers(token) {
  return { Accept: "application/json", ...(token === "" ? {} : { Authorization: `Bearer ${token}` }) };
}

/**
 * Makes words of an answer that is an error: of its problem+json, if it is one.
 * @param {number} status
 * @param {string} statusText
 * @param {string} body
 * @param {string} token
 */
function refusal(status, statusText, body, token) {
  let problem = { type: "", title: "", detail: "", request_id: "" };
  try {
    problem = { ...problem, ...JSON.parse(body) };
  } catch {
    // Something between the page and Ferry answered.
  }
  const parts = [problem.title, problem.detail].filter((part) => typeof part === "string" && part !== "");
  if (parts.length === 0) return new Refusal("odd", status, `${status} ${statusText}`.trim(), token);
  // With it, the gateway's operator finds the request in the log.
  if (problem.request_id) parts.push(`Request ${problem.request_id}`);
  return new Refusal("told", status, parts.map((part) => (/[.!?]$/.test(part) ? part : `${part}.`)).join(" "), token, problem.type);
}
