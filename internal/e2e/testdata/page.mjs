// Uses Ferry's page in a browser as people do. It is run as
//
//	node page.mjs SCENARIO JSON
//
// where JSON says where the page is and what files there are to send. It exits
// with 0 if everything was as it should be, and says on stderr what was not.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { request } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const npm = createRequire(new URL("../../../tools/npm/package.json", import.meta.url));
const { chromium, firefox } = npm("playwright-core");
const axeSource = await readFile(npm.resolve("axe-core/axe.min.js"), "utf8");

const scenarios = { journey, large, keyboard, states, coloured, troubled, many, scriptless, languages, pseudo, tokens, folders, thousands, tabs, restart, history, destinations, unreachable, docs };
const [name, parameters] = process.argv.slice(2);
const given = JSON.parse(parameters);

/** How long anything may take to show, on a machine that is busy with other tests. */
const patience = 60_000;

/** What every page's Content-Security-Policy has, and what those have that are all ours. */
const commonPolicies = ["default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"];
const ownPolicies = [...commonPolicies, "require-trusted-types-for 'script'", "trusted-types ferry"];

const inFirefox = given.browser === "firefox";
const browser = await (inFirefox ? firefox : chromium).launch({
  ...(inFirefox
    ? { channel: "moz-firefox", firefoxUserPrefs: given.preferences } // Debian's, by WebDriver BiDi
    : { args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"] }),
  executablePath: given.program,
  env: { ...process.env, FONTCONFIG_FILE: given.fonts },
});
try {
  await scenarios[name]();
} finally {
  await browser.close();
}

/**
 * Opens the page, and notes whatever it should not do.
 * refused is what the page is expected to be refused: METHOD /path STATUS; repeated,
 * what of that may come more than once.
 * prepare is called with the page before it goes anywhere.
 */
async function open({ refused = [], repeated = [], prepare, at = "/", policies = ownPolicies, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 900 }, ...options });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  const faults = [];
  const expected = [...refused];
  page.on("pageerror", (err) => faults.push(`exception: ${err.stack}`));
  page.on("dialog", (dialog) => {
    if (dialog.type() === "beforeunload") return dialog.accept();
    faults.push(`dialog: ${dialog.message()}`);
  });
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== given.base) faults.push(`request to ${request.url()}`);
  });
  page.on("response", (response) => {
    if (response.status() < 400) return;
    const line = `${response.request().method()} ${new URL(response.url()).pathname} ${response.status()}`;
    const at = expected.indexOf(line);
    if (at >= 0) expected.splice(at, 1);
    else if (!repeated.includes(line)) faults.push(`answer: ${line}`);
  });
  page.on("console", (message) => {
    // What was answered is noted above.
    if (/^Failed to load resource: (the server responded with|net::ERR_)/.test(message.text())) return;
    if (["error", "warning"].includes(message.type())) faults.push(`console: ${message.text()}`);
  });
  await prepare?.(page);
  const answer = await page.goto(given.base + at);
  const policy = answer.headers()["content-security-policy"] ?? "";
  for (const must of policies) {
    assert.ok(policy.includes(must), `Content-Security-Policy is ${policy}, want ${must} in it`);
  }
  assert.ok(!/unsafe|https?:|\*/.test(policy), `Content-Security-Policy is too wide: ${policy}`);
  const close = async () => {
    assert.deepEqual(faults, []);
    assert.deepEqual(expected, [], "these refusals were expected and did not come");
    await context.close();
  };
  return { page, faults, close };
}

/** The row of a file, the newest if there are several. */
function row(page, file) {
  return page.locator(".row").filter({ has: page.locator("h3").getByText(file, { exact: true }) }).first();
}

/** Waits until the last attempt that the details of a file list reads like that. */
async function attempt(page, file, pattern) {
  const list = row(page, file).locator(".attempts");
  try {
    await page.waitForFunction(([list, pattern, flags]) => new RegExp(pattern, flags).test(list.lastElementChild?.innerText ?? ""), [await list.elementHandle(), pattern.source, pattern.flags]);
  } catch (err) {
    throw new Error(`the last attempt of ${file} is not like ${pattern}: ${await list.innerText()}`, { cause: err });
  }
}

/** Scrolls to the row of a file: those that are far have their names alone. */
async function near(page, file) {
  await row(page, file).evaluate((row) => row.scrollIntoView({ block: "nearest" }));
}

/** Waits until the row of a file begins its line of state with words. */
async function stands(page, file, words) {
  const line = row(page, file).locator(".state").filter({ hasText: new RegExp(`^${words}`) });
  try {
    await near(page, file);
    await line.waitFor();
  } catch (err) {
    throw new Error(`${file} is not ${words}; it says ${await row(page, file).innerText({ timeout: 1000 }).catch(() => "nothing")}; the rows say:\n${(await page.locator(".row:not(.far)").allInnerTexts()).join("\n--\n")}`, { cause: err });
  }
}

/** Waits until something holds that has to be asked for: a page's own wait takes the promise of it for the answer. */
async function until(holds) {
  for (const limit = performance.now() + patience; !(await holds()); await new Promise((resolve) => setTimeout(resolve, 100))) {
    assert.ok(performance.now() < limit, `this has not come to hold: ${holds}`);
  }
}

async function heard(page, text) {
  await page.locator("#said").getByText(text).first().waitFor({ state: "attached" });
}

/** Drops files on the middle of the page, and sees the page react before. */
async function drop(page, files) {
  const transfer = await page.evaluateHandle((files) => {
    const transfer = new DataTransfer();
    for (const { name, bytes } of files) transfer.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name));
    return transfer;
  }, files.map(({ name, bytes }) => ({ name, bytes: bytes.toString("base64") })));
  await page.dispatchEvent("h1", "dragover", { dataTransfer: transfer });
  assert.ok(await page.evaluate(() => document.body.classList.contains("hover")), "the page does not show that files may be dropped");
  await page.dispatchEvent("h1", "drop", { dataTransfer: transfer });
  assert.ok(!(await page.evaluate(() => document.body.classList.contains("hover"))));
}

/** Fails on anything that axe finds, in light and in dark, and in the colours that a system forces; in Firefox, in those that it has. */
async function accessible(page, forced = "none") {
  for (const colorScheme of inFirefox ? [given.media ?? "light"] : ["light", "dark"]) {
    if (!inFirefox) await page.emulateMedia({ colorScheme, reducedMotion: "reduce", forcedColors: forced });
    await page.evaluate(axeSource);
    const { violations, passes } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations", "passes"] }));
    const found = violations.map((v) => `${colorScheme}: ${v.id}: ${v.help}: ${v.nodes.map((n) => `${n.html} ${n.failureSummary}`).join("\n")}`);
    assert.deepEqual(found, []);
    assert.ok(passes.some((p) => p.id === "color-contrast"), "axe has not looked at contrast");
  }
  if (!inFirefox) await page.emulateMedia({ colorScheme: "light", reducedMotion: null, forcedColors: null });
}

/** In forced colours, what is said by colour is said otherwise as well. */
async function forced(page) {
  await accessible(page, "active");
  await page.emulateMedia({ forcedColors: "active" });
  assert.ok(await page.evaluate(() => matchMedia("(forced-colors: active)").matches));
  const [icon, ground] = await page.evaluate(() => [getComputedStyle(document.querySelector(".row .icon")).stroke, getComputedStyle(document.body).backgroundColor]);
  assert.notEqual(icon, ground, "icons can be told from the ground");
  await shows(page, given.files.receiving);
  if (given.pictures) await page.screenshot({ path: join(given.pictures, "forced.png"), fullPage: true });
  await page.emulateMedia({ forcedColors: null });
}

/** Fails if the page is wider than a narrow window. */
async function narrow(page) {
  const before = page.viewportSize();
  await page.setViewportSize({ width: 320, height: 800 });
  const [width, wide] = await page.evaluate(() => [
    document.documentElement.scrollWidth,
    [...document.body.querySelectorAll("*")].filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > 320).map((e) => e.outerHTML.slice(0, 120)),
  ]);
  assert.ok(width <= 320, `at 320 px the page is ${width} px wide: ${wide.join("\n")}`);
  await page.setViewportSize(before);
}

/** Has whoever runs this do something, and waits until it is done. */
async function ask(action) {
  process.stdout.write(`${action}\n`);
  const lines = createInterface({ input: process.stdin });
  await once(lines, "line");
  lines.close();
  process.stdin.pause();
}

