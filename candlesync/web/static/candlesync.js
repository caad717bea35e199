// candlesync.js: gapless candles in a browser, or wherever there are fetch and WebSocket.
//
//   import { follow, drawOn } from "https://your.host/static/candlesync.js";
//   const feed = follow({ symbol: "BTCUSDT", interval: "1m", ...drawOn(series) });
//
// A feed loads candles over REST, follows them over a WebSocket, and after any break resumes with its position, so that
// it is sent exactly what it has missed.

/**
 * One bar of a series, as the server sends it.
 * @typedef {object} Candle
 * @property {string} symbol
 * @property {string} interval
 * @property {number} time Its open time, in UNIX seconds.
 * @property {number} open
 * @property {number} high
 * @property {number} low
 * @property {number} close
 * @property {number} volume
 * @property {boolean} closed Whether the exchange has finished it.
 * @property {true} [filled] The exchange had an outage and has no candle here: a flat one stands in its place.
 * @property {number} rev The revision of the series that last changed it.
 * @property {string} [position] How far a client that has got this message has everything.
 */

/**
 * `live`: connected, and whole. `syncing`: loading or catching up; true as far as it goes. `offline`: there is no
 * connection to the server, or none from the server to the exchange; true up to the newest candle.
 * @typedef {"live" | "syncing" | "offline"} State
 */

/**
 * @typedef {object} Callbacks
 * @property {(candles: readonly Candle[]) => void} [onCandles] Set all: these are the candles now, ascending. After a
 *   load, a change of series, older history, and the rare change that is none of the two below.
 * @property {(candle: Candle) => void} [onUpdate] Update the newest: it has changed, or is the next after it.
 * @property {(candle: Candle) => void} [onCorrection] Correct an older one, which is there already.
 * @property {(state: State, reason: string) => void} [onState] The state has changed; the reason is for people.
 * @property {(error: FeedError) => void} [onError] The feed has ended: trying again would not help. `follow()` and
 *   `feed.follow()` begin again.
 */

/**
 * @typedef {object} Settings
 * @property {string} symbol In any case.
 * @property {string} [interval] Such as `1m` (the default), `1h`, `1M`.
 * @property {string | URL} [url] Where the server is; without it, where this file came from.
 * @property {string} [token] What a server wants that was started with `--token`.
 * @property {number} [load] How many candles to begin with: 1 to 1000, which is the default.
 * @property {number} [most] How many to hold, 20,000 by default; when there are a tenth more, the oldest are dropped.
 */

const STEPS = {
  ...{ "1s": 1, "1m": 60, "3m": 180, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "2h": 7200, "4h": 14400 },
  ...{ "6h": 21600, "8h": 28800, "12h": 43200, "1d": 86400, "3d": 259200, "1w": 604800 },
};

/** All intervals, as Binance names them. */
export const INTERVALS = Object.freeze([...Object.keys(STEPS), "1M"]);

const HOME = new URL("..", import.meta.url);
const COLOURS = { up: "#26a69a80", down: "#ef535080", filled: "#b09a4a", outage: "#b09a4a30" };

const PAGE = 1000;
const LOAD_TIMEOUT = 30_000; // ms; a series that nobody followed before has its backfill first
const OPEN_TIMEOUT = 15_000; // ms
const QUIET = 15_000; // ms without a word, after which the server is asked for one; what comes then comes in as many
const LOOK = 5_000; // ms between looks at the socket's health; and for a word, where it is likely to have died
const PAUSE = { first: 250, last: 10_000 }; // ms between attempts; each is up to twice the one before

// Of the server's refusals, these say that the same question would get the same answer.
const FINAL = new Set([
  ...["unknown_symbol", "bad_interval", "bad_limit", "bad_parameter", "unauthorized", "forbidden", "not_found"],
]);

/** Why a feed has ended, or a page of history did not come. */
export class FeedError extends Error {
  /**
   * @param {string} code The server's, such as `unknown_symbol`; or `no_answer`, `bad_answer`.
   * @param {string} message
   * @param {number} [wait] Milliseconds after which the server asked to be tried again.
   */
  constructor(code, message, wait = 0) {
    super(message);
    this.name = "FeedError";
    this.code = code;
    this.wait = wait;
  }
}

