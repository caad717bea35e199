// The JavaScript client, run by node's own test runner: test_static.py starts it.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { Candles, Feed, FeedError, INTERVALS, drawOn, successor } from "../../../candlesync/web/static/candlesync.js";

const T = 1_700_000_040;

const candle = (time, rev = 1, more = {}) => ({
  ...{ symbol: "BTCUSDT", interval: "1m", time, open: 1, high: 2, low: 0.5, close: 1.5, volume: 3, closed: true, rev },
  ...more,
});
const row = (count, from = T, rev = 1) => Array.from({ length: count }, (_, index) => candle(from + 60 * index, rev));
const times = (list) => list.map(({ time }) => time);

// Candles

test("an open time is followed by the next of the interval's grid, by the calendar for months", () => {
  assert.equal(successor(T, "1m"), T + 60);
  assert.equal(successor(Date.UTC(2023, 0, 1) / 1000, "3d"), Date.UTC(2023, 0, 4) / 1000);
  assert.equal(successor(Date.UTC(2024, 1, 1) / 1000, "1M"), Date.UTC(2024, 2, 1) / 1000);
  assert.equal(successor(Date.UTC(2023, 11, 1) / 1000, "1M"), Date.UTC(2024, 0, 1) / 1000);
  assert.equal(INTERVALS.length, 16);
});

test("what a message changes", () => {
  const candles = new Candles("1m");
  candles.load(row(3));
  assert.equal(candles.take(candle(T + 120, 2)), "newest");
  assert.equal(candles.take(candle(T + 180, 3)), "newest");
  assert.equal(candles.take(candle(T + 60, 4, { close: 9 })), "older");
  assert.equal(candles.at(T + 60).close, 9);
  assert.equal(candles.take(candle(T + 60, 3, { close: 8 })), "nothing", "a revision that is lower than the known one");
  assert.equal(candles.at(T + 60).close, 9);
  assert.equal(candles.take(candle(T - 60, 5)), "nothing", "older than anything here");
  assert.equal(candles.take(candle(T + 300, 6)), "hole");
  assert.deepEqual(times(candles.list), [T, T + 60, T + 120, T + 180]);
  assert.equal(candles.at(T + 1), undefined);
});

test("a candle that comes late is put between", () => {
  const candles = new Candles("1m");
  candles.load([candle(T), candle(T + 120)]);
  assert.equal(candles.take(candle(T + 60)), "all");
  assert.deepEqual(times(candles.list), [T, T + 60, T + 120]);
});

test("the first candle of a series that has none yet", () => {
  const candles = new Candles("1m");
  candles.load([]);
  assert.equal(candles.take(candle(T)), "newest");
});

test("what is held is bounded", () => {
  const candles = new Candles("1m", 100);
  candles.load(row(150));
  assert.equal(candles.list.length, 100);
  assert.equal(candles.newest.time, T + 149 * 60);
  for (let number = 150; number < 160; number++) assert.equal(candles.take(candle(T + number * 60)), "newest");
  assert.equal(candles.prepend(row(100, candles.oldest.time - 6000)), 0);
  assert.equal(candles.take(candle(T + 160 * 60)), "all");
  assert.equal(candles.list.length, 100);
  assert.equal(candles.newest.time, T + 160 * 60);
  assert.deepEqual(times(candles.list), times(row(100, candles.oldest.time)));
});

test("older history stays when all is loaded again, unless it is another's", () => {
  const older = row(5, T - 300, 0);
  for (const [loaded, count] of [
    ...[[row(4, T + 60), 10], [row(5, T, 7), 10], [row(3, T + 240), 12], [row(3, T + 300), 3], [row(2, T + 60), 2]],
    ...[[row(4, T + 60).map((one) => ({ ...one, close: 1.4 })), 4], [[], 0]],
    ...[[[candle(T + 60), candle(T + 120, 1, { filled: true }), ...row(2, T + 180)], 4], [[candle(T + 240, 1, { closed: false })], 1]],
  ]) {
    const candles = new Candles("1m");
    candles.load(row(5, T, 3));
    candles.prepend(older);
    candles.load(loaded);
    assert.equal(candles.list.length, count);
    assert.deepEqual(candles.list.slice(count - loaded.length), loaded);
    assert.ok(candles.list.slice(0, count - loaded.length).every(({ rev }) => rev === 0), "below any of another life");
    assert.deepEqual(times(candles.list), count ? times(row(count, candles.oldest.time)) : []);
  }
});

