// How things are said. Everything here is a pure function.

/**
 * @typedef {import("./api.js").Upload} Upload
 * @typedef {import("./app.js").Send} Send
 */

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** @param {number} n */
export const count = (n) => whole.format(n);

/**
 * @param {number} n
 * @param {string} one
 * @param {string} many
 */
export const counted = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1000) return counted(bytes, "byte", "bytes");
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes / 1000;
  let unit = 0;
  // 999.5 and more would be written as 1,000.
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${short.format(value)} ${units[unit]}`;
}

/** @param {string} time */
export const exact = (time) => moment.format(new Date(time));

/**
 * @param {string} time
 * @param {number} now
 */
export function since(time, now) {
  const seconds = Math.max(0, now - Date.parse(time)) / 1000;
  if (seconds < 10) return "just now";
  if (seconds < 60) return ago.format(-Math.floor(seconds), "second");
  if (seconds < 3600) return ago.format(-Math.floor(seconds / 60), "minute");
  if (seconds < 86_400) return ago.format(-Math.floor(seconds / 3600), "hour");
  return ago.format(-Math.floor(seconds / 86_400), "day");
}

/**
 * @param {string} time
 * @param {number} now
 */
function until(time, now) {
  const seconds = Math.ceil((Date.parse(time) - now) / 1000);
  if (!(seconds > 0)) return "next attempt now";
  if (seconds < 90) return `next attempt in ${seconds} s`;
  return `next attempt in ${counted(Math.round(seconds / 60), "minute", "minutes")}`;
}

const states = {
  receiving: "Receiving",
  queued: "Queued",
  delivering: "Delivering",
  waiting: "Waiting",
  delivered: "Delivered",
  failed: "Failed",
  cancelled: "Cancelled",
};

/** @param {Upload} upload */
export const state = (upload) => states[upload.state] ?? upload.state;

/**
 * @param {Upload} upload
 * @param {number} now
 * @returns {string[]} what is worth knowing in this state
 */
export function facts(upload, now) {
  const { progress, attempts } = upload;
  const total = size(upload.size ?? progress.total_bytes);
  switch (upload.state) {
    case "receiving":
      return [upload.size === null ? `${size(progress.bytes)} so far` : `${size(progress.bytes)} of ${total}`];
    case "queued":
      return [total, "kept safely, waiting for its turn"];
    case "delivering":
      return [...(attempts.count > 1 ? [`attempt ${attempts.count}`] : []), phase(upload), total];
    case "waiting":
      return [total, `${counted(attempts.count, "attempt", "attempts")} so far`, ...(attempts.next_at ? [until(attempts.next_at, now)] : [])];
    case "delivered":
      return [total, since(upload.delivered_at ?? upload.updated_at, now)];
    default:
      return [total, since(upload.updated_at, now)];
  }
}

/** @param {Upload} upload */
function phase({ phase, progress }) {
  switch (phase) {
    case "connecting":
      return "connecting";
    case "keying":
      return "agreeing on a key";
    case "sending":
      return `packet ${count(progress.packets)} of ${count(progress.total_packets)}`;
    case "verifying":
      return "comparing checksums";
    default:
      return "starting";
  }
}

/**
 * Why an upload stands where it stands, or "".
 * @param {Upload} upload
 */
export function reason(upload) {
  if (upload.state === "failed") return sentence(upload.error ?? upload.attempts.last_error ?? "");
  if (upload.state === "waiting" || upload.state === "queued") return sentence(upload.attempts.last_error ?? "");
  return "";
}

/** @param {string} text */
export function sentence(text) {
  if (text === "") return "";
  const end = /[.!?]$/.test(text) ? "" : ".";
  return text[0].toUpperCase() + text.slice(1) + end;
}

/**
 * What has happened to an upload, for those who cannot see it; "" if it is not
 * worth an interruption.
 * @param {Upload} upload
 */
export function news(upload) {
  switch (upload.state) {
    case "delivered":
      return `${upload.name} is delivered.`;
    case "failed":
      return `${upload.name} failed. ${reason(upload)}`;
    case "waiting":
      return `${upload.name} is not delivered yet. ${reason(upload)} Ferry will try again.`;
    default:
      return "";
  }
}

/**
 * All of an upload, for those who want to compare.
 * @param {Upload} upload
 * @returns {[string, string][]}
 */
export function details(upload) {
  /** @type {[string, string][]} */
  const lines = [];
  if (upload.sha256 !== null) lines.push(["SHA-256", upload.sha256]);
  if (upload.cksum !== null) lines.push(["cksum", `${upload.cksum} ${upload.size}`]);
  lines.push(["Destination", upload.destination]);
  if (upload.attempts.count > 0) lines.push(["Attempts", count(upload.attempts.count)]);
  lines.push(["Sent", exact(upload.created_at)]);
  if (upload.delivered_at !== null) lines.push(["Delivered", exact(upload.delivered_at)]);
  lines.push(["Id", upload.id]);
  return lines;
}

/**
 * How all stand together.
 * @param {Send[]} sends
 * @param {Upload[]} uploads
 */
export function summary(sends, uploads) {
  const failed = uploads.filter((u) => u.state === "failed").length + sends.filter((s) => s.problem !== "").length;
  const moving = uploads.filter(isMoving).length + sends.filter((s) => s.problem === "" && s.id === "").length;
  return [moving > 0 ? `${count(moving)} on the way` : "", failed > 0 ? `${count(failed)} failed` : ""].filter(Boolean).join(" · ");
}

/**
 * Whether an upload goes on without anybody doing anything.
 * @param {Upload} upload
 */
export const isMoving = ({ state }) => !["delivered", "failed", "cancelled"].includes(state);
