// A program that runs beside the tests: started, waited for, stopped.
import { spawn, type ChildProcess } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { eventually } from './eventually'

export class Program {
  private constructor(
    private readonly name: string,
    private readonly child: ChildProcess,
    private readonly lines: string[],
  ) {}

  /** Starts it; what it prints goes to `log`. */
  static start(name: string, file: string, args: string[], env: Record<string, string>, log: string): Program {
    const child = spawn(file, args, {
      env: { PATH: process.env.PATH ?? '', HOME: process.env.HOME ?? '/', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const lines: string[] = []
    const file_ = createWriteStream(log)
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        file_.write(chunk)
        lines.push(...chunk.toString().split('\n').filter(Boolean))
        lines.splice(0, lines.length - 40)
      })
    }
    child.on('error', (error) => lines.push(`${file}: ${error.message}`))
    // A worker that ends early must not leave its programs behind.
    process.once('exit', () => child.kill('SIGKILL'))
    return new Program(name, child, lines)
  }

  /** Waits until `url` answers 200, or tells the program's last words if it ends first. */
  async ready(url: string): Promise<void> {
    await eventually(`${this.name} at ${url}`, async () => {
      if (this.ended()) throw new Error(`${this.name} ended:\n${this.lines.join('\n')}`)
      return fetch(url).then((answer) => answer.ok, () => false)
    })
  }

  async stop(): Promise<void> {
    if (this.ended()) return
    const gone = new Promise((done) => this.child.once('exit', done))
    this.child.kill('SIGTERM')
    const late = setTimeout(() => this.child.kill('SIGKILL'), 10_000)
    await gone
    clearTimeout(late)
  }

  private ended(): boolean {
    return this.child.pid === undefined || this.child.exitCode !== null || this.child.signalCode !== null
  }
}
