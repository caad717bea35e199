// The chart page.

import { INTERVALS, drawOn, follow, successor } from "./candlesync.js";
import { search } from "./search.js";

const { CandlestickSeries, CrosshairMode, HistogramSeries, createChart } = globalThis.LightweightCharts;

const DAY = 86_400; // seconds
const AHEAD = 80; // bars before the oldest one at which older ones are loaded
const BREATH = 3_000; // ms, after older candles did not come

const element = (id) => document.getElementById(id);
const address = () => new URLSearchParams(location.search);
// Where the server wants a token, the page is opened with it: ?token=TOKEN
const token = address().get("token") ?? "";
const chosen = () => {
  const [symbol, interval] = [address().get("symbol"), address().get("interval")];
  return [symbol?.trim().toUpperCase() || "BTCUSDT", INTERVALS.includes(interval) ? interval : "1m"];
};

// Light and dark

const remembered = "candlesync-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function theme() {
  try {
    return localStorage.getItem(remembered) ?? (system.matches ? "dark" : "light");
  } catch {
    return system.matches ? "dark" : "light"; // a page in a sandbox remembers nothing
  }
}

function changeTheme() {
  const next = theme() === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(remembered, next);
  } catch {
    // as above
  }
  paint(next);
}

/** What a colour of the style sheet is now. `share` makes it transparent. */
function colour(name, share = 1) {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const [red, green, blue] = getComputedStyle(probe).color.match(/[\d.]+/g);
  probe.remove();
  return `rgba(${red}, ${green}, ${blue}, ${share})`;
}

// The chart

const chart = createChart(element("chart"), {
  autoSize: true,
  crosshair: { mode: CrosshairMode.Normal },
  rightPriceScale: { scaleMargins: { top: 0.1, bottom: 0.22 } },
  timeScale: { rightOffset: 6, barSpacing: 7, timeVisible: true },
});
const candles = chart.addSeries(CandlestickSeries, { borderVisible: false });
const unmarked = { lastValueVisible: false, priceLineVisible: false, priceFormat: { type: "volume" } };
const columns = (priceScaleId) => chart.addSeries(HistogramSeries, { priceScaleId, ...unmarked });
const [volume, outages] = [columns("volume"), columns("outages")];
chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
chart.priceScale("outages").applyOptions({ scaleMargins: { top: 0, bottom: 0 } });

const colours = { up: "", down: "", filled: "", outage: "" };
const drawing = drawOn(candles, { volume, outages, colours });

function paint(name) {
  document.documentElement.dataset.theme = name;
  Object.assign(colours, { up: colour("up", 0.45), down: colour("down", 0.45) });
  Object.assign(colours, { filled: colour("filled"), outage: colour("filled", 0.16) });
  const { fontFamily } = getComputedStyle(document.body);
  const [up, down, line] = [colour("up"), colour("down"), colour("line")];
  chart.applyOptions({
    layout: { background: { color: colour("ground") }, textColor: colour("soft"), fontFamily },
    grid: { vertLines: { color: colour("line", 0.55) }, horzLines: { color: colour("line", 0.55) } },
    rightPriceScale: { borderColor: line },
    timeScale: { borderColor: line },
  });
  candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
  if (feed?.candles.length) drawing.onCandles(feed.candles); // each column has its own colour
}

// What is said about the candles

const price = (number) => candles.priceFormatter().format(number);
const percent = (share) => `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(2)} %`;
const moment = (time) => new Date(time * 1000).toISOString().slice(0, time % 60 ? 19 : 16).replace("T", " ");