/**
 * The open time of the candle after the one of `time`, both in UNIX seconds; months are the calendar's.
 * @param {number} time
 * @param {string} interval
 */
export function successor(time, interval) {
  if (interval !== "1M") return time + STEPS[interval];
  const date = new Date(time * 1000);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1) / 1000;
}

const isSame = (one, other) =>
  ["time", "open", "high", "low", "close", "volume", "closed", "filled"].every((name) => one[name] === other?.[name]);

/**
 * The candles of a series that a client has: ascending, each once, none missing between two. Decides what a message
 * means for them, and touches nothing else.
 */
export class Candles {
  /** @param {string} interval @param {number} [most] How many are held, and up to a tenth more: some go at once. */
  constructor(interval, most = Infinity) {
    this.interval = interval;
    this.most = most;
    /** @type {Candle[]} */
    this.list = [];
  }

  get newest() {
    return this.list.at(-1);
  }

  get oldest() {
    return this.list[0];
  }

  /** The candle of an open time, if there is one. @param {number} time */
  at(time) {
    const candle = this.list[this.#place(time)];
    return candle?.time === time ? candle : undefined;
  }

  /**
   * Begin again with what the server has, which may be another life of the series, or another market.
   *
   * Older ones that are here stay, as revision 0, if of those that both have each is the same: then somebody who looks
   * at them goes on seeing them. Otherwise they are not the server's any more.
   * @param {Candle[]} list
   */
  load(list) {
    for (let index = 1; index < list.length; index++) {
      if (!(list[index].time > list[index - 1].time)) throw new FeedError("bad_answer", "candles are not in order");
    }
    const place = list.length ? this.#place(list[0].time) : 0;
    const both = this.list.slice(place).filter(({ closed }) => closed);
    const isKept = both.length > 0 && both.every((candle, index) => isSame(candle, list[index]));
    const older = isKept ? this.list.slice(0, place).map((candle) => ({ ...candle, rev: 0 })) : [];
    this.list = [...older, ...list].slice(-this.most);
  }

  /**
   * Put older ones before the oldest. Returns how many: none when these are already here.
   * @param {Candle[]} list Ascending.
   */
  prepend(list) {
    const first = this.oldest;
    const older = first ? list.filter((candle) => candle.time < first.time) : list;
    const last = older.at(-1);
    if (first && last && successor(last.time, this.interval) !== first.time) {
      throw new FeedError("bad_answer", "older candles do not join those that are here");
    }
    const room = Math.max(0, this.most - this.list.length);
    const kept = room ? older.slice(-room) : [];
    this.list = [...kept, ...this.list];
    return kept.length;
  }

  /**
   * Take one that was sent. Returns what has changed: the `newest` (which it is now), an `older` one, `all` (one was
   * put between, or the oldest were dropped), or `nothing`; or `hole`: one is missing before it, and it was not taken.
   * @param {Candle} candle
   * @returns {"newest" | "older" | "all" | "nothing" | "hole"}
   */
  take(candle) {
    const newest = this.newest;
    if (!newest || candle.time > newest.time) {
      // The server promises that this never is; a client that trusts it blindly could not show that it was broken.
      if (newest && successor(newest.time, this.interval) !== candle.time) return "hole";
      this.list.push(candle);
      if (this.list.length <= 1.1 * this.most) return "newest";
      // Some at once: each time, a chart has to be given all anew.
      this.list.splice(0, this.list.length - this.most);
      return "all";
    }
    const place = this.#place(candle.time);
    const known = this.list[place];
    if (known.time !== candle.time) {
      if (place === 0) return "nothing"; // older than anything here
      this.list.splice(place, 0, candle);
      return "all";
    }
    // Within a life a candle never goes back to an older revision.
    if (candle.rev <= known.rev) return "nothing";
    this.list[place] = candle;
    return place === this.list.length - 1 ? "newest" : "older";
  }

  /** Where the candle of an open time stands, or would have to. */
  #place(time) {
    let [low, high] = [0, this.list.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.list[middle].time < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Have an error seen as one that nobody caught. */
function report(error) {
  if (globalThis.reportError) return globalThis.reportError(error);
  queueMicrotask(() => {
    throw error;
  });
}

/** Attempts with pauses between, which grow until one succeeds. */
class Attempts {
  #timer = 0;
  #pause = PAUSE.first;

  /** Do it after a pause, of at least `wait` milliseconds. Takes the place of what was planned. */
  plan(attempt, wait = 0) {
    this.stop();
    // Scattered, lest all charts of a server that was away come in the same moment.
    const pause = Math.max(wait, this.#pause * (0.5 + Math.random() / 2));
    this.#pause = Math.min(this.#pause * 2, PAUSE.last);
    this.#timer = setTimeout(attempt, pause);
  }

  succeed() {
    this.#pause = PAUSE.first;
  }

  stop() {
    clearTimeout(this.#timer);
  }
}

/** Follows one series at a time. */
export class Feed {
  #server;
  #token;
  #load;
  #most;
  #callbacks;
  /** What is followed now; each `follow()` has one of its own, so that what comes late for another is known. */
  #pursuit = new Pursuit("", "1m", 0);
  /** @type {WebSocket | null} */
  #socket = null;
  #loads = new Attempts();
  #opens = new Attempts();
  #look = 0;
  #looked = 0;
  #heard = 0;
  #asked = 0;
  #patience = QUIET;
  #subscription = 0;
  #state = "";
  #isClosed = false;
  #hurry = () => this.#socket || this.#pursuit.isOver || this.#open();
  /** Somebody looks again, or the network has changed. */
  #wake = () => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.#socket) this.#doubt();
    else this.#hurry();
  };

  /** @param {Settings & Callbacks} settings */
  constructor({ symbol, interval = "1m", url = HOME, token = "", load = PAGE, most = 20_000, ...callbacks }) {
    this.#server = new URL(url);
    if (!this.#server.pathname.endsWith("/")) this.#server.pathname += "/";
    this.#token = token;
    this.#load = load;
    this.#most = Math.max(most, load);
    this.#callbacks = callbacks;
    this.follow(symbol, interval);
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.addEventListener?.("offline", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
  }

  /** The candles, ascending. @returns {readonly Candle[]} */
  get candles() {
    return this.#pursuit.candles.list;
  }

  get symbol() {
    return this.#pursuit.symbol;
  }

  get interval() {
    return this.#pursuit.interval;
  }

  /** @returns {State} */
  get state() {
    return /** @type {State} */ (this.#state);
  }

  /** The candle of an open time in UNIX seconds, if it is here. @param {number} time */
  at(time) {
    return this.#pursuit.candles.at(time);
  }

  /** Follow another series, or the same anew. @param {string} symbol @param {string} [interval] */
  follow(symbol, interval = this.interval) {
    if (this.#isClosed) throw new FeedError("closed", "the feed is closed: make another");
    if (!symbol?.trim()) throw new FeedError("unknown_symbol", "a symbol is needed");
    if (!INTERVALS.includes(interval)) throw new FeedError("bad_interval", `interval is one of ${INTERVALS.join(" ")}`);
    this.#leave();
    this.#pursuit = new Pursuit(symbol.trim().toUpperCase(), interval, this.#most);
    this.#tell("syncing", "loading");
    this.#begin();
    if (!this.#socket) this.#open();
  }

  /**
   * Load older history, one page before the oldest candle; `onCandles` is called with all. Called again before it is
   * here, it is still the same page. Returns how many candles came; 0 when there are no older ones, or `most` are here.
   * Raises `FeedError`: try again later, after `error.wait` milliseconds at least.
   * @returns {Promise<number>}
   */
  older() {
    const pursuit = this.#pursuit;
    pursuit.older ??= this.#loadOlder(pursuit).finally(() => (pursuit.older = null));
    return pursuit.older;
  }

  /** End it. Nothing is called any more; its socket is closed. */
  close() {
    this.#isClosed = true;
    this.#leave();
    this.#pursuit.isOver = true;
    this.#drop();
    this.#opens.stop();
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.removeEventListener?.("offline", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
  }

  #leave() {
    this.#loads.stop();
    this.#pursuit.abort.abort();
    if (this.#subscription) this.#say({ op: "unsubscribe", symbol: this.symbol, interval: this.interval });
    this.#subscription = 0;
  }

  #tell(state, reason = "") {
    const told = `${state} ${reason}`;
    if (this.#pursuit.told === told) return;
    this.#pursuit.told = told;
    this.#state = state;
    this.#call("onState", state, reason);
  }

  /** What a callback raises is its own page's to see; the feed goes on, or a slip in it would end all news for good. */
  #call(name, ...given) {
    try {
      this.#callbacks[name]?.(...given);
    } catch (error) {
      report(error);
    }
  }

  #fail(error) {
    this.#leave();
    this.#pursuit.isOver = true;
    this.#tell("offline", error.message);
    this.#call("onError", error);
  }

  // REST

  async #begin() {
    const pursuit = this.#pursuit;
    try {
      const { candles, position } = await this.#ask(pursuit, { limit: this.#load });
      if (pursuit !== this.#pursuit || pursuit.isOver) return;
      if (!position) throw new FeedError("bad_answer", "the answer has no Candlesync-Position");
      pursuit.candles.load(candles);
      pursuit.position = position;
    } catch (error) {
      if (pursuit !== this.#pursuit || pursuit.isOver) return;
      if (FINAL.has(error.code)) return this.#fail(error);
      this.#tell("offline", error.message);
      return this.#loads.plan(() => this.#begin(), error.wait);
    }
    this.#loads.succeed();
    this.#subscribe();
    this.#call("onCandles", pursuit.candles.list);
  }

  async #loadOlder(pursuit) {
    const oldest = pursuit.candles.oldest;
    if (!oldest || pursuit.candles.list.length >= pursuit.candles.most) return 0;
    const { candles } = await this.#ask(pursuit, { limit: PAGE, before: oldest.time });
    if (pursuit !== this.#pursuit || pursuit.candles.oldest !== oldest) {
      throw new FeedError("no_answer", "all was loaded anew meanwhile");
    }
    const count = pursuit.candles.prepend(candles);
    if (count) this.#call("onCandles", pursuit.candles.list);
    return count;
  }

  async #ask(pursuit, query) {
    const path = `candles/${encodeURIComponent(pursuit.symbol)}/${pursuit.interval}?${new URLSearchParams(query)}`;
    const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    const signal = AbortSignal.any([pursuit.abort.signal, AbortSignal.timeout(LOAD_TIMEOUT)]);
    try {
      const answer = await fetch(new URL(path, this.#server), { headers, signal });
      const value = await answer.json();
      if (answer.ok && Array.isArray(value)) {
        return { candles: value, position: answer.headers.get("Candlesync-Position") };
      }
      const { code = "bad_answer", message = `the server answered ${answer.status}` } = value?.error ?? {};
      const nothing = `the server has no symbol ${pursuit.symbol}, or is not at ${this.#server}`;
      throw new FeedError(code, code === "not_found" ? nothing : message, 1000 * (Number(answer.headers.get("Retry-After")) || 0));
    } catch (error) {
      if (error instanceof FeedError) throw error;
      if (error instanceof SyntaxError) throw new FeedError("bad_answer", "what answers is not the server");
      throw new FeedError("no_answer", "the server does not answer");
    }
  }

  // WebSocket

  #open() {
    this.#opens.stop();
    const address = new URL("ws/candles", this.#server);
    address.protocol = address.protocol.replace("http", "ws");
    if (this.#token) address.searchParams.set("token", this.#token);
    const socket = (this.#socket = new WebSocket(address));
    this.#asked = 0;
    this.#patience = QUIET;
    this.#looked = Date.now();
    this.#heard = performance.now();
    this.#look = setInterval(() => this.#examine(), LOOK);
    socket.onopen = () => {
      if (socket !== this.#socket) return;
      this.#heard = performance.now();
      this.#subscribe();
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      this.#heard = performance.now();
      this.#asked = 0;
      this.#patience = QUIET;
      this.#read(JSON.parse(data));
    };
    socket.onclose = ({ code }) => socket === this.#socket && this.#lose(code);
  }

  /** A socket on which nothing comes may be dead: a browser does not say. */
  #examine() {
    const socket = this.#socket;
    if (!socket) return;
    const [now, looked] = [performance.now(), this.#looked];
    this.#looked = Date.now();
    // A machine that slept; `performance.now()` may not have gone on meanwhile.
    if (Math.abs(this.#looked - looked) > 3 * LOOK) return this.#doubt();
    if (socket.readyState === WebSocket.CONNECTING) {
      if (now - this.#heard > OPEN_TIMEOUT) this.#lose(0);
    } else if (this.#asked) {
      if (now - this.#asked > this.#patience) this.#lose(0);
    } else if (now - this.#heard > QUIET) this.#askForWord();
  }

  /** The socket may have died unseen: have a word soon, or another socket. */
  #doubt() {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#patience = LOOK;
    if (!this.#asked) this.#askForWord();
  }

  #askForWord() {
    this.#asked = performance.now();
    this.#say({ op: "ping" });
  }

  #lose(code) {
    this.#drop();
    if (this.#pursuit.isOver) return;
    this.#tell("offline", code === 1012 ? "the server is starting again" : "the connection broke");
    // Too slow, or too many messages: not at once again.
    this.#opens.plan(this.#hurry, code === 1013 || code === 4429 ? PAUSE.last / 2 : 0);
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.#subscription = 0;
    clearInterval(this.#look);
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #say(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #subscribe() {
    const { symbol, interval, position, isOver } = this.#pursuit;
    if (isOver || !position || this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#pursuit.isAnswered = false;
    this.#subscription = ++lastSubscription;
    this.#tell("syncing", "catching up");
    this.#say({ op: "subscribe", symbol, interval, position, id: this.#subscription });
  }

  #read(message) {
    const pursuit = this.#pursuit;
    const isOurs = message.symbol === pursuit.symbol && message.interval === pursuit.interval && this.#subscription;
    switch (message.op) {
      case undefined:
        // What comes before the answer belongs to a subscription that was given up: there may be a hole before it.
        if (isOurs && pursuit.isAnswered) this.#take(message);
        break;
      case "subscribed":
        if (message.id === this.#subscription) pursuit.isAnswered = true;
        break;
      case "state":
        if (!isOurs || !pursuit.isAnswered) break;
        this.#loads.succeed();
        this.#opens.succeed();
        if (message.state === "stale") this.#tell("offline", "the server has no connection to the exchange");
        else this.#tell(message.state);
        break;
      case "error":
        if (message.id === this.#subscription || (isOurs && pursuit.isAnswered)) this.#refused(message);
        break;
    }
  }

  #refused({ code, message }) {
    if (FINAL.has(code)) return this.#fail(new FeedError(code, message));
    if (code === "not_subscribed") return;
    this.#subscription = 0;
    if (code === "too_old") this.#anew("loading again: too much was missed");
    else {
      this.#tell("offline", message);
      this.#loads.plan(() => this.#subscribe(), PAUSE.first * 4);
    }
  }

  /** Load all again: what is here cannot be continued. It stays until the new is there. */
  #anew(reason) {
    this.#leave();
    this.#pursuit = this.#pursuit.again();
    this.#tell("syncing", reason);
    this.#loads.plan(() => this.#begin());
  }

  #take(candle) {
    const pursuit = this.#pursuit;
    const change = pursuit.candles.take(candle);
    if (change === "hole") return this.#anew("loading again: a candle is missing");
    // A message without a position is part of a catch-up: to resume in the midst of it, the one before it all counts.
    if (candle.position) pursuit.position = candle.position;
    if (change === "newest") this.#call("onUpdate", candle);
    else if (change === "older") this.#call("onCorrection", candle);
    else if (change === "all") this.#call("onCandles", pursuit.candles.list);
  }
}

let lastSubscription = 0;

/** One series being followed. */
class Pursuit {
  position = "";
  abort = new AbortController();
  isAnswered = false;
  isOver = false;
  told = "";
  /** @type {Promise<number> | null} */
  older = null;

  constructor(symbol, interval, most) {
    this.symbol = symbol;
    this.interval = interval;
    this.candles = new Candles(interval, most);
  }

  again() {
    const next = new Pursuit(this.symbol, this.interval, this.candles.most);
    next.candles = this.candles;
    return next;
  }
}

/** Follow a series. @param {Settings & Callbacks} settings */
export const follow = (settings) => new Feed(settings);

/**
 * What a feed calls to draw into a series of TradingView's lightweight-charts (version 5): spread it into the settings.
 *
 * The chart's production build draws data that is out of order without a word, and wrongly: here it raises `FeedError`.
 * @param {object} series A candlestick, bar, line, area or baseline series.
 * @param {object} [options]
 * @param {object} [options.volume] A histogram series for the volumes.
 * @param {object} [options.outages] A histogram series, on a price scale of its own, in which filled candles are
 *   columns of full height.
 * @param {{up: string, down: string, filled: string, outage: string}} [options.colours] Of the volumes; `filled` of
 *   filled candles, `outage` of their columns.
 * @returns {Required<Pick<Callbacks, "onCandles" | "onUpdate" | "onCorrection">>}
 */
export function drawOn(series, { volume, outages, colours = COLOURS } = {}) {
  let newest = -Infinity;
  let decimals = -1;

  const bar = ({ time, open, high, low, close, filled }) => {
    const plain = { time, open, high, low, close, value: close }; // of which a line takes its value
    return filled ? { ...plain, color: colours.filled, wickColor: colours.filled, borderColor: colours.filled } : plain;
  };
  const column = ({ time, open, close, volume }) => {
    return { time, value: volume, color: close < open ? colours.down : colours.up };
  };
  const shade = ({ time, filled }) => (filled ? { time, value: 1, color: colours.outage } : { time });

  // The server's numbers are the exchange's; how many places a price has, only the prices tell.
  const fit = (candles) => {
    const needed = Math.max(...candles.flatMap(({ open, high, low, close }) => [open, high, low, close]).map(places));
    if (needed <= decimals) return;
    decimals = needed;
    series.applyOptions({ priceFormat: { type: "price", precision: decimals, minMove: 10 ** -decimals } });
  };

  return {
    onCandles(candles) {
      newest = -Infinity;
      for (const { time } of candles) {
        if (!(time > newest)) throw new FeedError("bad_order", `the candle of ${time} comes after that of ${newest}`);
        newest = time;
      }
      decimals = -1;
      fit(candles.slice(-PAGE));
      series.setData(candles.map(bar));
      volume?.setData(candles.map(column));
      outages?.setData(candles.map(shade));
    },
    onUpdate(candle) {
      if (candle.time < newest) throw new FeedError("bad_order", `the candle of ${candle.time} is not the newest`);
      newest = candle.time;
      fit([candle]);
      series.update(bar(candle));
      volume?.update(column(candle));
      outages?.update(shade(candle));
    },
    onCorrection(candle) {
      if (candle.time > newest) throw new FeedError("bad_order", `the candle of ${candle.time} is not here yet`);
      const isOlder = candle.time < newest;
      fit([candle]);
      series.update(bar(candle), isOlder);
      volume?.update(column(candle), isOlder);
      outages?.update(shade(candle), isOlder);
    },
  };
}

/** How many decimal places a number has: 8 at most, as Binance's. */
function places(number) {
  const [digits, exponent = "0"] = String(number).split("e");
  return Math.min(8, Math.max(0, (digits.split(".")[1] ?? "").length - Number(exponent)));
}
