// A child process of the tests.
import { spawn, type ChildProcess } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { eventually } from './eventually'

export class Program {
  private constructor(
    private readonly name: string,
    private readonly child: ChildProcess,
    private readonly lines: string[],
  ) {}

  /** Starts the program. Its output goes to `log`. */
  static start(name: string, file: string, args: string[], env: Record<string, string>, log: string): Program {
    const child = spawn(file, args, {
      env: { PATH: process.env.PATH ?? '', HOME: process.env.HOME ?? '/', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const lines: string[] = []
    const logFile = createWriteStream(log)
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        logFile.write(chunk)
        lines.push(...chunk.toString().split('\n').filter(Boolean))
        lines.splice(0, lines.length - 40)
      })
    }
    child.on('error', (error) => lines.push(`${file}: ${error.message}`))
    // A worker that ends early must not leave child processes behind.
    process.once('exit', () => child.kill('SIGKILL'))
    return new Program(name, child, lines)
  }

  /** Waits until `url` answers 200. If the program ends before, the error contains the end of its output. */
  async ready(url: string): Promise<void> {
    await eventually(`${this.name} at ${url}`, async () => {
      if (this.ended()) throw new Error(`${this.name} ended:\n${this.lines.join('\n')}`)
      return fetch(url).then((answer) => answer.ok, () => false)
    })
  }

  async stop(): Promise<void> {
    if (this.ended()) return
    const exited = new Promise((done) => this.child.once('exit', done))
    this.child.kill('SIGTERM')
    const killTimer = setTimeout(() => this.child.kill('SIGKILL'), 10_000)
    await exited
    clearTimeout(killTimer)
  }

  private ended(): boolean {
    return this.child.pid === undefined || this.child.exitCode !== null || this.child.signalCode !== null
  }
}
