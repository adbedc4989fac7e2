// Waiting for something that will be so, and telling what it was if it never is.
const patience = 60_000
const pause = 50

/** Asks until the answer is neither false nor undefined. An error ends the waiting at once. */
export async function eventually<T>(what: string, ask: () => Promise<T | false | undefined>): Promise<T> {
  const end = Date.now() + patience
  for (;;) {
    const answer = await ask()
    if (answer !== false && answer !== undefined) return answer
    if (Date.now() > end) throw new Error(`still not so after ${patience / 1000} s: ${what}`)
    await new Promise((done) => setTimeout(done, pause))
  }
}