test("what was forming at a break, and may never have been corrected, is not kept", () => {
  const candles = new Candles("1m");
  candles.load([...row(2), candle(T + 120, 3, { closed: false })]);
  candles.load(row(3, T + 180));
  assert.deepEqual(times(candles.list), times(row(3, T + 180)));
});

test("older ones join, or are not taken", () => {
  const candles = new Candles("1m");
  candles.load(row(3));
  assert.equal(candles.prepend(row(5, T - 240)), 4, "the last of them is here already");
  assert.throws(() => candles.prepend(row(2, T - 600)), FeedError);
  assert.equal(candles.prepend([]), 0);
  assert.deepEqual(times(candles.list), times(row(7, T - 240)));
});

test("an answer that is out of order is refused", () => {
  const candles = new Candles("1m");
  for (const list of [[candle(T), candle(T)], [candle(T + 60), candle(T)], [candle(T), {}]]) {
    assert.throws(() => candles.load(list), { code: "bad_answer" });
  }
});

test("whatever comes, in whatever order: ascending, whole, and no candle goes back", () => {
  let seed = 7;
  const random = (limit) => (seed = (seed * 48271) % 2147483647) % limit;
  for (let round = 0; round < 200; round++) {
    const candles = new Candles("1m", 5 + random(20));
    candles.load(row(1 + random(5)));
    const known = new Map(candles.list.map(({ time, rev }) => [time, rev]));
    for (let step = 0; step < 100; step++) {
      const given = candle(T + 60 * random(30), 1 + random(50));
      const [before, had] = [times(candles.list), candles.at(given.time)];
      const change = candles.take(given);
      const after = times(candles.list);
      assert.ok(after.every((time, index) => index === 0 || time === after[index - 1] + 60));
      assert.ok(after.length <= 1.1 * candles.most);
      for (const { time, rev } of candles.list) {
        assert.ok(rev >= (known.get(time) ?? 0));
        known.set(time, rev);
      }
      const isLater = given.time > before.at(-1);
      if (had) assert.equal(change, given.rev <= had.rev ? "nothing" : given.time === before.at(-1) ? "newest" : "older");
      else if (isLater) assert.equal(change === "hole", given.time !== before.at(-1) + 60);
      else assert.equal(change, "nothing");
      if (change === "newest" || change === "older") assert.equal(candles.at(given.time), given);
      if (change === "hole" || change === "nothing") assert.deepEqual(after, before);
    }
  }
});

// A feed, with a server made of two functions

class Socket {
  static CONNECTING = 0;
  static OPEN = 1;
  static all = [];

  constructor(url) {
    this.url = url;
    this.readyState = 0;
    this.said = [];
    this.isClosed = false;
    Socket.all.push(this);
  }

  send(text) {
    this.said.push(JSON.parse(text));
  }

  close() {
    this.isClosed = true;
    this.readyState = 3;
  }

  open() {
    this.readyState = 1;
    this.onopen?.();
  }

  say(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  lose(code = 1006) {
    this.readyState = 3;
    this.onclose?.({ code });
  }

  /** Answer the newest subscription. */
  accept(state = "live") {
    const { id, symbol, interval } = this.said.findLast(({ op }) => op === "subscribe");
    this.say({ op: "subscribed", symbol, interval, id });
    if (state) this.say({ op: "state", symbol, interval, state });
  }
}

let now = 0;
let asked = [];
let answers = [];
let feeds = [];

const ready = (list, position = "p1") => ({ status: 200, value: list, headers: { "Candlesync-Position": position } });
const refused = (status, code, headers = {}) => ({ status, value: { error: { code, message: `it is ${code}` } }, headers });

/** Let time pass, and all that follows from it. */
async function pass(milliseconds = 0) {
  for (let left = milliseconds; ; left -= 50) {
    for (let turn = 0; turn < 12; turn++) await new Promise((resolve) => setImmediate(resolve));
    if (left <= 0) return;
    now += Math.min(left, 50);
    mock.timers.tick(Math.min(left, 50));
  }
}

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  mock.method(performance, "now", () => 1 + now);
  mock.method(Date, "now", () => now);
  [now, asked, answers, feeds, Socket.all] = [0, [], [], [], []];
  globalThis.WebSocket = Socket;
  globalThis.fetch = async (url, { headers, signal }) => {
    asked.push({ url: String(url), headers });
    const answer = await (answers.length > 1 ? answers.shift() : answers[0]);
    signal.throwIfAborted();
    if (!answer) throw new TypeError("no network");
    return new Response(JSON.stringify(answer.value), { status: answer.status, headers: answer.headers });
  };
});

