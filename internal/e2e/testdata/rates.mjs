// Checks how the page measures speed.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

const source = await readFile(new URL("../../../web/static/rates.js", import.meta.url), "utf8");
const { Rates } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

const rates = new Rates();
rates.note("fast", 0, 0);
assert.equal(rates.of("fast", 0), 0, "before anything has moved");
for (let at = 500; at <= 5000; at += 500) rates.note("fast", at * 1000, at);
assert.equal(Math.round(rates.of("fast", 5000)), 1_000_000);
assert.equal(Math.round(rates.of("fast", 7000)), 1_000_000, "two seconds later");

// What is looked at and has not moved has no speed before long, and no time left.
for (let at = 5500; at <= 9000; at += 500) rates.note("fast", 5_000_000, at);
assert.equal(rates.of("fast", 9000), 0, "once nothing moves");
rates.note("fast", 6_000_000, 15_000);
assert.ok(Math.abs(rates.of("fast", 15_000) - 100_000) < 100_000, "the pause counts when it goes on");

// Large pieces on a slow way come seldom.
rates.note("slow", 0, 0);
for (let at = 10_000; at <= 50_000; at += 10_000) rates.note("slow", at * 50, at);
assert.equal(Math.round(rates.of("slow", 70_000)), 50_000, "two pieces later");
assert.equal(rates.of("slow", 81_000), 0);

rates.note("slow", 10, 82_000);
assert.equal(rates.of("slow", 82_000), 0, "it begins anew");
rates.forget("slow");
assert.equal(rates.of("slow", 82_000), 0);
