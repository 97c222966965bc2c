// Compares the tables of the page's words with the English one, and that with
// index.html. It says on stderr what differs.

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";

const folder = new URL("../../../web/static/", import.meta.url);
const read = (name) => readFile(new URL(name, folder), "utf8");

/** @type {Map<string, Record<string, string | Record<string, string>>>} */
const tables = new Map();
for (const file of await readdir(new URL("words/", folder))) {
  const source = await read(`words/${file}`);
  tables.set(file.replace(/\.js$/, ""), (await import(`data:text/javascript,${encodeURIComponent(source)}`)).default);
}
assert.deepEqual([...tables.keys()].sort(), ["ar", "de", "en", "es", "fr", "he", "ja", "zh"]);

const places = (text) => [...text.matchAll(/\{(\w+)\}/g)].map((m) => m[1]).sort();
const english = tables.get("en");

for (const [language, table] of tables) {
  assert.deepEqual(Object.keys(table), Object.keys(english), `${language}: its keys, and their order`);
  const { pluralCategories } = new Intl.PluralRules(language).resolvedOptions();
  for (const [key, entry] of Object.entries(table)) {
    const at = `${language}: ${key}`;
    assert.equal(typeof entry, typeof english[key], at);
    if (typeof entry === "string") {
      check(entry, places(english[key]), at);
      continue;
    }
    assert.deepEqual(Object.keys(entry).sort(), [...pluralCategories].sort(), `${at}: forms`);
    for (const [form, text] of Object.entries(entry)) {
      // A form for one number may say it in a word.
      const optional = ["zero", "one", "two"].includes(form) && !text.includes("{n}");
      check(text, places(english[key].other).filter((place) => !(optional && place === "n")), `${at}.${form}`);
    }
  }
}

/** Fails unless the text has these places, and is clean. */
function check(text, wanted, at) {
  assert.deepEqual(places(text), wanted, `${at}: its places`);
  assert.notEqual(text, "", at);
  assert.equal(text, text.trim().normalize("NFC"), at);
  assert.ok(!/[{}]/.test(text.replace(/\{\w+\}/g, "")), `${at}: a brace that is no place`);
}

// What index.html says until a table is loaded is what the English one says,
// and all that it says.
const page = (await read("index.html")).replace(/<!--.*?-->|<noscript>.*?<\/noscript>|<(title|style|script|code|h1)\b.*?<\/\1>/gs, "");
const keyed = page.replace(/<(\w+)\b[^>]*\sdata-words="(\w+)"[^>]*>(.*?)<\/\1>/gs, (_, tag, key, content) => {
  assert.equal(content.replace(/<(\w+)\b[^>]*\sdata-slot="(\w+)"[^>]*>.*?<\/\1>/g, "{$2}"), english[key], `index.html: ${key}`);
  return "";
});
assert.equal(keyed.replace(/<[^>]*>/g, "").trim(), "", "index.html: text without a key");

// Every key is used.
const scripts = (await Promise.all((await readdir(folder)).filter((f) => f.endsWith(".js")).map(read))).join("\n");
for (const key of Object.keys(english)) {
  const used = key.endsWith("Of") && key !== "sizeOf" ? `"${key.slice(0, -2)}"` : `"${key}"`;
  assert.ok(scripts.includes(used) || page.includes(`data-words="${key}"`), `nothing says ${key}`);
}