afterEach(() => {
  for (const feed of feeds) feed.close();
  assert.ok(Socket.all.every(({ isClosed, readyState }) => isClosed || readyState === 3), "a socket is left");
  mock.reset();
  mock.timers.reset();
});

/** A feed, and what it has called since it was last asked. */
function start(settings = {}) {
  const told = [];
  const feed = new Feed({
    symbol: "btcusdt",
    url: "https://server.example/candles-of/us",
    onCandles: (list) => told.push(["all", list.length]),
    onUpdate: ({ time, rev }) => told.push(["update", time, rev]),
    onCorrection: ({ time, rev }) => told.push(["correction", time, rev]),
    onState: (state) => told.push([state]),
    onError: ({ code }) => told.push(["error", code]),
    ...settings,
  });
  feeds.push(feed);
  const since = () => told.splice(0);
  return { feed, since };
}

async function following(count = 3) {
  answers = [ready(row(count))];
  const { feed, since } = start();
  await pass();
  Socket.all[0].open();
  Socket.all[0].accept();
  return { feed, since, socket: Socket.all[0] };
}

test("it loads, subscribes with the position, and follows", async () => {
  const { feed, since, socket } = await following();
  assert.equal(asked[0].url, "https://server.example/candles-of/us/candles/BTCUSDT/1m?limit=1000");
  assert.equal(String(socket.url), "wss://server.example/candles-of/us/ws/candles");
  assert.deepEqual(socket.said, [{ op: "subscribe", symbol: "BTCUSDT", interval: "1m", position: "p1", id: socket.said[0].id }]);
  socket.say(candle(T + 120, 2, { position: "p2" }));
  socket.say(candle(T + 180, 3, { position: "p3" }));
  socket.say(candle(T, 4, { position: "p4" }));
  socket.say(candle(T, 3, { position: "p4" }));
  assert.deepEqual(since(), [
    ...[["syncing"], ["all", 3], ["syncing"], ["live"]],
    ...[["update", T + 120, 2], ["update", T + 180, 3], ["correction", T, 4]],
  ]);
  assert.equal(feed.state, "live");
  assert.deepEqual(times(feed.candles), times(row(4)));
});

test("after a break it resumes with the last position that it saw, and not in the midst of a catch-up", async () => {
  const { since, socket } = await following();
  socket.say(candle(T + 120, 2, { position: "p2" }));
  socket.say(candle(T + 180, 7)); // a catch-up, of which the last message is lost
  socket.lose();
  assert.deepEqual(since().at(-1), ["offline"]);
  await pass(1000);
  assert.equal(Socket.all.length, 2);
  Socket.all[1].open();
  assert.equal(Socket.all[1].said[0].position, "p2");
  assert.equal(asked.length, 1, "nothing is loaded again");
});

test("the pauses between attempts grow, and shrink again", async () => {
  await following();
  const opened = [];
  for (let attempt = 0; attempt < 8; attempt++) {
    const [count, began] = [Socket.all.length, now];
    Socket.all.at(-1).lose();
    while (Socket.all.length === count) await pass(50);
    opened.push(now - began);
  }
  assert.ok(opened[0] <= 300 && opened.at(-1) >= 5000 && opened.at(-1) <= 10_050, opened);
  Socket.all.at(-1).open();
  Socket.all.at(-1).accept();
  const [count, began] = [Socket.all.length, now];
  Socket.all.at(-1).lose(1012);
  while (Socket.all.length === count) await pass(50);
  assert.ok(now - began <= 300);
});