function span(seconds) {
  const units = [[DAY, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [length, unit] = units.find(([length]) => seconds >= 2 * length) ?? units.at(-1);
  return `${Math.round(seconds / length)} ${unit}`;
}

function tellPrice() {
  const newest = feed.candles.at(-1);
  if (!newest) {
    element("last").textContent = element("change").textContent = "";
    document.title = `${feed.symbol} · candlesync`;
    return;
  }
  // Over a day, or as far as the candles go; over one candle where it is longer.
  const end = successor(newest.time, feed.interval);
  const from = feed.candles.find(({ time }) => time >= end - DAY) ?? newest;
  const change = newest.close / from.open - 1;
  element("last").textContent = price(newest.close);
  const over = span(end - from.time);
  element("change").textContent = from.open ? `${percent(change)} in ${over}` : "";
  element("change").className = change < 0 ? "down" : "up";
  document.title = `${price(newest.close)} ${feed.symbol} · candlesync`;
}

let pointed = null; // the open time under the crosshair

function tellCandle() {
  const candle = (pointed !== null && feed.at(pointed)) || feed.candles.at(-1);
  const legend = element("legend");
  if (!candle) return legend.replaceChildren();
  const part = (name, text, kind = "") => {
    const span = document.createElement("span");
    span.className = kind;
    if (name) span.append(Object.assign(document.createElement("b"), { textContent: name }));
    span.append(text);
    return span;
  };
  const kind = candle.close < candle.open ? "down" : "up";
  const parts = [part("", moment(candle.time))];
  for (const name of ["open", "high", "low", "close"]) {
    parts.push(part(name[0].toUpperCase(), price(candle[name]), kind));
  }
  parts.push(part("Vol", candle.volume.toLocaleString("en", { maximumFractionDigits: 3 })));
  parts.push(part("", percent(candle.open ? candle.close / candle.open - 1 : 0), kind));
  if (candle.filled) parts.push(part("", "filled: the exchange had an outage", "filled"));
  legend.replaceChildren(...parts);
}

let latest = ""; // the newest candle
let heard = null; // when that last changed, by this page's own clocks; of what was there at a load, nobody knows

function hear(list) {
  const { time = 0, close = 0, volume = 0 } = list.at(-1) ?? {};
  const now = [time, close, volume].join();
  if (latest && now !== latest) heard = { running: performance.now(), wall: Date.now() };
  latest = now;
}

function tellAge() {
  if (!heard) return (element("age").textContent = "");
  // The one may stand still while the machine sleeps, the other may be set.
  const age = Math.max(performance.now() - heard.running, Date.now() - heard.wall);
  element("age").textContent = `${span(Math.floor(age / 1000))} ago`;
}

function tellState(state, reason) {
  element("badge").dataset.state = element("state").textContent = state;
  element("badge").title = reason;
  tellMessage(state === "offline" ? reason : "");
  element("reason").textContent = element("message").hidden ? reason : ""; // it is said once
}

function tellMessage(text) {
  const message = element("message");
  message.hidden = !text || Boolean(feed?.candles.length);
  message.textContent = text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "";
}

let isTelling = false;

function tell() {
  if (isTelling) return;
  isTelling = true;
  requestAnimationFrame(() => {
    isTelling = false;
    tellPrice();
    tellCandle();
    tellAge();
  });
}

// The feed

let feed = null;
let hasEnded = false; // refused: it does not try again by itself
let beginning = null; // the open time of a candle before which there are none, or no room for them
let isLoading = false; // older ones, or resting after they did not come
let resting = 0;

const [firstSymbol, firstInterval] = chosen();
paint(theme());
feed = follow({
  symbol: firstSymbol,
  interval: firstInterval,
  token,
  onCandles(list) {
    drawing.onCandles(list);
    hear(list);
    tellMessage("");
    tell();
    loadOlder();
  },
  onUpdate(candle) {
    drawing.onUpdate(candle);
    hear([candle]);
    tell();
  },
  onCorrection(candle) {
    drawing.onCorrection(candle);
    tell();
  },
  onState: tellState,
  onError() {
    hasEnded = true;
  },
});
tellChosen();

function show(symbol, interval) {
  if (symbol === feed.symbol && interval === feed.interval && !hasEnded) return;
  hasEnded = false;
  feed.follow(symbol, interval);
  drawing.onCandles([]);
  chart.priceScale("right").applyOptions({ autoScale: true });
  chart.timeScale().scrollToRealTime();
  clearTimeout(resting);
  isLoading = false;
  latest = "";
  beginning = heard = pointed = null;
  tellChosen();
  tell();
}

function choose(symbol, interval) {
  const next = address();
  next.set("symbol", symbol);
  next.set("interval", interval);
  if (symbol !== feed.symbol || interval !== feed.interval) history.pushState(null, "", `?${next}`);
  show(symbol, interval);
}

function tellChosen() {
  element("symbol").value = feed.symbol;
  for (const button of element("intervals").children) {
    const isChosen = button.value === feed.interval;
    button.setAttribute("aria-checked", String(isChosen));
    button.tabIndex = isChosen ? 0 : -1;
    if (isChosen) button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  element("chart").setAttribute("aria-label", `${feed.symbol} ${feed.interval}: candles and volume`);
  chart.applyOptions({ timeScale: { secondsVisible: feed.interval === "1s" } });
  tellPrice();
}

async function loadOlder() {
  const range = chart.timeScale().getVisibleLogicalRange();
  const [symbol, interval, before] = [feed.symbol, feed.interval, feed.candles[0]?.time];
  if (isLoading || !range || range.from > AHEAD || before === undefined || before === beginning) return;
  const isSame = () => feed.symbol === symbol && feed.interval === interval;
  let rest = 0;
  isLoading = true;
  try {
    const count = await feed.older();
    if (count === 0 && isSame()) beginning = before;
  } catch (error) {
    if (isSame()) rest = Math.max(BREATH, error.wait);
  }
  resting = setTimeout(() => {
    isLoading = false;
    loadOlder(); // there may be room for more, or another series by now
  }, rest);
}

chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
  loadOlder();
  element("newest").hidden = !range || range.to > feed.candles.length - 3;
});
chart.subscribeCrosshairMove(({ time }) => {
  pointed = time ?? null;
  tellCandle();
});

// What people do

search({
  form: element("search"),
  field: element("symbol"),
  found: element("found"),
  choose: (symbol) => choose(symbol, feed.interval),
  list: listing,
});
element("symbol").addEventListener("blur", () => (element("symbol").value = feed.symbol));

let intervals = []; // those that the venue has

function offer(known) {
  if (known.join() === intervals.join()) return;
  intervals = known;
  element("intervals").replaceChildren(...known.map(buttonOf));
  tellChosen();
}

function buttonOf(interval) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", value: interval, textContent: interval });
  button.setAttribute("role", "radio");
  button.addEventListener("click", () => choose(feed.symbol, interval));
  return button;
}

