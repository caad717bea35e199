// binance-api-node: the candles of a range, page by page. Arguments: HOST:PORT, the first and the last open time (ms).
const Binance = require('binance-api-node').default

const [host, since, until] = process.argv.slice(2)
const client = Binance({ httpBase: `http://${host}/binance` })

async function page(startTime) {
  for (;;) {
    try {
      return await client.candles({ symbol: 'BTCUSDT', interval: '1m', startTime, endTime: until, limit: 800 })
    } catch (error) {
      console.error(error.message)
      await new Promise((resolve) => setTimeout(resolve, 500))
    }
  }
}

async function main() {
  let next = Number(since)
  while (next <= Number(until)) {
    for (const c of await page(next)) {
      const row = [c.openTime, c.open, c.high, c.low, c.close, c.volume, c.closeTime, c.quoteVolume, c.trades]
      console.log(JSON.stringify(['BTCUSDT', [...row, c.baseAssetVolume, c.quoteAssetVolume]]))
      next = c.openTime + 60_000
    }
  }
}

main()
