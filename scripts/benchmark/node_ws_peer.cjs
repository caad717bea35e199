// The peer: node's `ws`, as its documentation broadcasts; `node node_ws_peer.cjs PORT`.
//
// The message is made once, as bytes, for all clients. Compression is as it comes: `ws` declines permessage-deflate.
"use strict";

const http = require("node:http");
const { WebSocket, WebSocketServer } = require("ws");

const size = Number(process.env.PEER_MESSAGE_SIZE);
let isFollowing = false;

const server = http.createServer((request, response) => {
  response.writeHead(request.url === "/ready" ? (isFollowing ? 200 : 503) : 404).end();
});
const sockets = new WebSocketServer({ server });

/** What is sent for a message of Binance's combined stream: its candle, filled up to the size of candlesync's. */
function messageOf(frame) {
  const k = JSON.parse(frame).data.k;
  const text = JSON.stringify({
    symbol: k.s,
    interval: k.i,
    time: k.t / 1000,
    open: Number(k.o),
    high: Number(k.h),
    low: Number(k.l),
    close: Number(k.c),
    volume: Number(k.v),
    closed: k.x,
  });
  const filling = "-".repeat(size - text.length - ',"position":""'.length);
  return Buffer.from(`${text.slice(0, -1)},"position":"${filling}"}`);
}

const stream = new WebSocket(`${process.env.PEER_STREAM_URL}/stream?streams=${process.env.PEER_STREAMS}`, {
  perMessageDeflate: false,
});
stream.on("open", () => {
  isFollowing = true;
});
stream.on("message", (frame) => {
  const message = messageOf(frame);
  for (const client of sockets.clients) {
    if (client.readyState === WebSocket.OPEN) client.send(message, { binary: false });
  }
});

server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 1024 });