/** Sends a file past the page. */
async function post(name, content) {
  const answer = await fetch(`${given.base}/uploads?name=${encodeURIComponent(name)}`, { method: "POST", body: content, headers: { "Content-Type": "text/plain" } });
  assert.equal(answer.status, 202, `${name}: ${await answer.text()}`);
}

/** How many uploads the gateway lists. */
async function listed(query) {
  const { uploads } = await (await fetch(new URL(`/uploads?${query}`, given.base))).json();
  return uploads.length;
}

/** Has the page look at the list, whether events come or not. */
async function look(page) {
  await page.evaluate(() => window.dispatchEvent(new Event("online")));
}

/** Downloads the receipt of a file. */
async function keep(page, file) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: `Receipt of ${file}` }).click()]);
  assert.ok((await readFile(await download.path())).length > 0);
}

async function choose(page, ...files) {
  await page.getByLabel("Choose files").setInputFiles(files.map((file) => join(given.dir, file)));
}

/** Files are chosen and dropped, delivered, refused, and removed. */
async function journey() {
  const { page, close } = await open({ refused: ["POST /uploads 409"] });
  await page.getByText("Nothing has been sent yet").waitFor();
  assert.equal(await page.locator("#curl").innerText(), `curl -F file=@FILE ${given.base}/uploads`);
  await accessible(page);
  await narrow(page);

  await choose(page, "chosen.bin", "empty.txt", given.long);
  await drop(page, [
    { name: "dropped.txt", bytes: await readFile(join(given.dir, "dropped.txt")) },
    { name: given.markup, bytes: Buffer.from("only a name") },
  ]);
  for (const file of ["chosen.bin", "empty.txt", given.long, "dropped.txt", given.markup]) await stands(page, file, "Delivered");
  await heard(page, /^(dropped\.txt is|\d files are) delivered\./); // many at once are counted
  assert.equal(await row(page, given.markup).locator("h3").innerText(), given.markup, "a name is text");
  assert.equal(await page.locator(".row img, .row b, .row script").count(), 0, "a name became elements");
  assert.equal(await page.locator(".row").count(), 5, "one row a file");
  await row(page, "chosen.bin").getByText("Details").click();
  await row(page, "chosen.bin").getByText(given.sha256).waitFor();
  await row(page, "chosen.bin").getByText("the same as the file on this computer").waitFor();
  await attempt(page, "chosen.bin", /^1\n?.* · Delivered · took [\d.,]+ \w+$/);
  assert.equal(await row(page, "chosen.bin").locator(".attempts li").count(), 1, "attempts");
  await keep(page, "chosen.bin");

  // The gateway has other bytes under the name.
  await choose(page, join("other", "chosen.bin"));
  await stands(page, "chosen.bin", "Not sent");
  await heard(page, /^chosen\.bin was not sent\. Another file has the name/);
  await row(page, "chosen.bin").filter({ hasText: "Not sent" }).getByRole("button", { name: "Remove chosen.bin" }).click();

  // The server has, which the gateway does not know.
  await choose(page, "taken.bin");
  await stands(page, "taken.bin", "Failed");
  await row(page, "taken.bin").getByText("another file named").waitFor();
  await heard(page, /^taken\.bin failed\. .*another file named/);
  await page.locator("#summary").getByText("1 failed").waitFor();

  await accessible(page);
  await narrow(page);

  // What is shown is what the gateway has, not what the page remembers.
  await page.reload();
  await stands(page, "taken.bin", "Failed");
  assert.equal(await page.locator(".row").count(), 6);
  assert.equal(await page.locator("#said p").count(), 0, "what was there before is no news");

  // No string becomes markup or a script, whoever's mistake it is.
  const other = await page.context().newPage();
  await other.goto(given.base);
  await assert.rejects(other.evaluate(() => { document.body.innerHTML = "<b>bold</b>"; }), /TrustedHTML|blocked by CSP/);
  await assert.rejects(other.evaluate(() => new Worker("app.js")), /TrustedScriptURL|blocked by CSP/);
  await close();
}

/** A file that is larger than the destination's version carries. */
async function large() {
  const { page, close } = await open({ refused: ["POST /uploads 413"] });
  await choose(page, given.large);
  await stands(page, given.large, "Not sent");
  await row(page, given.large).getByText("too large").waitFor();
  await row(page, given.large).getByRole("button", { name: `Remove ${given.large}` }).click();
  await row(page, given.large).waitFor({ state: "detached" });
  await close();
}

/** The same with a keyboard alone. */
async function keyboard() {
  const { page, close } = await open();
  await page.locator("#curl").getByText(given.base).waitFor(); // the scripts have begun
  page.on("filechooser", () => {}); // else choosers are caught from time to time only, and one may slip through
  for (const [file, key] of [["one.txt", "Enter"], ["two.txt", "Space"]]) {
    await tabTo(page, "Choose files", 1);
    const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.keyboard.press(key)]);
    await chooser.setFiles(join(given.dir, file));
    await stands(page, file, "Delivered");
    assert.equal(await focused(page), "Choose files", "focus stays when rows come");
    if (file === "two.txt") break;
    // The driver leaves Firefox's chooser open, and there is no second one.
    await page.reload();
    await page.locator("#curl").getByText(given.base).waitFor();
  }

  await tabTo(page, "Details of two.txt", 6);
  await page.keyboard.press("Enter");
  await row(page, "two.txt").getByText("SHA-256").waitFor();
  await tabTo(page, "Remove two.txt", 4); // past what can be copied
  // The list comes anew meanwhile, and focus and details stay.
  for (let i = 0; i < 2; i++) await Promise.all([page.waitForResponse((r) => r.url().includes("/uploads?")), look(page)]);
  assert.equal(await focused(page), "Remove two.txt");
  assert.ok(await row(page, "two.txt").getByText("SHA-256").isVisible());
  await page.keyboard.press("Enter");
  await row(page, "two.txt").waitFor({ state: "detached" });
  assert.equal(await focused(page), "Remove one.txt", "focus goes to the next row");
  await page.keyboard.press("Enter");
  await row(page, "one.txt").waitFor({ state: "detached" });
  assert.equal(await focused(page), "Uploads");
  await tabTo(page, "Copy the curl command", 2);
  await close();
}

/** Presses Tab until the focus is there, and sees that it can be seen. */
async function tabTo(page, target, most) {
  const met = [];
  for (let i = 0; i < most; i++) {
    await page.keyboard.press("Tab");
    met.push(await focused(page));
    const visible = await page.evaluate(() => {
      const focused = document.activeElement.closest(".choose") ?? document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(focused);
      return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
    });
    assert.ok(visible, `the focus on ${met.at(-1)} cannot be seen`);
    if (met.at(-1) === target) return;
  }
  assert.fail(`${most} times Tab led to ${met.join(", ")}; want ${target}`);
}

/** What has the focus, as it is called. */
async function focused(page) {
  return page.evaluate(() => {
    const e = document.activeElement;
    return (e.labels?.[0]?.textContent ?? e.ariaLabel ?? e.textContent).trim().replace(/\s+/g, " ");
  });
}

