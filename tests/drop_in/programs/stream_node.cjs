// binance-api-node: live candles of two symbols; it connects again by itself. Argument: HOST:PORT.
const Binance = require('binance-api-node').default

const client = Binance({ wsBase: `ws://${process.argv[2]}/binance/ws` })
client.ws.candles(['BTCUSDT', 'ETHUSDT'], '1m', (c) => {
  if (!c.isFinal) return
  const row = [c.startTime, c.open, c.high, c.low, c.close, c.volume, c.closeTime, c.quoteVolume, c.trades]
  console.log(JSON.stringify([c.symbol, [...row, c.buyVolume, c.quoteBuyVolume]]))
})
