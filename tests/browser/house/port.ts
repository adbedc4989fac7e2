// Ports for programs that must be told theirs.
import { createServer } from 'node:net'

// Below the range from which the system takes ports for outgoing connections, and a stretch of its own for every
// worker: a port found free here is still free when the program takes it.
const stretch = 500
let next = 20_000 + Number(process.env.TEST_PARALLEL_INDEX ?? 0) * stretch

export async function freePort(): Promise<number> {
  for (let tries = 0; tries < stretch; tries += 1) {
    const port = next++
    if (await isFree(port)) return port
  }
  throw new Error(`no free port among the last ${stretch} before ${next}`)
}

function isFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer()
    server.once('error', () => done(false))
    server.listen(port, '127.0.0.1', () => server.close(() => done(true)))
  })
}