test("what the server cannot continue is loaded again, and stays until then", async () => {
  const { feed, since, socket } = await following();
  since();
  answers = [refused(503, "upstream_unavailable"), ready(row(5, T, 1), "q1")];
  socket.say({ op: "error", code: "too_old", message: "loads again", symbol: "BTCUSDT", interval: "1m" });
  assert.equal(feed.candles.length, 3);
  await pass(2000);
  assert.deepEqual(since().filter(([kind]) => kind === "all"), [["all", 5]]);
  assert.equal(socket.said.at(-1).position, "q1");
  socket.accept();
  assert.equal(feed.state, "live");
});

test("a missing candle is never shown: all is loaded again", async () => {
  const { feed, since, socket } = await following();
  since();
  answers = [ready(row(6), "p9")];
  socket.say(candle(T + 300, 9, { position: "p9" }));
  socket.say(candle(T + 360, 10, { position: "p10" }));
  assert.equal(feed.candles.length, 3);
  await pass(1000);
  assert.deepEqual(since(), [["syncing"], ["syncing"], ["all", 6]]);
  assert.deepEqual(socket.said.slice(1).map(({ op, position }) => [op, position]), [["unsubscribe", undefined], ["subscribe", "p9"]]);
});

test("what comes for a subscription that was given up is not taken", async () => {
  const { feed, since, socket } = await following();
  answers = [ready([], "e1")];
  feed.follow("ethusdt", "1h");
  socket.say(candle(T + 120, 2, { position: "p2" }));
  answers = [ready(row(3), "p1")];
  feed.follow("BTCUSDT", "1m");
  since();
  await pass();
  socket.say(candle(T + 180, 3, { position: "p3" })); // still of the first subscription
  assert.equal(feed.candles.length, 3);
  socket.accept();
  socket.say(candle(T + 120, 2, { position: "p2" }));
  socket.say(candle(T + 180, 3, { position: "p3" }));
  assert.deepEqual(since(), [["syncing"], ["all", 3], ["live"], ["update", T + 120, 2], ["update", T + 180, 3]]);
  assert.equal(Socket.all.length, 1, "one socket for all");
});

test("an answer for a series that was left is not drawn", async () => {
  let give;
  answers = [new Promise((resolve) => (give = resolve))];
  const { feed, since } = start();
  await pass();
  answers = [ready(row(2), "e1")];
  feed.follow("ETHUSDT");
  await pass();
  give(ready(row(9)));
  await pass();
  assert.deepEqual(since().filter(([kind]) => kind === "all"), [["all", 2]]);
});

for (const [status, code] of [[404, "unknown_symbol"], [400, "bad_interval"], [401, "unauthorized"], [403, "forbidden"], [404, "not_found"]]) {
  test(`${code} ends it`, async () => {
    answers = [refused(status, code)];
    const { feed, since } = start();
    await pass(60_000);
    assert.deepEqual(since(), [["syncing"], ["offline"], ["error", code]]);
    assert.equal(asked.length, 1);
    answers = [ready(row(1))];
    feed.follow("ETHUSDT");
    await pass();
    assert.deepEqual(since(), [["syncing"], ["all", 1]]);
  });
}

test("a server that is away, busy or not itself is asked again", async () => {
  answers = [
    ...[null, refused(503, "upstream_unavailable", { "Retry-After": "7" }), { status: 502, value: "<html>", headers: {} }],
    ...[{ status: 200, value: row(1), headers: {} }, ready(row(2))],
  ];
  const { feed, since } = start();
  await pass(700);
  assert.equal(asked.length, 2);
  await pass(6000);
  assert.equal(asked.length, 2, "not before it says");
  await pass(20_000);
  assert.equal(asked.length, 5);
  assert.deepEqual(since().filter(([kind]) => kind === "all"), [["all", 2]]);
  assert.equal(feed.candles.length, 2);
});

test("a refused subscription is tried again, an unknown one is not", async () => {
  const { feed, since, socket } = await following();
  const { id } = socket.said[0];
  socket.say({ op: "error", code: "upstream_unavailable", message: "not now", id, symbol: "BTCUSDT", interval: "1m" });
  assert.equal(feed.state, "offline");
  await pass(2000);
  assert.equal(socket.said.length, 2);
  since();
  socket.say({ op: "error", code: "unknown_symbol", message: "not listed", id: socket.said[1].id });
  assert.deepEqual(since(), [["offline"], ["error", "unknown_symbol"]]);
});