/** What the venue has; while it is not known, every interval is offered. */
async function listing() {
  const answer = await fetch("symbols", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const listed = await answer.json();
  offer(INTERVALS.filter((interval) => listed.intervals.includes(interval)));
  return listed.symbols;
}

offer(INTERVALS);
listing().catch(() => {}); // the search asks again

const stepInterval = (step) => {
  const place = intervals.indexOf(feed.interval) + step;
  if (intervals[place]) choose(feed.symbol, intervals[place]);
};
element("intervals").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  stepInterval(step);
  element("intervals").querySelector('[aria-checked="true"]')?.focus();
});

/** Move by, and zoom to, shares of what is seen. */
function look(move, zoom = 1) {
  const range = chart.timeScale().getVisibleLogicalRange();
  if (!range) return;
  const width = range.to - range.from;
  const to = range.to + move * width;
  chart.timeScale().setVisibleLogicalRange({ from: to - width * zoom, to });
}

const newest = () => chart.timeScale().scrollToRealTime();
const onChart = {
  ArrowLeft: () => look(-0.1),
  ArrowRight: () => look(0.1),
  PageUp: () => look(-0.9),
  PageDown: () => look(0.9),
  "+": () => look(0, 0.8),
  "-": () => look(0, 1.25),
  End: newest,
};
const everywhere = {
  "/": () => element("symbol").focus(),
  t: changeTheme,
  "[": () => stepInterval(-1),
  "]": () => stepInterval(1),
  End: newest,
};
element("newest").addEventListener("click", newest);
element("theme").addEventListener("click", changeTheme);
addEventListener("keydown", (event) => {
  // What a German keyboard has brackets behind, Windows reports as Control and Alt.
  const isCommand = (event.ctrlKey || event.metaKey || event.altKey) && !event.getModifierState("AltGraph");
  if (event.target === element("symbol") || isCommand) return;
  const act = (event.target === element("chart") && onChart[event.key]) || everywhere[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
addEventListener("popstate", () => show(...chosen()));
system.addEventListener("change", () => paint(theme()));
setInterval(tellAge, 1000);

// For a look at it from the browser's console.
globalThis.candlesync = { feed, chart, candles, volume };
