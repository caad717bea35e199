// The chart page: loads candles over REST, follows them over one WebSocket, and resumes with its position after a break.

const KEPT = 1000;
const element = (id) => document.getElementById(id);
const address = new URLSearchParams(location.search);
// Where the server wants a token, the page is opened with it: ?token=TOKEN
const token = address.has("token") ? `?token=${encodeURIComponent(address.get("token"))}` : "";
const feed = { candles: new Map(), position: null, socket: null, pause: 250, timer: null };

function show(state, message = "") {
  element("state").textContent = element("state").dataset.state = state;
  element("message").textContent = message;
}

function take(candle) {
  const known = feed.candles.get(candle.time);
  // Within a life a candle never goes back to an older revision.
  if (!known || candle.rev >= known.rev) feed.candles.set(candle.time, candle);
  if (candle.position) feed.position = candle.position;
  if (feed.candles.size > KEPT) feed.candles.delete(Math.min(...feed.candles.keys()));
}

async function load(symbol, interval) {
  const answer = await fetch(`candles/${encodeURIComponent(symbol)}/${interval}${token}`);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error.message);
  feed.candles = new Map(body.map((candle) => [candle.time, candle]));
  feed.position = answer.headers.get("Candlesync-Position");
}

function stop() {
  clearTimeout(feed.timer);
  const socket = feed.socket;
  feed.socket = null;
  if (socket) socket.close();
}

async function start() {
  stop();
  const symbol = element("symbol").value.trim().toUpperCase();
  const interval = element("interval").value;
  const attempt = (feed.attempt = Symbol(symbol));
  try {
    if (!feed.position) await load(symbol, interval);
  } catch (error) {
    if (feed.attempt === attempt) again(error.message);
    return;
  }
  if (feed.attempt !== attempt) return;
  draw();
  const socket = (feed.socket = new WebSocket(`${location.href.split("?")[0].replace(/^http/, "ws")}ws/candles${token}`));
  socket.onopen = () => socket.send(JSON.stringify({ op: "subscribe", symbol, interval, position: feed.position }));
  socket.onmessage = (event) => {
    if (feed.socket !== socket) return;
    const message = JSON.parse(event.data);
    if (message.op === "state") {
      feed.pause = 250;
      show(message.state);
    } else if (message.op === "error") {
      feed.position = null;
      again(message.message);
    } else if (!message.op) {
      take(message);
      requestAnimationFrame(draw);
    }
  };
  socket.onclose = () => feed.socket === socket && again();
}

function again(message) {
  stop();
  show("offline", message);
  feed.timer = setTimeout(start, feed.pause);
  feed.pause = Math.min(feed.pause * 2, 5000);
}

function draw() {
  const canvas = element("chart");
  const scale = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const colours = getComputedStyle(document.documentElement);
  const colour = (name) => colours.getPropertyValue(`--${name}`).trim();
  const step = 8;
  const margin = 84;
  const visible = [...feed.candles.values()].sort((a, b) => a.time - b.time).slice(-Math.floor((width - margin) / step));
  if (!visible.length || height < 40) return;
  const top = Math.max(...visible.map((candle) => candle.high));
  const bottom = Math.min(...visible.map((candle) => candle.low));
  const y = (price) => 12 + ((top - price) / (top - bottom || 1)) * (height - 40);
  visible.forEach((candle, index) => {
    const x = index * step + step / 2;
    pen.fillStyle = colour(candle.filled ? "fill" : candle.close >= candle.open ? "up" : "down");
    pen.fillRect(x - 0.5, y(candle.high), 1, Math.max(1, y(candle.low) - y(candle.high)));
    const [from, to] = [y(Math.max(candle.open, candle.close)), y(Math.min(candle.open, candle.close))];
    pen.fillRect(x - 2.5, from, 5, Math.max(1, to - from));
  });
  pen.fillStyle = colour("soft");
  pen.font = "12px system-ui, sans-serif";
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const price = top - (top - bottom) * share;
    pen.fillText(price.toPrecision(7), width - margin + 10, y(price) + 4);
  }
  visible.forEach((candle, index) => {
    if (index % 20 === 0) pen.fillText(new Date(candle.time * 1000).toISOString().slice(11, 16), index * step, height - 8);
  });
  const newest = visible.at(-1);
  element("last").textContent = `${newest.close}  ${new Date(newest.time * 1000).toISOString().slice(0, 16).replace("T", " ")}`;
}

function choose() {
  address.set("symbol", element("symbol").value.trim().toUpperCase());
  address.set("interval", element("interval").value);
  history.replaceState(null, "", `?${address}`);
  feed.position = null;
  feed.candles.clear();
  feed.pause = 250;
  start();
}

const intervals = ["1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M"];
element("interval").append(...intervals.map((name) => new Option(name)));
element("symbol").value = address.get("symbol") || "BTCUSDT";
element("interval").value = intervals.includes(address.get("interval")) ? address.get("interval") : "1m";
element("series").addEventListener("submit", (event) => event.preventDefault());
element("series").addEventListener("change", choose);
addEventListener("resize", draw);
start();