test("the state is the server's, and offline where the server has no connection", async () => {
  const { feed, socket } = await following();
  const states = [];
  for (const state of ["syncing", "stale", "live"]) {
    socket.say({ op: "state", symbol: "BTCUSDT", interval: "1m", state });
    socket.say({ op: "state", symbol: "ETHUSDT", interval: "1m", state: "stale" });
    states.push(feed.state);
  }
  assert.deepEqual(states, ["syncing", "offline", "live"]);
});

test("a socket on which nothing comes any more is left", async () => {
  const { since, socket } = await following();
  await pass(21_000);
  assert.deepEqual(socket.said.at(-1), { op: "ping" });
  socket.say({ op: "pong" });
  since();
  await pass(14_000);
  assert.deepEqual(since(), []);
  await pass(30_000);
  assert.ok(socket.isClosed);
  assert.deepEqual(since().at(0), ["offline"]);
  assert.ok(Socket.all.length > 1);
});

test("a socket that may have died while the machine slept is tried at once", async () => {
  const { feed, socket } = await following();
  await pass(5_000);
  assert.equal(socket.said.length, 1);
  mock.method(Date, "now", () => 3_600_000 + now); // and `performance.now()` stood still
  await pass(5_000);
  assert.deepEqual(socket.said.at(-1), { op: "ping" });
  socket.say({ op: "pong" });
  await pass(10_000);
  assert.equal(feed.state, "live");
  mock.method(Date, "now", () => now);
  await pass(15_000);
  assert.ok(socket.isClosed, "no word within 5 s");
});

for (const type of ["online", "offline", "visibilitychange"]) {
  test(`${type}: whether the server is there is known soon`, async () => {
    const page = new EventTarget();
    Object.assign(globalThis, {
      document: page,
      addEventListener: page.addEventListener.bind(page),
      removeEventListener: page.removeEventListener.bind(page),
    });
    try {
      const { feed, socket } = await following();
      page.dispatchEvent(new Event(type));
      page.dispatchEvent(new Event(type));
      assert.deepEqual(socket.said.slice(1), [{ op: "ping" }]);
      await pass(10_100);
      assert.ok(socket.isClosed);
      Socket.all.at(-1).lose();
      await pass(15_000);
      for (let attempt = 0; attempt < 5; attempt++) await pass(Socket.all.at(-1).lose() ?? 5_000);
      const count = Socket.all.length;
      Socket.all.at(-1).lose();
      page.dispatchEvent(new Event(type));
      assert.equal(Socket.all.length, count + 1, "it does not wait for the end of a long pause");
      feed.close();
      page.dispatchEvent(new Event(type));
      assert.equal(Socket.all.length, count + 1);
    } finally {
      for (const name of ["document", "addEventListener", "removeEventListener"]) delete globalThis[name];
    }
  });
}

test("a callback that raises keeps the feed from nothing, and is seen", async () => {
  const seen = [];
  globalThis.reportError = ({ message }) => seen.push(message);
  const raise = (name) => () => {
    throw new Error(name);
  };
  const names = ["onCandles", "onUpdate", "onCorrection", "onState", "onError"];
  answers = [ready(row(3))];
  const { feed } = start(Object.fromEntries(names.map((name) => [name, raise(name)])));
  await pass();
  Socket.all[0].open();
  Socket.all[0].accept();
  Socket.all[0].say(candle(T + 180, 2, { position: "p2" }));
  Socket.all[0].say(candle(T, 3, { position: "p3" }));
  answers = [ready(row(2, T - 120))];
  assert.equal(await feed.older(), 2);
  Socket.all[0].lose();
  await pass(1000);
  assert.equal(Socket.all.length, 2);
  Socket.all[1].open();
  Socket.all[1].accept();
  assert.equal(feed.state, "live");
  assert.deepEqual(times(feed.candles), times(row(6, T - 120)));
  answers = [refused(404, "unknown_symbol")];
  feed.follow("NOPE");
  await pass();
  delete globalThis.reportError;
  assert.deepEqual([...new Set(seen)].sort(), names.sort());
});

test("a handshake that is not answered is given up", async () => {
  answers = [ready(row(1))];
  start();
  await pass(30_000);
  assert.ok(Socket.all.length > 1);
  assert.ok(Socket.all[0].isClosed);
});

