// Prints all that is published on a Redis server, a line of JSON each, or the last entry of a stream: what a
// reader of another make gets.
import Redis from 'ioredis'

const [what, port, ...names] = process.argv.slice(2)
const redis = new Redis({ host: '127.0.0.1', port: Number(port) })

if (what === 'listen') {
  redis.on('pmessage', (_pattern, channel, message) => {
    console.log(JSON.stringify({ channel, message: JSON.parse(message) }))
  })
  await redis.psubscribe('*')
  console.log('ready')
} else {
  const last = await Promise.all(names.map((name) => redis.xrevrange(name, '+', '-', 'COUNT', 1)))
  console.log(JSON.stringify(last.map(([entry]) => entry?.[1] ?? null)))
  redis.disconnect()
}
