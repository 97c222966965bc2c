// Has Lighthouse look at pages. It is run as
//
//	node lighthouse.mjs JSON
//
// where JSON says where the pages are, which of Lighthouse's categories count,
// how often it is to look and what the median of their scores is to be at least.
// It writes the medians to stdout, exits with 0 if they are enough, and says on
// stderr what they lack otherwise.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const npm = createRequire(new URL("../../../tools/npm/package.json", import.meta.url));
const { chromium } = npm("playwright-core");
const { default: lighthouse, desktopConfig } = await import(npm.resolve("lighthouse"));

const given = JSON.parse(process.argv[2]);

/** How often it looks again when it could not see: what else runs may keep it from that. */
const most = 5;

/** Milliseconds that a page may take to show, and to be at rest. */
const patience = 120_000;

const measures = given.categories.includes("performance");

/** What has no time measured is looked at as soon as it is there. */
const hurry = { pauseAfterFcpMs: 0, pauseAfterLoadMs: 0, networkQuietThresholdMs: 500, cpuQuietThresholdMs: 100, disableFullPageScreenshot: true };

// Lighthouse needs a port, and the driver ends the browser whatever happens.
const context = await chromium.launchPersistentContext(given.profile, {
  executablePath: given.program,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--remote-debugging-port=0"],
});
try {
  const port = await debuggingPort();
  for (const [what, url] of Object.entries(given.pages)) {
    for (const device of ["mobile", "desktop"]) await judge(port, what, url, device);
  }
} finally {
  await context.close();
}

async function judge(port, what, url, device) {
  const looks = [];
  while (looks.length < given.looks) looks.push(await look(port, url, device === "desktop" ? desktopConfig : undefined));
  for (const category of given.categories) {
    const score = median(looks.map(({ categories }) => categories[category].score * 100));
    console.log(`${what}, ${device}: ${category} ${Math.round(score)}${measures ? `, ${figures(looks)}` : ""}`);
    if (score >= given.least) continue;
    process.exitCode = 1;
    console.error(`${what}, ${device}: ${category} is ${score}, want ${given.least}:\n${lacks(looks[0], category).join("\n")}`);
  }
}

async function debuggingPort() {
  for (let left = patience; ; left -= 50) {
    const file = await readFile(join(given.profile, "DevToolsActivePort"), "utf8").catch((err) => { if (left <= 0) throw err; });
    if (file?.includes("\n")) return Number(file.split("\n")[0]);
    await pause(50);
  }
}

async function look(port, url, config) {
  const flags = { port, logLevel: "error", onlyCategories: given.categories, maxWaitForFcp: patience, maxWaitForLoad: patience, ...(measures ? {} : hurry) };
  let troubles = [];
  for (let i = 0; i < most; i++) {
    const { lhr } = await lighthouse(url, flags, config);
    const scored = Object.values(lhr.categories).length === given.categories.length && Object.values(lhr.categories).every(({ score }) => score !== null);
    if (scored && lhr.runWarnings.length === 0) return lhr;
    troubles = [lhr.runtimeError?.message, ...lhr.runWarnings, ...Object.values(lhr.audits).map((audit) => audit.errorMessage)].filter(Boolean);
  }
  throw new Error(`Lighthouse cannot look: ${troubles.join("; ")}`);
}

/** What keeps a category from all of its points. */
function lacks({ categories, audits }, category) {
  return categories[category].auditRefs
    .filter(({ id, weight }) => weight > 0 && audits[id].score !== null && audits[id].score < 1)
    .map(({ id }) => `${id}: ${audits[id].title} ${audits[id].displayValue ?? ""} ${JSON.stringify(audits[id].details?.items ?? "").slice(0, 1000)}`);
}

/** What its performance is made of: the medians of milliseconds, and of how far things move. */
function figures(looks) {
  const value = (id) => median(looks.map(({ audits }) => audits[id].numericValue));
  const times = Object.entries({ FCP: "first-contentful-paint", LCP: "largest-contentful-paint", SI: "speed-index", TBT: "total-blocking-time" })
    .map(([short, id]) => `${short} ${Math.round(value(id))} ms`);
  return [...times, `CLS ${value("cumulative-layout-shift").toFixed(3)}`].join(", ");
}

function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}
