// The files in what visitors choose, drop and paste. Those of a folder are
// called as it has them: folder/inner/name.

/**
 * A file, under the name that it is to be sent with.
 * @typedef {object} Chosen
 * @property {File} file
 * @property {string} name
 * @property {boolean} empty whether it stands for a folder without files that can be read
 */

/**
 * @param {Iterable<File>} files
 * @returns {Chosen[]}
 */
export function chosen(files) {
  return Array.from(files, (file) => ({ file, name: file.webkitRelativePath || file.name, empty: false }));
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
    if (!(await walk(folder, take))) take([{ file: new File([], folder.name), name: folder.name, empty: true }]);
  }
}

/**
 * It resolves to whether there was any file.
 * @param {FileSystemDirectoryEntry} folder
 * @param {(files: Chosen[]) => void} take
 * @returns {Promise<boolean>}
 */
async function walk(folder, take) {
  let found = false;
  for await (const entries of batches(folder)) {
    const files = await Promise.all(entries.filter((e) => e.isFile).map((e) => read(/** @type {FileSystemFileEntry} */ (e))));
    const readable = files.filter((f) => f !== null);
    if (readable.length > 0) take(readable);
    found ||= readable.length > 0;
    for (const entry of entries) {
      if (entry.isDirectory) found = (await walk(/** @type {FileSystemDirectoryEntry} */ (entry), take)) || found;
    }
  }
  return found;
}

/**
 * What is in a folder, as many at a time as the browser likes.
 * @param {FileSystemDirectoryEntry} folder
 */
async function* batches(folder) {
  const reader = folder.createReader();
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const entries = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (entries.length === 0) return;
    yield entries;
  }
}

/**
 * @param {FileSystemFileEntry} entry
 * @returns {Promise<Chosen | null>}
 */
function read(entry) {
  return new Promise((resolve) => {
    entry.file((file) => resolve({ file, name: entry.fullPath.replace(/^\//, ""), empty: false }), () => resolve(null));
  });
}
