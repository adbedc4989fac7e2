// The wire between Kratos and Vestibule: passes every call on and keeps what was said.
import { LocalServer } from './http'
import { freePort } from './port'

export interface Call {
  path: string
  body: unknown
  answer: { status: number; body: unknown }
}

export class Wire {
  readonly calls: Call[] = []

  private constructor(private readonly server: LocalServer) {}

  static async open(vestibule: string): Promise<Wire> {
    const wire: Wire = new Wire(
      new LocalServer(await freePort(), async (request, response, body) => {
        const headers = new Headers()
        for (const [name, value] of Object.entries(request.headers)) {
          // These belong to one connection, and the next one makes its own.
          if (typeof value === 'string' && !['host', 'connection', 'content-length'].includes(name)) headers.set(name, value)
        }
        const path = request.url ?? '/'
        const answer = await fetch(`${vestibule}${path}`, { method: request.method ?? 'POST', headers, body })
        const text = await answer.text()
        wire.calls.push({ path, body: read(body), answer: { status: answer.status, body: read(text) } })
        response.writeHead(answer.status, { 'Content-Type': answer.headers.get('content-type') ?? 'text/plain' })
        response.end(text)
      }),
    )
    await wire.server.up()
    return wire
  }

  get url(): string {
    return this.server.url
  }

  close(): Promise<void> {
    return this.server.down()
  }
}

function read(text: string): unknown {
  return text === '' ? null : JSON.parse(text)
}
