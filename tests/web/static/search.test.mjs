// What the symbol field offers.

import assert from "node:assert/strict";
import { test } from "node:test";

import { matching } from "../../../candlesync/web/static/search.js";

const listed = ["ETHBTC", "BTCUSDT", "WBTCBTC", "BTC", "ETHUSDT"].map((symbol) => ({ symbol, base: symbol.slice(0, 3), quote: "" }));
const found = (typed) => matching(listed, typed).map(({ symbol }) => symbol);

test("the best comes first: the symbol itself, its base, its beginning, a part of it", () => {
  assert.deepEqual(found("btc"), ["BTC", "BTCUSDT", "ETHBTC", "WBTCBTC"]);
  assert.deepEqual(found(" ethusdt "), ["ETHUSDT"]);
  assert.deepEqual(found("eth"), ["ETHBTC", "ETHUSDT"]);
  assert.deepEqual(found("nope"), []);
  assert.equal(found("").length, 5);
});

test("no more than can be looked at", () => {
  const many = Array.from({ length: 500 }, (_, index) => ({ symbol: `A${index}`, base: "A", quote: "B" }));
  assert.equal(matching(many, "a").length, 60);
});
