// Validates the pages and style sheets that a gateway serves. It is run as
//
//	node valid.mjs FOLDER
//
// where FOLDER has them as .html and .css files. It exits with 0 if they are as
// the standards have them, and says on stderr what is not.

import { readdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const packages = fileURLToPath(new URL("../../../tools/npm/package.json", import.meta.url));
const npm = createRequire(packages);
const { HtmlValidate, StaticConfigLoader } = npm("html-validate");
const { default: stylelint } = await import(npm.resolve("stylelint"));

const html = new HtmlValidate(new StaticConfigLoader({
  root: true,
  extends: ["html-validate:recommended", "html-validate:document"],
  rules: { "require-sri": ["error", { target: "crossorigin" }] }, // what is ours needs no digest to be known by
}));

const css = {
  extends: "stylelint-config-recommended",
  rules: { "no-descending-specificity": null }, // our sheet goes by the parts of the page
};

const validators = {
  async ".html"(name, text) {
    const { results } = await html.validateString(text, name);
    return results.flatMap(({ messages }) => messages.map((m) => `${m.line}:${m.column}: ${m.message} (${m.ruleId})`));
  },
  async ".css"(name, text) {
    const { results } = await stylelint.lint({ code: text, codeFilename: name, config: css, configBasedir: dirname(packages) });
    return results.flatMap(({ warnings, parseErrors, invalidOptionWarnings }) => [
      ...warnings.map((w) => `${w.line}:${w.column}: ${w.text}`),
      ...[...parseErrors, ...invalidOptionWarnings].map((e) => e.text),
    ]);
  },
};

const [folder] = process.argv.slice(2);
for (const name of await readdir(folder)) {
  const path = join(folder, name);
  for (const remark of await validators[extname(name)](path, await readFile(path, "utf8"))) {
    console.error(`${name}:${remark}`);
    process.exitCode = 1;
  }
}