/** All states at once, live. */
async function states() {
  const { page, close } = await open({ deviceScaleFactor: 2, viewport: { width: 900, height: 900 }, prepare: (page) => page.addInitScript(late) });
  const { delivered, delivering, waiting, receiving, failed, cancelled } = given.files;
  await stands(page, delivered, "Delivered");
  await stands(page, delivering, "Delivering (attempt \\d+ · )?packet [1-9][\\d,]* of [\\d,]+");
  await stands(page, waiting, "Waiting .* · next attempt (now|in \\d+ seconds?|in \\d minutes?) "); // by the gateway's clock
  await stands(page, receiving, "Receiving [\\d.]+ MB of [\\d.]+ MB");
  await stands(page, failed, "Failed");
  await stands(page, cancelled, "Cancelled");
  assert.notEqual(await row(page, waiting).locator(".reason").innerText(), "", "why it waits");

  const bar = (file, what) => row(page, file).getByRole("progressbar", { name: `${file}: ${what}` });
  const share = (bar) => bar.evaluate((e) => e.position);
  assert.ok((await share(bar(receiving, "received by the gateway"))) > 0.2);
  assert.equal(await share(bar(receiving, "delivered to the destination")), 0);
  assert.equal(await share(bar(delivering, "received by the gateway")), 1);
  const before = await share(bar(delivering, "delivered to the destination"));
  // The server acknowledges 4 MiB at a time, of which few come in a second.
  await page.waitForFunction(([bar, before]) => bar.position > before, [await bar(delivering, "delivered to the destination").elementHandle(), before]);

  await stands(page, delivering, "Delivering .*· [\\d.]+ [kM]?B/s · done in \\d+ \\w+");

  await picture(page);
  await accessible(page);
  if (!inFirefox) await forced(page); // whose driver emulates none: it is seen there by itself, as dark is
  await narrow(page);

  await row(page, delivering).getByRole("button", { name: `Cancel ${delivering}` }).focus();
  await page.keyboard.press("Enter");
  await stands(page, delivering, "Cancelled");
  assert.equal(await focused(page), `Remove ${delivering}`, "the focus stays where the button was");
  await heard(page, `${delivering} is cancelled.`);
  const count = async () => Number(/(\d+) attempts? so far/.exec(await row(page, waiting).innerText())?.[1] ?? NaN);
  const attempts = await count();
  await row(page, waiting).getByRole("button", { name: `Try now ${waiting}` }).click();
  await page.waitForFunction(([line, attempts]) => Number(/(\d+) attempts? so far/.exec(line.textContent)?.[1]) > attempts,
    [await row(page, waiting).locator(".state").elementHandle(), attempts]);

  // Its details list all attempts, and go on doing so.
  await row(page, waiting).getByText("Details").click();
  const tried = row(page, waiting).locator(".attempts li");
  await tried.nth(attempts).waitFor();
  assert.match(await tried.first().innerText(), /^1\s.* · Not delivered · took [\d.,]+ \w+\s+\S.*[.?]$/);
  assert.deepEqual(await tried.first().locator(".why").evaluate((e) => [e.lang, e.dir]), ["en", "ltr"]);
  await stands(page, waiting, "Waiting");
  await accessible(page);
  await narrow(page);
  if (given.screenshots) await row(page, waiting).screenshot({ path: join(given.screenshots, "page-details.png") });
  const listed = await tried.count();
  await row(page, waiting).getByRole("button", { name: `Try now ${waiting}` }).click();
  await tried.nth(listed).waitFor();
  await attempt(page, waiting, / · Not delivered · /);

  // The server is there again.
  await ask("heal");
  await row(page, waiting).getByRole("button", { name: `Try now ${waiting}` }).click();
  await attempt(page, waiting, / · Deliver(ing|ed)/);
  await stands(page, waiting, "Delivered");
  await attempt(page, waiting, / · Delivered · took /);
  assert.ok(await row(page, waiting).locator("details").evaluate((e) => e.open), "the details stay open");

  // What cannot be asked for says so, and comes by itself once it can be.
  const asked = "**/uploads/*/attempts";
  await page.route(asked, (route) => route.abort("connectionrefused"), { times: 1 });
  await row(page, failed).getByText("Details").click();
  await row(page, failed).locator(".attempts").getByText("Ferry does not answer.").waitFor();
  await attempt(page, failed, / · Failed · [\s\S]*another file named/);
  await close();
}

/** Has the browser's clock be late by two hours; it runs in the browser. */
function late() {
  const Right = Date;
  globalThis.Date = class extends Right {
    constructor(...parts) {
      if (parts.length > 0) super(...parts);
      else super(Date.now());
    }
    static now = () => Right.now() - 7_200_000;
  };
}

/** Uploads in all states, in the colours that Firefox is told that the system has. */
async function coloured() {
  const { page, faults, close } = await open();
  assert.ok(await page.evaluate((media) => matchMedia(media).matches, given.media), `${given.media} is not so`);
  for (const file of Object.values(given.files)) await row(page, file).waitFor();
  const [ink, ground] = await page.evaluate(() => [getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]);
  assert.deepEqual([ink, ground], given.colours);
  await accessible(page);
  await narrow(page);
  await pictured(faults, () => shows(page, given.files.receiving));
  await close();
}

/** Looks at a picture, for which the driver tries to add a style in Firefox. */
async function pictured(faults, look) {
  const found = [...faults];
  await look();
  if (inFirefox) faults.splice(0, faults.length, ...found);
}

async function picture(page) {
  if (!given.screenshots) return;
  await page.evaluate(() => document.activeElement?.blur());
  for (const [colorScheme, file] of [["light", "page.png"], ["dark", "page-dark.png"]]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.screenshot({ path: join(given.screenshots, file), fullPage: true });
  }
}

