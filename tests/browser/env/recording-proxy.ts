// A proxy between Kratos and Vestibule that forwards and records every call.
import { LocalServer } from './http'
import { freePort } from './port'

export interface Call {
  path: string
  body: unknown
  answer: { status: number; body: unknown }
}

export class RecordingProxy {
  readonly calls: Call[] = []

  private constructor(private readonly server: LocalServer) {}

  static async open(vestibule: string): Promise<RecordingProxy> {
    const proxy: RecordingProxy = new RecordingProxy(
      new LocalServer(await freePort(), async (request, response, body) => {
        const headers = new Headers()
        for (const [name, value] of Object.entries(request.headers)) {
          // These headers belong to one connection. `fetch` sets its own.
          if (typeof value === 'string' && !['host', 'connection', 'content-length'].includes(name)) headers.set(name, value)
        }
        const path = request.url ?? '/'
        const answer = await fetch(`${vestibule}${path}`, { method: request.method ?? 'POST', headers, body })
        const text = await answer.text()
        proxy.calls.push({ path, body: parseBody(body), answer: { status: answer.status, body: parseBody(text) } })
        response.writeHead(answer.status, { 'Content-Type': answer.headers.get('content-type') ?? 'text/plain' })
        response.end(text)
      }),
    )
    await proxy.server.up()
    return proxy
  }

  get url(): string {
    return this.server.url
  }

  close(): Promise<void> {
    return this.server.down()
  }
}

function parseBody(text: string): unknown {
  return text === '' ? null : JSON.parse(text)
}
