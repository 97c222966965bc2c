// Tells those who cannot see the page what matters, and not every percent.

import { text } from "./language.js";
import * as words from "./words.js";

/** How many announcements stay, for screen readers that read late. */
const saidAtMost = 5;

/** @typedef {import("./words.js").Cause} Cause */

/**
 * It does not wait for the next frame: a tab in the background has none.
 * @param {string} what
 * @param {Cause | null} [cause]
 */
export function say(what, cause = null) {
  if (what === "" && !cause) return;
  const said = document.querySelector("#said");
  const line = document.createElement("p");
  if (what !== "") line.append(what, " ");
  if (cause) setCause(line.appendChild(document.createElement("span")), cause);
  said?.append(line);
  while (said && said.children.length > saidAtMost) said.firstElementChild?.remove();
}

/**
 * Shows a cause, in the language that it is in.
 * @param {HTMLElement} node
 * @param {Cause | null} cause
 */
export function setCause(node, cause) {
  const shown = cause?.text ?? "";
  if (node.textContent !== shown) node.textContent = shown;
  if (cause?.theirs) Object.assign(node, { lang: "en", dir: "ltr" });
  else for (const name of ["lang", "dir"]) node.removeAttribute(name);
}

/** How many deliveries are told one by one, before those of the next seconds are counted. */
const toldAtMost = 3;

/** @type {import("./api.js").Upload[]} */
let untold = [];
let told = 0;
let counting = 0;

/**
 * Tells what uploads have come to: of many that are delivered, how many, and
 * that every few seconds.
 * @param {import("./api.js").Upload[]} uploads
 */
export function tell(uploads) {
  const delivered = uploads.filter((u) => u.state === "delivered");
  if (delivered.length > 0) counting ||= setTimeout(tellDelivered, 5000);
  const many = untold.length > 0 || told + delivered.length > toldAtMost;
  if (many) untold.push(...delivered);
  else told += delivered.length;
  for (const upload of uploads) {
    if (!many || upload.state !== "delivered") say(words.news(upload), words.reason(upload));
  }
}

function tellDelivered() {
  if (untold.length > 1) say(text("areDelivered", { n: untold.length }));
  else for (const upload of untold) say(words.news(upload), words.reason(upload));
  untold = [];
  told = 0;
  counting = 0;
}