/** What is sent or asked for does not come through; the page says why, and goes on. */
async function troubled() {
  const { page, close } = await open({ repeated: ["GET /uploads 503"], refused: ["POST /uploads 409", "POST /uploads 400", "GET /uploads 503"] });
  await choose(page, "before.txt");
  await stands(page, "before.txt", "Delivered");

  const posts = "**/uploads?name=*";
  await page.route(posts, (route) => route.abort("connectionrefused"), { times: 1 });
  await choose(page, "after.txt");
  await heard(page, "after.txt was interrupted. It starts again by itself.");
  await stands(page, "after.txt", "Delivered");
  await page.route(posts, () => {}); // it hangs
  await choose(page, "cancelled.txt");
  await stands(page, "cancelled.txt", "Receiving");
  await page.waitForRequest((request) => request.method() === "GET" && new URL(request.url()).pathname === "/uploads"); // to learn whether the gateway is there
  await row(page, "cancelled.txt").getByRole("button", { name: "Cancel cancelled.txt" }).click();
  await row(page, "cancelled.txt").waitFor({ state: "detached" });
  await heard(page, "cancelled.txt is cancelled.");
  await page.unroute(posts);

  // A file that is refused once it is there, and was seen to come in, does not vanish.
  let refuse = () => {};
  await page.route(posts, (route) => {
    refuse = () => route.fulfill({ status: 409, contentType: "application/problem+json", json: { type: "about:blank", title: "Another file has the name", status: 409 } });
  });
  const content = Buffer.from("refused\n");
  await page.getByLabel("Choose files").setInputFiles({ name: "refused.txt", mimeType: "text/plain", buffer: content });
  await stands(page, "refused.txt", "Receiving");
  const coming = request(`${given.base}/uploads?name=refused.txt`, { method: "POST", headers: { "Content-Length": content.length, "Content-Type": "text/plain" } }).on("error", () => {});
  coming.write(content.subarray(1));
  await until(async () => (await listed("limit=1&name=refused.txt")) === 1);
  const looked = async () => {
    await Promise.all([page.waitForResponse((answer) => new URL(answer.url()).search === "?limit=50"), look(page)]);
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 100)))); // and shows it
  };
  await looked();
  assert.equal(await page.locator(".row h3").getByText("refused.txt", { exact: true }).count(), 1, "rows of a file that comes in");
  await refuse();
  coming.destroy();
  await until(async () => (await listed("limit=1&name=refused.txt")) === 0);
  await looked();
  await stands(page, "refused.txt", "Not sent");
  await row(page, "refused.txt").getByRole("button", { name: "Remove refused.txt" }).click();
  await row(page, "refused.txt").waitFor({ state: "detached" });
  await page.unroute(posts);

  // Something else than the file arrives: the gateway, which has its digest, keeps nothing.
  const sent = page.waitForRequest((request) => request.method() === "POST");
  await page.evaluate(() => {
    const { send } = XMLHttpRequest.prototype;
    XMLHttpRequest.prototype.send = function () {
      XMLHttpRequest.prototype.send = send;
      send.call(this, new Blob(["chanced\n"]));
    };
  });
  await page.getByLabel("Choose files").setInputFiles({ name: "changed.txt", mimeType: "text/plain", buffer: Buffer.from("changed\n") });
  await stands(page, "changed.txt", "Not sent");
  await row(page, "changed.txt").locator(".reason").getByText("What arrived of changed.txt is not what the file on this computer is").waitFor();
  assert.equal((await sent).headers()["repr-digest"], `sha-256=:${createHash("sha256").update("changed\n").digest("base64")}:`);
  assert.deepEqual((await (await fetch(new URL("/uploads?name=changed.txt", given.base))).json()).uploads, []);
  await row(page, "changed.txt").getByRole("button", { name: "Try again changed.txt" }).click();
  await stands(page, "changed.txt", "Delivered");

  // The gateway says that it has something else.
  const read = await page.evaluateHandle(() => {
    const read = Object.getOwnPropertyDescriptor(XMLHttpRequest.prototype, "responseText");
    Object.defineProperty(XMLHttpRequest.prototype, "responseText", { get() { return read.get.call(this).replace(/(?<="sha256":")\w{4}/, "0000"); } });
    return read;
  });
  await choose(page, "damaged.txt");
  await row(page, "damaged.txt").locator(".reason").getByText("What arrived of damaged.txt is not what the file on this computer is").waitFor();
  assert.equal(await row(page, "damaged.txt").getAttribute("data-tone"), "failed");
  await heard(page, /^What arrived of damaged\.txt is not/);
  await read.evaluate((read) => Object.defineProperty(XMLHttpRequest.prototype, "responseText", read));

  // The destination has all of it, and has not said yet that it keeps it.
  const lists = "**/uploads?*limit=*";
  await page.route(lists, async (route) => {
    const response = await route.fetch();
    const list = await response.json();
    const upload = list.uploads.find((u) => u.name === "before.txt");
    const { size } = upload;
    Object.assign(upload, { state: "delivering", phase: "verifying", progress: { bytes: size, total_bytes: size, packets: 1, total_packets: 1 }, updated_at: new Date().toISOString() });
    await route.fulfill({ response, json: list }).catch(() => {}); // or it is too late for that
  });
  await look(page);
  await stands(page, "before.txt", "Delivering comparing checksums");
  const [received, delivered] = await row(page, "before.txt").locator("progress").evaluateAll((bars) => bars.map((bar) => bar.position));
  assert.equal(received, 1);
  assert.ok(delivered > 0.5 && delivered < 1, `${delivered} is delivered, says the page, before it is known`);
  assert.notEqual(await page.locator("#total-text").innerText(), "7 bytes of 7 bytes");
  await page.unroute(lists);

  let answer = (route) => route.fulfill({
    status: 503,
    contentType: "application/problem+json",
    body: JSON.stringify({ type: "about:blank", title: "Not ready", status: 503, detail: "The database is closed" }),
  });
  await page.route("**/uploads?*", (route) => answer(route));
  await look(page);
  const trouble = page.locator("#trouble");
  await trouble.getByText("Not ready. The database is closed.").waitFor();
  answer = (route) => route.abort("connectionrefused");
  await trouble.getByText("Ferry does not answer.").waitFor();
  answer = (route) => route.continue();
  await stands(page, "before.txt", "Delivered");
  await trouble.waitFor({ state: "hidden" });
  await close();
}

/** There is more than one page of the list, and more than is sent at once. */
async function many() {
  const { page, close } = await open();
  await page.getByText("Nothing has been sent yet").waitFor();
  await page.evaluate(() => {
    const send = XMLHttpRequest.prototype.send;
    let sending = 0;
    window.atOnce = 0;
    XMLHttpRequest.prototype.send = function (body) {
      window.atOnce = Math.max(window.atOnce, ++sending);
      this.upload.addEventListener("loadend", () => sending--);
      send.call(this, body);
    };
  });
  const names = Array.from({ length: 60 }, (_, i) => `${String(i + 1).padStart(2, "0")}.txt`);
  await page.getByLabel("Choose files").setInputFiles(names.map((name) => ({ name, mimeType: "text/plain", buffer: Buffer.from(name) })));
  await stands(page, "60.txt", "Delivered");
  assert.equal(await page.evaluate(() => window.atOnce), 3, "files sent at once");

  await page.reload();
  await stands(page, "60.txt", "Delivered");
  assert.equal(await page.locator(".row").count(), 50);
  await page.getByRole("button", { name: "Show more" }).click();
  await stands(page, "01.txt", "Delivered");
  assert.equal(await page.locator(".row").count(), 60);
  await page.getByRole("button", { name: "Show more" }).waitFor({ state: "hidden" });
  assert.equal(await page.locator("#said p").count(), 0, "what was sent long ago is no news");
  await close();
}

/** Each language in every state, for visitors who want it. */
async function languages() {
  const tables = new Map();
  for (const { language } of given.languages) tables.set(language, await table(language));
  for (const { language, locale, direction } of given.languages) {
    const words = tables.get(language);
    const loaded = [];
    const { page, faults, close } = await open({
      locale,
      prepare: (page) => page.on("request", (r) => loaded.push(...r.url().match(/(?<=words\/)\w+/g) ?? [])),
    });
    for (const [state, file] of Object.entries(given.files)) await stands(page, file, words[state]);
    assert.deepEqual(loaded, [language], `tables loaded for ${locale}`);
    const [lang, dir] = await page.evaluate(() => [document.documentElement.lang, document.documentElement.dir]);
    assert.deepEqual([lang, dir], [locale, direction]);
    assert.equal(await page.locator(".choose label").innerText(), words.choose);

    // What the gateway says is English, and is read so.
    for (const reason of await page.locator(".reason:not([hidden])").all()) {
      assert.deepEqual(await reason.evaluate((e) => [e.lang, getComputedStyle(e).direction]), ["en", "ltr"]);
    }
    for (const details of await page.locator("details:not([hidden]) summary").all()) await details.click();
    const tried = row(page, given.files.waiting).locator(".attempts li");
    await tried.getByText(words.undelivered).nth(3).waitFor();
    assert.equal(await tried.nth(1).locator(".number").innerText(), new Intl.NumberFormat(locale).format(2));
    await pictured(faults, () => fillsFrom(page, direction));
    await accessible(page);
    await narrow(page);
    if (given.screenshots && !inFirefox) {
      await page.screenshot({ path: join(given.screenshots, `${language}.png`), fullPage: true });
      await page.setViewportSize({ width: 320, height: 800 });
      await page.screenshot({ path: join(given.screenshots, `${language}-narrow.png`), fullPage: true });
    }
    await close();
  }

  // Who wants none of these reads English; who tries one, that.
  for (const [wanted, at, lang] of [[["xx", "pt-BR"], "/", "en"], [["pt-BR", "ar-EG", "de"], "/", "ar-EG"], [["de"], "/?lang=fr", "fr"], [["de"], "/?lang=!", "de"]]) {
    const { page, close } = await open({
      at,
      prepare: (page) => page.addInitScript((wanted) => Object.defineProperty(navigator, "languages", { value: wanted }), wanted),
    });
    await page.locator(".row").first().waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.lang), lang, `${wanted} at ${at}`);
    await close();
  }
}

/** Fails unless how far a bar is can be seen: its ends differ. */
async function shows(page, file) {
  const { left, right } = await ends(page, file);
  assert.notEqual(left, right, `both ends of the bar of ${file} are ${left}`);
}

/** The colours of the ends of a bar that is at about a half, as they are in a picture of it. */
async function ends(page, file) {
  await near(page, file);
  const bar = row(page, file).locator("progress.in");
  const share = await bar.evaluate((e) => e.position);
  assert.ok(share > 0.3 && share < 0.7, `the bar to look at is at ${share}`);
  const picture = (await bar.screenshot()).toString("base64");
  return page.evaluate(async (picture) => {
    const bitmap = await createImageBitmap(new Blob([Uint8Array.from(atob(picture), (c) => c.charCodeAt(0))]));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const colour = (x) => context.getImageData(Math.floor(bitmap.width * x), bitmap.height >> 1, 1, 1).data.slice(0, 3).join(" ");
    return { left: colour(0.1), right: colour(0.9), filled: getComputedStyle(document.querySelector(".row[data-tone=moving] progress")).color.match(/\d+/g).join(" ") };
  }, picture);
}

/** Fails unless bars begin where lines of text do. */
async function fillsFrom(page, direction) {
  const { left, right, filled } = await ends(page, given.half);
  assert.equal(direction === "ltr" ? left : right, filled, `the filled end; ${left}, ${right}`);
  assert.notEqual(direction === "ltr" ? right : left, filled, "the empty end");
}

/** The table of a language, as the page gets it. */
async function table(language) {
  const source = await (await fetch(`${given.base}/words/${language}.js`)).text();
  return (await import(`data:text/javascript,${encodeURIComponent(source)}`)).default;
}

/** In a language that brackets its words, and what Intl writes, no letter is outside of brackets. */
async function pseudo() {
  const accented = { a: "á", e: "é", i: "í", o: "ó", u: "ú", A: "Á", E: "É", I: "Í", O: "Ó", U: "Ú" };
  const strange = (text) => `⟦${text.replace(/\{\w+\}|[aeiou]/gi, (s) => accented[s] ?? s).replace(/\{(link|command)\}/, "⟧{$1}⟦")}⟧`;
  const words = Object.fromEntries(Object.entries(await table("en")).map(([key, entry]) => [
    key, typeof entry === "string" ? strange(entry) : Object.fromEntries(Object.entries(entry).map(([form, text]) => [form, strange(text)])),
  ]));
  const { page, close } = await open({
    at: "/?lang=en",
    refused: ["GET /uploads 418"],
    repeated: ["GET /uploads 418"],
    async prepare(page) {
      await page.route("**/words/en.js", (route) => route.fulfill({ contentType: "text/javascript", body: `export default ${JSON.stringify(words)};` }));
      await page.addInitScript(() => {
        for (const { prototype } of [Intl.NumberFormat, Intl.DateTimeFormat, Intl.RelativeTimeFormat]) {
          const { format } = Object.getOwnPropertyDescriptors(prototype);
          if (format.value) prototype.format = function (...values) { return `⟦${format.value.apply(this, values)}⟧`; };
          else Object.defineProperty(prototype, "format", { get() { const write = format.get.call(this); return (value) => `⟦${write(value)}⟧`; } });
        }
      });
    },
  });
  await row(page, given.half).waitFor();
  await inTable(page);
  // Of one there is little left, as of one that was tried very often.
  await page.route("**/uploads/*/attempts", async (route) => {
    const answer = await route.fetch();
    const { count, attempts } = await answer.json();
    const odd = attempts.map((a, i) => ({ ...a, number: i === 0 ? 1 : i + 3, bytes: 1000, resumed_from: 500, destination: "v4://ELSEWHERE" }));
    await route.fulfill({ json: { count, attempts: odd } });
  });
  for (const details of await page.locator("details:not([hidden]) summary").all()) await details.click();
  await page.locator(".attempts li").nth(4).waitFor();
  await inTable(page);
  await page.unroute("**/uploads/*/attempts");

  await page.route("**/uploads?name=*", (route) => route.abort("connectionrefused"));
  await page.locator("#files").setInputFiles([{ name: "ABC.TXT", mimeType: "text/plain", buffer: Buffer.from("abc") }]);
  await near(page, "ABC.TXT");
  await row(page, "ABC.TXT").locator(".reason").waitFor();
  await inTable(page);
  await page.unroute("**/uploads?name=*");
  await page.route("**/uploads?name=*", () => {}); // it hangs
  await page.locator("#files").setInputFiles([1, 2, 3, 4].map((i) => ({ name: `${i}.TXT`, mimeType: "text/plain", buffer: Buffer.from("1234") })));
  await row(page, "4.TXT").waitFor();
  await inTable(page);
  await page.unroute("**/uploads?name=*");

  await near(page, given.half);
  await row(page, given.half).locator(".remove").click();
  await page.locator("#copy").click();
  await page.locator("#said p").nth(1).waitFor({ state: "attached" });
  await inTable(page);
  // Each trouble lasts until it has been seen.
  for (const [mark, answer] of [["Férry", (route) => route.abort("connectionrefused")], ["418", (route) => route.fulfill({ status: 418, body: "" })]]) {
    await page.route("**/uploads?*", answer);
    await look(page);
    await page.locator("#trouble").getByText(mark).waitFor();
    await inTable(page);
    await page.unroute("**/uploads?*", answer);
  }
  await close();
}

/** Fails on text with letters that no table has, and nobody marked as being in no language or English. */
async function inTable(page) {
  const strangers = await page.evaluate(() => {
    const found = [];
    const own = (text) => {
      for (let before = ""; before !== text;) [before, text] = [text, text.replace(/⟦[^⟦⟧]*⟧/g, "")];
      return !/\p{L}/u.test(text);
    };
    const look = (text, where) => {
      if (!where.closest("[translate=no], [lang=en]:not(html), noscript, script, style, title") && !own(text)) found.push(`${text.trim()} in ${where.outerHTML.slice(0, 160)}`);
    };
    const texts = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) look(texts.currentNode.data, texts.currentNode.parentElement);
    for (const name of ["aria-label", "title", "alt", "placeholder", "aria-description", "aria-valuetext"]) {
      for (const node of document.querySelectorAll(`[${name}]`)) look(node.getAttribute(name), node);
    }
    return found;
  });
  assert.deepEqual(strangers, []);
}

/** Without scripts, the form alone. */
async function scriptless() {
  const context = await browser.newContext(inFirefox ? {} : { javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(given.base + "/");
  assert.ok(await page.locator("#copy").isHidden(), "scripts run");
  assert.ok(await page.locator("#sent").isHidden(), "it is sent, says the page, before anything is");
  await choose(page, "scriptless.txt");
  // By keys: for a click the driver waits until nothing moves, which Firefox does not tell without scripts.
  await page.getByRole("button", { name: "Send" }).focus();
  const [answer] = await Promise.all([page.waitForResponse((r) => r.request().method() === "POST"), page.keyboard.press("Enter")]);
  assert.equal(answer.status(), 303);
  await page.waitForURL(given.base + "/#sent");
  await page.locator("#sent").waitFor(); // by its text the driver finds nothing there
  await page.getByRole("link", { name: "read it as JSON" }).focus();
  await page.keyboard.press("Enter");
  await page.getByText('"name":"scriptless.txt"').waitFor();
  await context.close();
}

/** A gateway that wants a token gets one, and keeps the visitor's uploads from the next one. */
async function tokens() {
  const { page, close } = await open({ refused: ["GET /uploads 401", "GET /uploads 401", "GET /uploads 401"] });
  const field = page.getByLabel("Token", { exact: true });
  await field.waitFor();
  await page.waitForFunction(() => document.activeElement?.id === "token");
  assert.ok(await page.locator("#form").isHidden(), "nothing can be sent yet");
  assert.ok(await page.locator("#uploads").isHidden());
  await accessible(page);
  await narrow(page);
  if (given.pictures && !inFirefox) await page.screenshot({ path: join(given.pictures, "sign-in.png"), animations: "disabled" });

  // What is dropped before waits.
  await drop(page, [{ name: "early.txt", bytes: Buffer.from("early\n") }]);
  await stands(page, "early.txt", "Next");

  await page.keyboard.type("wrong");
  await page.keyboard.press("Enter");
  await page.locator("#token-trouble").getByText("The gateway does not take that token").waitFor();
  assert.equal(await field.getAttribute("aria-invalid"), "true");
  await heard(page, "The gateway does not take that token");
  await accessible(page);
  await field.fill(` ${given.token} `);
  await page.keyboard.press("Enter");
  await stands(page, "early.txt", "Delivered");
  await heard(page, "You are signed in.");
  assert.equal(await focused(page), "Choose files");
  assert.ok(await field.isHidden());
  assert.match(await page.locator("#curl").innerText(), /^curl -H "Authorization: Bearer TOKEN" -F/);
  await accessible(page);

  if (!inFirefox) await keep(page, "early.txt"); // whose driver tells of no downloads of what a page makes

  // The tab keeps the token, and no other has it.
  await page.reload();
  await stands(page, "early.txt", "Delivered");
  assert.ok(!(await page.evaluate(() => JSON.stringify([localStorage, document.cookie]))).includes(given.token));
  const other = await page.context().newPage();
  await other.goto(given.base);
  await other.getByLabel("Token", { exact: true }).waitFor();
  await other.close();

  await Promise.all([page.waitForResponse((r) => r.status() === 401), page.getByRole("button", { name: "Sign out" }).click()]);
  await field.waitFor();
  assert.equal(await page.locator(".row").count(), 0, "rows left for the next visitor");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await close();
}

/** A folder is dropped, with its tree; one without files says so. */
async function folders() {
  const { page, close } = await open();
  await page.getByText("Nothing has been sent yet").waitFor();
  if (inFirefox) await dropFolders(page);
  else {
    const devtools = await page.context().newCDPSession(page);
    const data = { items: [], files: [join(given.dir, "tree"), join(given.dir, "void")], dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver", "drop"]) await devtools.send("Input.dispatchDragEvent", { type, x: 300, y: 300, data });
  }
  await stands(page, "void", "Not sent");
  await row(page, "void").getByText("There is no file in this folder").waitFor();
  await accessible(page);
  await row(page, "void").getByRole("button", { name: "Remove void" }).click();
  await until(async () => (await listed("state=delivered&limit=500")) === 300);
  await page.locator("#total-line").waitFor({ state: "hidden", timeout: 60_000 });
  assert.match(await page.locator(".row h3").first().innerText(), /^tree\//);

  await page.evaluate(() => {
    const transfer = new DataTransfer();
    transfer.items.add(new File(["pasted\n"], "pasted.txt"));
    const paste = new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true });
    if (!paste.clipboardData?.files.length) Object.defineProperty(paste, "clipboardData", { value: transfer }); // in Firefox
    document.body.dispatchEvent(paste);
  });
  await stands(page, "pasted.txt", "Delivered");

  // What browsers make of two pictures on the clipboard.
  await page.evaluate(() => {
    for (const age of [0, 2000]) {
      const transfer = new DataTransfer();
      transfer.items.add(new File([`picture ${age}\n`], "image.png", { lastModified: Date.now() - age }));
      const paste = new ClipboardEvent("paste", { bubbles: true, cancelable: true });
      Object.defineProperty(paste, "clipboardData", { value: transfer });
      document.body.dispatchEvent(paste);
    }
  });
  const pictures = page.locator(".row").filter({ has: page.locator("h3").getByText(/^image \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\.png$/) });
  await pictures.filter({ hasText: "Delivered" }).nth(1).waitFor();

  // What cannot be read is not passed over.
  await dropEntries(page, [
    { path: "/half", isDirectory: true, content: "" },
    { path: "/half/good.txt", isDirectory: false, content: "good\n" },
    { path: "/half/a\u202etxt.exe", isDirectory: false, content: "turned\n" },
    { path: "/half/bad.txt", isDirectory: false, content: null },
    { path: "/half/shut", isDirectory: true, content: null },
  ]);
  await stands(page, "half/good.txt", "Delivered");
  await row(page, "half/bad.txt").getByText("The file cannot be read any more").waitFor();
  await row(page, "half/a[U+202E]txt.exe").waitFor(); // which would look like aexe.txt
  await row(page, "half/shut").getByText("There is no file in this folder that can be read").waitFor();
  await close();
}

/** Drops the folders where no driver can: what the page is handed is made up, as Firefox hands it over, a hundred entries at a time. */
async function dropFolders(page) {
  const paths = (await readdir(given.dir, { recursive: true, withFileTypes: true }))
    .map((entry) => ({ path: join(entry.parentPath, entry.name).slice(given.dir.length), isDirectory: entry.isDirectory() }));
  const contents = await Promise.all(paths.map(({ path, isDirectory }) => (isDirectory ? "" : readFile(join(given.dir, path), "utf8"))));
  await dropEntries(page, paths.map((entry, i) => ({ ...entry, content: contents[i] })));
}

/** Hands the page a drop that is made up; null is the content of what cannot be read. */
async function dropEntries(page, entries) {
  await page.evaluate((entries) => {
    const made = entries.map(({ path, isDirectory, content }) => ({
      name: path.slice(path.lastIndexOf("/") + 1),
      fullPath: path,
      isDirectory,
      isFile: !isDirectory,
      file: (take, fail) => setTimeout(() => content === null ? fail(new DOMException("", "NotReadableError")) : take(new File([content], path.slice(path.lastIndexOf("/") + 1)))),
      createReader() {
        const left = made.filter((e) => e.fullPath.slice(0, e.fullPath.lastIndexOf("/")) === path);
        return { readEntries: (take, fail) => setTimeout(() => (content === null ? fail(new DOMException("", "NotReadableError")) : take(left.splice(0, 100)))) };
      },
    }));
    const items = made.filter((e) => e.fullPath.lastIndexOf("/") === 0).map((e) => ({ kind: "file", webkitGetAsEntry: () => e, getAsFile: () => null }));
    const drop = new DragEvent("drop", { dataTransfer: new DataTransfer(), bubbles: true, cancelable: true });
    Object.defineProperty(drop, "dataTransfer", { value: { types: ["Files"], items, files: [] } });
    document.body.dispatchEvent(drop);
  }, entries);
}

/** Five thousand files at once: the page goes on, and shows what is next. */
async function thousands() {
  const { page, close } = await open();
  await page.getByText("Nothing has been sent yet").waitFor();
  let begun = 0;
  await page.route("**/uploads?name=*", (route) => (++begun <= 100 ? route.continue() : undefined)); // the others hang
  await page.locator("#folder").setInputFiles(given.dir);
  await page.locator("#others").getByText(/^4,\d\d\d more files wait for their turn$/).waitFor();
  const longest = await page.evaluate(() => new Promise((resolve) => {
    let frames = 0;
    let longest = 0;
    let last = performance.now();
    requestAnimationFrame(function next(now) {
      longest = Math.max(longest, now - last);
      last = now;
      if (++frames === 60) resolve(longest);
      else requestAnimationFrame(next);
    });
  }));
  assert.ok(longest < 1000, `nothing moved for ${Math.round(longest)} ms`);

  // A hundred are there, three are under way, five have a row of their own.
  await page.locator("#others").getByText("4,892 more files wait for their turn", { exact: true }).waitFor();
  await page.locator("#summary").getByText("4,900 on the way").waitFor();
  assert.equal(await page.locator(".row").count(), 108, "rows");
  await heard(page, /^[\d,]+ files are delivered\./);
  await accessible(page);
  await narrow(page);
  if (given.pictures) await page.screenshot({ path: join(given.pictures, "thousands.png"), animations: "disabled" });

  await page.getByRole("button", { name: "Cancel them" }).click();
  await heard(page, "4,897 files are cancelled.");
  await page.locator("#others").waitFor({ state: "hidden" });
  await page.locator("#summary").getByText("3 on the way").waitFor();
  await close();
}

/** The API's description is shown, and what it describes can be tried. */
async function docs() {
  const { page, close } = await open({ at: given.at, policies: commonPolicies, refused: ["GET /ferry/uploads 401"] });
  await page.getByRole("heading", { name: /^Ferry/ }).waitFor();
  const shown = await page.locator(".opblock-summary").evaluateAll((all) => all.map((summary) => {
    const part = (name) => summary.querySelector(`.opblock-summary-${name}`).textContent.replaceAll("\u200b", ""); // where lines may break
    return `${part("method")} ${part("path")}`;
  }));
  assert.deepEqual(shown.toSorted(), given.operations.toSorted());
  assert.equal(await page.locator(".errors-wrapper").count(), 0, "Swagger UI finds errors");

  const list = page.locator("#operations-uploads-listUploads");
  await list.getByRole("button", { name: "get /uploads" }).first().click();
  await list.getByRole("button", { name: "Try it out" }).click();
  await list.getByRole("button", { name: "Execute" }).click();
  const live = list.locator(".live-responses-table");
  await live.getByText("401", { exact: true }).first().waitFor();

  await page.getByRole("button", { name: "Authorize" }).first().click();
  await page.locator(".auth-container input").fill(given.token);
  await page.locator(".auth-container").getByRole("button", { name: "Apply credentials" }).click();
  await page.locator(".auth-container").getByRole("button", { name: "Close" }).click();
  await list.getByRole("button", { name: "Execute" }).click();
  await live.getByText("200", { exact: true }).first().waitFor();
  await live.getByText('"uploads": []').waitFor();

  // The longest of all, with a form in it.
  await page.locator("#operations-uploads-postUploads").getByRole("button").first().click();
  await page.locator("#operations-uploads-postUploads").getByText("Durable; it will be delivered").waitFor();
  await close();
}

/** Tabs share a connection, and one takes it over from another; without one, the page asks from time to time. */
async function tabs() {
  const connections = [];
  const note = (request) => request.url().endsWith("/events") && connections.push(request.frame().page());
  const first = await open({ prepare: (page) => page.context().on("request", note) });
  const context = first.page.context();
  await first.page.getByText("Nothing has been sent yet").waitFor();
  const second = await context.newPage();
  await second.goto(given.base);
  await second.getByText("Nothing has been sent yet").waitFor();

  // With no list to be had, what they show comes by events.
  await post("shared.txt", "shared\n");
  for (const page of [first.page, second]) await stands(page, "shared.txt", "Delivered");
  let lists = "continue";
  await context.route("**/uploads?*", (route) => route[lists]());
  lists = "abort";
  await post("told.txt", "told\n");
  for (const page of [first.page, second]) await stands(page, "told.txt", "Delivered");
  lists = "continue";
  assert.deepEqual(connections.map((page) => (page === first.page ? "first" : "second")), ["first"], "one connection for both");

  const taken = context.waitForEvent("request", (request) => request.url().endsWith("/events"));
  await first.page.close();
  assert.ok((await taken).frame().page() === second, "the other tab takes over");
  await post("after.txt", "after\n");
  await stands(second, "after.txt", "Delivered");
  assert.equal(connections.length, 2);
  await context.close();

  // Neither locks, as on plain http, nor events, as behind what holds them back.
  for (const lack of [(page) => page.addInitScript(() => Object.defineProperty(navigator, "locks", { value: undefined })), (page) => page.route("**/events", (route) => route.abort())]) {
    const { page, close } = await open({ prepare: lack });
    await stands(page, "after.txt", "Delivered");
    await post(`${lack}`.length + ".txt", "asked for\n");
    await stands(page, `${lack}`.length + ".txt", "Delivered");
    await close();
  }
}

/** The gateway is killed while a file is on its way to it, and comes back. */
async function restart() {
  const { page, close } = await open();
  await choose(page, "there.txt");
  await stands(page, "there.txt", "Delivered");

  await ask("freeze");
  await choose(page, "cut.bin");
  await stands(page, "cut.bin", "Receiving");
  await page.waitForFunction(() => document.querySelector(".row .in").position > 0);
  assert.ok(await page.locator(".row .in").first().evaluate((bar) => bar.position < 1), "all is received, says the page, before it is");
  await ask("kill");
  await page.locator("#trouble").getByText("Ferry does not answer.").waitFor();
  await stands(page, "cut.bin", "Interrupted .* \\d+ attempts? so far · starts again when Ferry answers");
  await row(page, "cut.bin").getByText("The connection broke while the file was being sent.").waitFor();
  await heard(page, "cut.bin was interrupted. It starts again by itself.");
  await stands(page, "there.txt", "Delivered");
  await choose(page, "later.txt");
  await stands(page, "later.txt", "Next");
  await accessible(page);
  await narrow(page);

  await ask("start");
  for (const file of ["cut.bin", "later.txt"]) await stands(page, file, "Delivered");
  await page.locator("#trouble").waitFor({ state: "hidden" });
  assert.equal(await page.locator(".row").count(), 3, "one row a file");

  // What was on its way when the page is left cannot go on, and is named.
  await page.route("**/uploads?name=*", () => {}); // it hangs
  await page.getByLabel("Choose files").setInputFiles([{ name: "left.txt", mimeType: "text/plain", buffer: Buffer.from("left\n") }]);
  await stands(page, "left.txt", "Receiving");
  await page.reload();
  await stands(page, "left.txt", "Not sent");
  await row(page, "left.txt").getByText("The page was left before the file was sent.").waitFor();
  assert.equal(await row(page, "left.txt").getByRole("button", { name: "Try again" }).count(), 0);
  await close();
}

/** Chooses where files go, one of which is paused: they wait there, and say why. */
async function destinations() {
  const filtered = ["GET /uploads 400"]; // as often as the page looks
  const { page, close } = await open({ refused: filtered, repeated: filtered });
  const choice = page.getByLabel("Destination", { exact: true });
  await choice.waitFor();
  assert.deepEqual(await choice.locator("option").allInnerTexts(), ["one", "two"]);
  await choose(page, "first.txt");
  await stands(page, "first.txt", "Delivered");
  await choice.selectOption("two");
  await choose(page, "second.txt");
  await row(page, "second.txt").getByText("two is paused").waitFor();
  await choose(page, "empty.txt");
  await row(page, "empty.txt").getByText("two is paused").waitFor();
  assert.deepEqual(await row(page, "empty.txt").locator("progress").evaluateAll((bars) => bars.map((bar) => bar.position)), [1, 0], "how far a file without bytes is");
  await accessible(page);
  await page.reload();
  await row(page, "second.txt").getByText("two is paused").waitFor();
  await row(page, "second.txt").getByRole("button", { name: "Hold second.txt" }).click();
  await stands(page, "second.txt", "Held .* kept safely until it is released");
  await row(page, "second.txt").getByRole("button", { name: "Release second.txt" }).click();
  await stands(page, "second.txt", "Queued .* kept safely, waiting for its turn");

  // All that waits is counted, also where that is more than a page of the list.
  const form = new FormData();
  for (let i = 0; i < 60; i++) form.append("file", new Blob([String(i)]), `${i}.txt`);
  const taken = await fetch(new URL("/uploads?destination=two", given.base), { method: "POST", body: form });
  assert.equal(taken.status, 202, await taken.text()); // an answer that nobody reads would keep this from ending
  await page.reload();
  await page.locator("#summary").getByText("62 on the way", { exact: true }).waitFor();
  assert.match(await page.locator("#total-text").innerText(), /^0 bytes of \d+ bytes$/);
  // On paper each row has all that it says.
  assert.notEqual(await page.locator(".row.far").count(), 0, "all rows are near");
  await page.emulateMedia({ media: "print" });
  await page.evaluate(() => window.dispatchEvent(new Event("beforeprint")));
  assert.equal(await page.locator(".row.far").count(), 0, "rows with their names alone on paper");
  assert.equal(await page.locator("button:visible, .drop:visible").count(), 0, "what can be pressed is printed");
  await page.emulateMedia({ media: null });
  await page.evaluate(() => window.dispatchEvent(new Event("afterprint")));
  await page.locator(".row.far").first().waitFor();

  // Where there is no end of them, it is not made up.
  const lists = (url) => url.pathname === "/uploads" && url.searchParams.has("limit");
  const { uploads } = await (await fetch(new URL("/uploads?limit=1&destination=two", given.base))).json();
  await page.route(lists, async (route) => {
    const asked = new URL(route.request().url()).searchParams;
    const from = Number(asked.get("cursor") ?? 0);
    const many = Array.from({ length: Number(asked.get("limit")) }, (_, i) => ({ ...uploads[0], id: `00000000000000000000${String(100_000 - from - i).padStart(6, "0")}`, name: `${from + i}.txt` }));
    await route.fulfill({ headers: { "Content-Type": "application/json", Link: `</uploads?cursor=${from + many.length}>; rel="next"` }, json: { uploads: many } });
  });
  await page.reload();
  await page.locator("#summary").getByText(/^at least 2,[05]\d\d on the way$/).waitFor();
  await page.locator("#total-line").waitFor({ state: "hidden" });
  await page.unroute(lists);
  await page.reload();
  await row(page, "empty.txt").waitFor();

  // A filter that the gateway does not understand says so, and stops nothing.
  await page.getByText("Filter", { exact: true }).click();
  await page.getByLabel("Since").evaluate((input) => {
    input.removeAttribute("max");
    input.value = "12026-01-01"; // browsers may take it
    input.dispatchEvent(new Event("input", { bubbles: true }));
  });
  await page.getByLabel("Label", { exact: true }).fill("a b=c");
  await page.locator("#trouble").getByText("A label is not as labels are").waitFor();
  await choice.selectOption("one");
  await choose(page, "third.txt");
  await until(async () => (await listed("name=third.txt&state=delivered")) === 1);
  await page.getByRole("button", { name: "Show all" }).click();
  await page.locator("#trouble").waitFor({ state: "hidden" });
  await stands(page, "third.txt", "Delivered");

  assert.equal((await fetch(new URL("/destinations/two/resume", given.base), { method: "POST" })).status, 200);
  await stands(page, "second.txt", "Delivered");
  await stands(page, "empty.txt", "Delivered");
  await close();
}

/** Files wait for a destination that cannot be reached: each can be tried at once, and the page goes on saying when one is tried next. */
async function unreachable() {
  const { page, faults, close } = await open();
  const lists = (url) => url.pathname === "/uploads";
  let looks = 0;
  page.on("request", (request) => {
    if (request.method() === "GET" && lists(new URL(request.url()))) looks++;
  });
  const began = performance.now();
  const files = ["first.txt", "second.txt", "third.txt"];
  await page.getByLabel("Choose files").setInputFiles(files.map((name) => ({ name, mimeType: "text/plain", buffer: Buffer.from(name) })));
  const button = (file) => row(page, file).getByRole("button", { name: `Try now ${file}` });
  for (const file of files) await button(file).waitFor();
  await page.waitForFunction(() => [...document.querySelectorAll(".row .state")].filter((line) => /^Queued .* · kept safely, waiting for its turn · next attempt (now|in \d+ (second|minute)s?)/.test(line.innerText.replace(/\s+/g, " "))).length === 2);

  // When that is stays true, and is not asked for all the time.
  await staysTrue(page);
  const seconds = (performance.now() - began) / 1000;
  assert.ok(looks < 12 + seconds / 4, `the page has asked for the list ${looks} times in ${seconds} seconds`);
  await accessible(page);
  await narrow(page);
  if (given.pictures) await pictured(faults, () => page.screenshot({ path: join(given.pictures, "unreachable.png"), fullPage: true }));

  // Nor does it need to hear of the attempts, which may be somebody else's.
  const deaf = await open({ prepare: (page) => page.addInitScript(hearNothing) });
  await staysTrue(deaf.page);
  await deaf.close();

  const name = await page.locator(".row").filter({ has: page.locator(".state strong").getByText("Queued") }).last().locator("h3").innerText();
  await button(name).click();
  await row(page, name).getByText("1 attempt so far").waitFor();
  await ask("heal");
  await button(name).click();
  for (const file of files) await stands(page, file, "Delivered");
  await close();
}

/** Waits until each row says when its destination is tried next, and that is another time than before. */
async function staysTrue(page) {
  const times = () => page.locator(".row .reason").evaluateAll((reasons) => reasons.map((reason) => /the next at (\S+) UTC/.exec(reason.textContent)?.[1]));
  await row(page, "first.txt").getByText("UTC").waitFor();
  const before = await times();
  await until(async () => {
    const { next_at } = await (await fetch(new URL("/destinations/default", given.base))).json();
    const time = next_at.slice(11, 19);
    return !before.includes(time) && (await times()).every((t) => t === time);
  });
}

/** Has events begin, and none come; it runs in the browser. */
function hearNothing() {
  const { fetch } = globalThis;
  globalThis.fetch = async (address, options) => {
    if (!String(address).endsWith("/events")) return fetch(address, options);
    const say = (stream, text) => stream.enqueue(new TextEncoder().encode(text));
    return new Response(new ReadableStream({
      start: (stream) => {
        say(stream, "event: ready\ndata: {}\n\n");
        setInterval(() => say(stream, ":\n\n"), 5000); // signs of life
      },
    }));
  };
}

/** Ten thousand uploads, looked through, filtered, and acted upon. */
async function history() {
  const { page, close } = await open({ refused: ["POST /uploads 400", "POST /uploads 400"] });
  page.setDefaultTimeout(2 * patience); // the gateway is busy with all of them
  const rows = page.locator(".row");
  await page.waitForFunction(() => document.querySelectorAll(".row").length === 50);
  // The list that was asked for before "Show more" was pressed, and comes after, takes nothing away.
  await page.waitForFunction(() => document.querySelector("#more-line")?.hidden === false);
  const isList = (/** @type {URL} */ url) => url.pathname === "/uploads" && !url.searchParams.has("before");
  let release = () => {};
  const asked = new Promise((resolve) =>
    page.route(isList, async (route) => {
      const answer = await route.fetch();
      await new Promise((go) => resolve((release = go)));
      await route.fulfill({ response: answer });
    }, { times: 1 }),
  );
  await page.evaluate(() => window.dispatchEvent(new Event("online")));
  await asked;
  await page.getByRole("button", { name: "Show more" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".row").length === 100);
  const came = page.waitForResponse((answer) => isList(new URL(answer.url())));
  release();
  await came;
  await page.waitForTimeout(500);
  assert.equal(await rows.count(), 100, "rows that were shown are gone");
  const failed = [];
  page.on("requestfailed", (request) => failed.push(request.failure()?.errorText));
  await page.evaluate(() => {
    window.presses = 0;
    document.querySelector("#more").addEventListener("click", () => window.presses++);
  });
  for (let shown = 100; shown < given.many;) {
    const [failures, presses] = [failed.length, await page.evaluate(() => window.presses)];
    await page.getByRole("button", { name: "Show more" }).click();
    try {
      await page.waitForFunction((shown) => document.querySelectorAll(".row").length > shown, shown, { timeout: patience / 4 });
    } catch (err) {
      if ((await page.evaluate(() => window.presses)) === presses) continue; // rows that get their height moved the button away under the driver
      if (failed.length > failures) continue; // the page waits less long for an answer, says so, and the button is there to be pressed again
      throw new Error(`no more than ${shown} rows; the page says: ${await page.locator("#trouble").innerText()}; failed: ${failed.join(", ")}`, { cause: err });
    }
    shown = await rows.count();
  }
  assert.equal(await rows.count(), given.many);
  await page.getByRole("button", { name: "Show more" }).waitFor({ state: "hidden" });
  assert.equal(await rows.last().locator("h3").innerText(), "00000.txt");
  const filled = () => page.locator(".row:not(.far)").count();
  assert.ok((await filled()) < 200, `${await filled()} rows are made in full`);
  // By hand: looking for a row by its name takes the driver long among so many.
  await page.evaluate(() => document.querySelector(".row:last-child").scrollIntoView());
  await page.waitForFunction(() => /^Cancelled/.test(document.querySelector(".row:last-child .state")?.textContent));
  await page.waitForFunction(() => document.querySelector(".row").matches(".far")); // cleared again
  assert.ok((await filled()) < 200, `${await filled()} rows are made in full`);
  await page.evaluate(() => window.scrollTo(0, 0));

  await page.getByText("Filter", { exact: true }).click();
  await page.getByLabel("Name begins with").fill("0420");
  await page.waitForFunction(() => document.querySelectorAll(".row").length === 10);
  assert.equal(await rows.first().locator("h3").innerText(), "04200.txt", "in the order of the names");
  await accessible(page);
  await narrow(page);
  if (given.pictures && !inFirefox) await page.screenshot({ path: join(given.pictures, "history.png"), animations: "disabled" });
  await page.getByLabel("State", { exact: true }).selectOption("Failed");
  await page.getByText("Nothing matches.").waitFor();
  await accessible(page);
  await page.getByRole("button", { name: "Show all" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".row").length === 50);

  // What fails goes again, all at once.
  await page.getByLabel("Labels").fill("wrong");
  const files = ["a.txt", "b.txt"].map((name) => ({ name, mimeType: "text/plain", buffer: Buffer.from(name) }));
  await page.getByLabel("Choose files").setInputFiles(files);
  for (const { name } of files) await stands(page, name, "Not sent");
  await row(page, "a.txt").locator(".reason").getByText(/Request [0-9A-Z]{26}\./).waitFor();
  await page.getByLabel("Labels").fill("build=17, team=web");
  await page.getByRole("button", { name: "Try all failed again" }).click();
  for (const { name } of files) await stands(page, name, "(Waiting|Queued|Delivering)");
  await page.getByRole("progressbar", { name: "All that is on the way: delivered" }).waitFor();
  await page.locator("#total-text").getByText("0 bytes of 10 bytes").waitFor();

  // One is tried, as somebody wants it: by itself another one would try the destination,
  // which cannot be reached. Then it is held, and released.
  const [{ id }] = (await (await fetch(new URL("/uploads?limit=1&name=a.txt", given.base))).json()).uploads;
  await fetch(new URL(`/uploads/${id}/retry`, given.base), { method: "POST" });
  await stands(page, "a.txt", "Waiting");
  await row(page, "a.txt").getByRole("button", { name: "Hold a.txt" }).click();
  await stands(page, "a.txt", "Held .* attempts? so far .* kept safely until it is released");
  await row(page, "a.txt").getByText("Details").click();
  await row(page, "a.txt").getByText("build=17 team=web").waitFor();
  await row(page, "a.txt").getByRole("button", { name: "Copy: SHA-256" }).click();
  await heard(page, /^(It is copied|The browser did not allow copying)\./);
  await accessible(page);
  await narrow(page);
  await row(page, "a.txt").getByRole("button", { name: "Release a.txt" }).click();
  await stands(page, "a.txt", "(Waiting|Queued|Delivering)");

  await page.getByLabel("Label", { exact: true }).fill("build=17");
  await page.waitForFunction(() => document.querySelectorAll(".row").length === 2);
  await page.getByLabel("Label", { exact: true }).fill("");
  await page.getByLabel("Since").fill("2100-01-01");
  await page.getByText("Nothing matches.").waitFor();
  await close();
}
