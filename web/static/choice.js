// The files in what visitors choose, drop and paste. Those of a folder are
// called as it has them: folder/inner/name.

/**
 * A file, under the name that it is to be sent with.
 * @typedef {object} Chosen
 * @property {File} file
 * @property {string} name
 * @property {"" | "folder" | "unreadable"} problem why there is nothing to send: it stands for a folder without files that can be read, or for a file that cannot
 */

/**
 * @param {Iterable<File>} files
 * @returns {Chosen[]}
 */
export function chosen(files) {
  return Array.from(files, (file) => ({ file, name: file.webkitRelativePath || file.name, problem: "" }));
}

/** Milliseconds for which a picture that a paste is made of is new. */
const fresh = 10_000;

/**
 * What is pasted. Pictures that are no files yet all have the same name there: they
 * get one with the time in it.
 * @param {Iterable<File>} files
 * @returns {Chosen[]}
 */
export function pasted(files) {
  return chosen(files).map((c) => (c.name === "image.png" && Date.now() - c.file.lastModified < fresh ? { ...c, name: `image ${stamp(new Date(c.file.lastModified))}.png` } : c));
}

/** @param {Date} time as names can have it, here */
function stamp(time) {
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  const day = [time.getFullYear(), time.getMonth() + 1, time.getDate()];
  return `${day.map(two).join("-")} ${[time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(".")}`;
}

/**
 * Hands over the files of a drop, folder by folder, in the order in which they
 * are found: large folders take a while.
 * @param {DataTransfer} transfer
 * @param {(files: Chosen[]) => void} take
 */
export async function dropped(transfer, take) {
  /** @type {Chosen[]} */
  const plain = [];
  /** @type {FileSystemDirectoryEntry[]} */
  const folders = [];
  // All of it before anything is waited for: after that the browser has emptied it.
  for (const item of transfer.items) {
    const entry = item.webkitGetAsEntry();
    const file = item.getAsFile();
    if (entry?.isDirectory) folders.push(/** @type {FileSystemDirectoryEntry} */ (entry));
    else if (file) plain.push(...chosen([file]));
  }
  if (plain.length > 0) take(plain);
  for (const folder of folders) {
    if (!(await walk(folder, take))) take([nothing(folder, "folder")]);
  }
}

/**
 * It resolves to whether anything was handed over: any file, or what cannot be read.
 * @param {FileSystemDirectoryEntry} folder
 * @param {(files: Chosen[]) => void} take
 * @returns {Promise<boolean>}
 */
async function walk(folder, take) {
  let found = false;
  try {
    for await (const entries of batches(folder)) found = (await hand(entries, take)) || found;
  } catch {
    take([nothing(folder, "folder")]); // it cannot be looked into, or no further
    found = true;
  }
  return found;
}

/**
 * It resolves to whether anything was handed over.
 * @param {FileSystemEntry[]} entries
 * @param {(files: Chosen[]) => void} take
 * @returns {Promise<boolean>}
 */
async function hand(entries, take) {
  const files = await Promise.all(entries.filter((e) => e.isFile).map((e) => read(/** @type {FileSystemFileEntry} */ (e))));
  if (files.length > 0) take(files);
  let found = files.length > 0;
  for (const entry of entries) {
    if (entry.isDirectory) found = (await walk(/** @type {FileSystemDirectoryEntry} */ (entry), take)) || found;
  }
  return found;
}

/**
 * @param {FileSystemEntry} entry
 * @param {"folder" | "unreadable"} problem
 * @returns {Chosen}
 */
const nothing = (entry, problem) => ({ file: new File([], entry.name), name: nameOf(entry), problem });

/** @param {FileSystemEntry} entry */
const nameOf = (entry) => entry.fullPath.replace(/^\//, "");

/**
 * What is in a folder, as many at a time as the browser likes.
 * @param {FileSystemDirectoryEntry} folder
 * @returns {AsyncGenerator<FileSystemEntry[], void, void>}
 */
async function* batches(folder) {
  const reader = folder.createReader();
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (entries.length === 0) return;
    yield entries;
  }
}

/**
 * @param {FileSystemFileEntry} entry
 * @returns {Promise<Chosen>}
 */
function read(entry) {
  return new Promise((resolve) => {
    entry.file((file) => resolve({ file, name: nameOf(entry), problem: "" }), () => resolve(nothing(entry, "unreadable")));
  });
}