test("a token goes into a header, or into the address where there is none", async () => {
  answers = [ready(row(1))];
  start({ token: "a+b" });
  await pass();
  assert.equal(asked[0].headers.Authorization, "Bearer a+b");
  assert.equal(Socket.all[0].url.searchParams.get("token"), "a+b");
});

test("older history", async () => {
  const { feed, since } = await following();
  since();
  answers = [ready(row(2, T - 120))];
  assert.deepEqual(await Promise.all([feed.older(), feed.older()]), [2, 2]);
  assert.equal(asked.length, 2);
  assert.equal(asked[1].url.split("?")[1], `limit=1000&before=${T}`);
  assert.deepEqual(since(), [["all", 5]]);
  answers = [ready([])];
  assert.equal(await feed.older(), 0);
  answers = [refused(503, "upstream_unavailable")];
  await assert.rejects(feed.older(), { code: "upstream_unavailable" });
  assert.equal(feed.state, "live");
  answers = [ready(row(2, T - 240)), ready([], "e1")];
  const late = feed.older();
  feed.follow("ETHUSDT");
  assert.equal(await late.catch(() => 0), 0);
  assert.deepEqual(times(feed.candles), []);
});

test("a closed feed is silent", async () => {
  const { feed, since, socket } = await following();
  since();
  feed.close();
  socket.say(candle(T + 120, 2));
  await pass(60_000);
  assert.deepEqual(since(), []);
  assert.ok(socket.isClosed);
  assert.equal(Socket.all.length, 1);
  assert.throws(() => feed.follow("ETHUSDT"), { code: "closed" });
});

test("an interval that does not exist, and no symbol, are refused at once", () => {
  for (const symbol of ["", " ", undefined]) assert.throws(() => start({ symbol }), { code: "unknown_symbol" });
  assert.throws(() => start({ interval: "2m" }), { code: "bad_interval", message: /1s 1m 3m/ });
});

// The adapter

class Series {
  data = [];
  calls = [];

  setData(data) {
    this.data = data;
    this.calls.push("setData");
  }

  update(bar, isHistorical = false) {
    this.calls.push(isHistorical ? "correct" : "update");
  }

  applyOptions({ priceFormat }) {
    this.format = priceFormat;
  }
}

test("the adapter calls what the chart needs, and refuses what it would draw wrongly", () => {
  const [series, volume, outages] = [new Series(), new Series(), new Series()];
  const colours = { up: "u", down: "d", filled: "f", outage: "o" };
  const { onCandles, onUpdate, onCorrection } = drawOn(series, { volume, outages, colours });
  onCandles([candle(T), candle(T + 60, 1, { filled: true, close: 0.9 })]);
  assert.deepEqual(series.data[0], { time: T, open: 1, high: 2, low: 0.5, close: 1.5, value: 1.5 });
  assert.equal(series.data[1].color, "f");
  assert.deepEqual(volume.data, [{ time: T, value: 3, color: "u" }, { time: T + 60, value: 3, color: "d" }]);
  assert.deepEqual(outages.data, [{ time: T }, { time: T + 60, value: 1, color: "o" }]);
  onUpdate(candle(T + 60));
  onUpdate(candle(T + 120));
  onCorrection(candle(T));
  onCorrection(candle(T + 120));
  assert.deepEqual(series.calls, ["setData", "update", "update", "correct", "update"]);
  assert.deepEqual(volume.calls, series.calls);
  assert.deepEqual(outages.calls, series.calls);
  assert.throws(() => onUpdate(candle(T + 60)), { code: "bad_order" });
  assert.throws(() => onCorrection(candle(T + 180)), { code: "bad_order" });
  assert.throws(() => onCandles([candle(T), candle(T)]), { code: "bad_order" });
  onCandles([]);
  onUpdate(candle(T - 600));
});

test("prices have the places that the exchange gives them", () => {
  const series = new Series();
  const { onCandles, onUpdate } = drawOn(series);
  onCandles([candle(T)]);
  assert.deepEqual(series.format, { type: "price", precision: 1, minMove: 0.1 });
  onUpdate(candle(T, 2, { low: 0.0625 }));
  assert.equal(series.format.precision, 4);
  onUpdate(candle(T, 3, { low: 1.2e-7 }));
  assert.equal(series.format.precision, 8);
});
