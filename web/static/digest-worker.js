// Computes the SHA-256 of a file beside the page, which goes on meanwhile. It
// answers a file with {digest}, or {} if the file cannot be read.

import { SHA256 } from "./sha256.js";

/** What is in memory of a file at a time. */
const slice = 1 << 20;

self.addEventListener("message", async ({ data }) => {
  try {
    self.postMessage({ digest: await digest(data) });
  } catch {
    self.postMessage({});
  }
});

/** @param {File} file */
async function digest(file) {
  const sum = new SHA256();
  for (let at = 0; at < file.size; at += slice) sum.update(new Uint8Array(await file.slice(at, at + slice).arrayBuffer()));
  return sum.digest();
}
