// Polls for a condition, and names it in the error if it does not become true in time.
const timeout = 60_000
const interval = 50

/** Polls until the result is neither false nor undefined. An error ends the polling immediately. */
export async function eventually<T>(what: string, poll: () => Promise<T | false | undefined>): Promise<T> {
  const end = Date.now() + timeout
  for (;;) {
    const result = await poll()
    if (result !== false && result !== undefined) return result
    if (Date.now() > end) throw new Error(`not within ${timeout / 1000} s: ${what}`)
    await new Promise((done) => setTimeout(done, interval))
  }
}
