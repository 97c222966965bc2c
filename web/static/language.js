// The page's language: the visitor's, if the page has it. Its words are in a
// table of words/; numbers, sizes and times are written as Intl does it there.

/**
 * @typedef {typeof import("./words/en.js").default} Table
 * @typedef {keyof Table} Key
 */

/** @type {Record<string, "ltr" | "rtl">} how each is written */
const directions = { ar: "rtl", de: "ltr", en: "ltr", es: "ltr", fr: "ltr", he: "rtl", ja: "ltr", zh: "ltr" };

const locale = choose();
const direction = directions[locale.language];

/** @type {Table} */
const table = (await import(`./words/${locale.language}.js`)).default;

const plural = new Intl.PluralRules(locale);
const whole = new Intl.NumberFormat(locale);
const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });
const moment = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" });
const steps = /** @type {const} */ ([["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]]);
const units = ["kilobyte", "megabyte", "gigabyte", "terabyte"];

/** @returns {Intl.Locale} one that the page has: ?lang= says which to try, else the browser */
function choose() {
  const tried = new URLSearchParams(location.search).getAll("lang");
  for (const tag of [...tried, ...navigator.languages]) {
    try {
      const wanted = new Intl.Locale(tag);
      if (Object.hasOwn(directions, wanted.language)) return wanted;
    } catch {
      // It is no tag of a language.
    }
  }
  return new Intl.Locale("en");
}

/**
 * Keeps what comes from elsewhere from changing the order of what is around it.
 * Among words from left to right, nothing that the page shows needs that.
 * @param {string} part
 */
export const isolate = (part) => (direction === "rtl" ? `\u2068${part}\u2069` : part);

/**
 * A name with what would turn the order of its characters made visible: "gpj.exe" could
 * look like "exe.jpg".
 * @param {string} name
 */
export const unturned = (name) => name.replace(/[\u202a-\u202e\u2066-\u2069]/g, (c) => `[U+${c.charCodeAt(0).toString(16).toUpperCase()}]`);

/**
 * What the table has under key, with the values in their places. Of forms for
 * several numbers, n says which one.
 * @param {Key} key
 * @param {Record<string, string | number>} [values]
 */
export function text(key, values = {}) {
  const entry = table[key];
  const form = typeof entry === "string" ? entry : (/** @type {Record<string, string>} */ (entry)[plural.select(Number(values.n))] ?? entry.other);
  return form.replace(/\{(\w+)\}/g, (_, name) => isolate(typeof values[name] === "number" ? count(values[name]) : values[name]));
}

/**
 * Puts the table's words into root: data-words names the key, and a child with
 * data-slot stays, in the place of that name.
 * @param {ParentNode} root
 */
export function translate(root) {
  for (const node of root.querySelectorAll("[data-words]")) {
    const parts = String(table[/** @type {Key} */ (node.getAttribute("data-words"))]).split(/\{(\w+)\}/);
    node.replaceChildren(...parts.map((part, i) => (i % 2 === 0 ? part : node.querySelector(`[data-slot="${part}"]`) ?? "")));
  }
}

/** Has the whole document in that language. */
export function translateDocument() {
  const { documentElement } = document;
  documentElement.lang = locale.toString();
  documentElement.dir = direction;
  translate(document);
  for (const template of document.querySelectorAll("template")) translate(template.content);
  documentElement.dataset.ready = "";
}

/** @param {number} n */
export const count = (n) => whole.format(n);

/** @param {number} bytes */
export const size = (bytes) => scaled(bytes, "", "long");

/** @param {number} bytes in a second */
export const speed = (bytes) => scaled(bytes, "-per-second", "short");

/**
 * @param {number} bytes
 * @param {"" | "-per-second"} per
 * @param {"short" | "long"} small how a number of bytes alone is written
 */
function scaled(bytes, per, small) {
  if (bytes < 1000) return measure(bytes, `byte${per}`, small);
  let value = bytes / 1000;
  let unit = 0;
  // 999.5 and more would be written as 1,000.
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return measure(value, units[unit] + per, "short");
}

/**
 * @param {number} value
 * @param {string} unit
 * @param {"short" | "long"} unitDisplay
 */
function measure(value, unit, unitDisplay) {
  const key = `${unit} ${unitDisplay}`;
  let format = measures.get(key);
  if (!format) measures.set(key, format = new Intl.NumberFormat(locale, { style: "unit", unit, unitDisplay, maximumSignificantDigits: 3 }));
  // In Hebrew it is "MB 1", for a line from right to left; set apart from that, it would read "MB1".
  return format.format(value).replace(/^(\w+)\u200f(\d+)$/, "$2 $1");
}

/** @type {Map<string, Intl.NumberFormat>} */
const measures = new Map();

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 1) return measure(Math.max(1, Math.round(seconds * 1000)), "millisecond", "short");
  const [unit, length] = steps.find(([, length]) => seconds >= length) ?? steps[3];
  return measure(Math.round((seconds / length) * 10) / 10, unit, "short");
}

/** @param {string} time */
export const exact = (time) => moment.format(new Date(time));

/**
 * A time as seen from another, such as "2 minutes ago".
 * @param {number} seconds negative if it is past
 */
export function distance(seconds) {
  const [unit, length] = steps.find(([, length]) => Math.abs(seconds) >= length) ?? steps[3];
  return relative.format(Math.trunc(seconds / length), unit);
}
