// Compares the page's SHA-256 with that of Node.js.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";

const read = (name) => readFile(new URL(`../../../web/static/${name}`, import.meta.url), "utf8");
const address = (source) => `data:text/javascript,${encodeURIComponent(source)}`;
const sha256 = address(await read("sha256.js"));
const { SHA256 } = await import(sha256);

const random = Uint8Array.from({ length: 1 << 20 }, (_, i) => Math.imul(i + 1, 0x9e3779b1) >>> 24);

function compare(pieces, what) {
  const theirs = createHash("sha256");
  const ours = new SHA256();
  for (const piece of pieces) {
    theirs.update(piece);
    ours.update(piece);
  }
  assert.equal(ours.digest(), theirs.digest("hex"), what);
}

assert.equal(new SHA256().digest(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
for (let length = 0; length <= 4 * 64 + 1; length++) {
  const bytes = random.subarray(length, 2 * length); // no view begins where its memory does
  compare([bytes], `${length} bytes`);
  // Every way to cut it in two meets every state of a block begun before.
  if (length <= 2 * 64 + 1) for (let cut = 0; cut <= length; cut++) compare([bytes.subarray(0, cut), bytes.subarray(cut)], `${cut} of ${length} bytes`);
  compare(Array.from(bytes, (_, i) => bytes.subarray(i, i + 1)), `${length} single bytes`);
}
compare([random.subarray(3), random, random.subarray(0, 77)], "pieces with ends inside of blocks");
// Its length in bits does not fit in 32.
compare(Array.from({ length: 513 }, () => random), "513 MiB");

// The worker has little of a file in memory, and answers once for each.
const answers = [];
let ask;
globalThis.self = { addEventListener: (_, listener) => (ask = listener), postMessage: (answer) => answers.push(answer) };
await import(address((await read("digest-worker.js")).replace("./sha256.js", sha256)));
const file = new Blob([random, random, random.subarray(0, 3)]);
let held = 0;
const data = { size: file.size, slice: (from, to) => ((held = Math.max(held, to - from)), file.slice(from, to)) };
await ask({ data });
assert.deepEqual(answers, [{ digest: createHash("sha256").update(Buffer.from(await file.arrayBuffer())).digest("hex") }]);
assert.equal(held, 1 << 20, "bytes in memory at a time");
await ask({ data: { size: 1, slice: () => ({ arrayBuffer: () => Promise.reject(new Error("it cannot be read")) }) } });
assert.deepEqual(answers[1], {});
