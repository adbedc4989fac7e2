// Free ports for the programs.
import { createServer } from 'node:net'

// The ports are below the range for outgoing connections, and each worker has its own range. So a free port is still free
// when the program binds it.
const rangeSize = 500
let next = 20_000 + Number(process.env.TEST_PARALLEL_INDEX ?? 0) * rangeSize

export async function freePort(): Promise<number> {
  for (let tries = 0; tries < rangeSize; tries += 1) {
    const port = next++
    if (await isFree(port)) return port
  }
  throw new Error(`no free port among the ${rangeSize} before ${next}`)
}

function isFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer()
    server.once('error', () => done(false))
    server.listen(port, '127.0.0.1', () => server.close(() => done(true)))
  })
}
