// Serves the built examples/front-end with a config.json for the test environment.
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { extname, join, normalize } from 'node:path'
import { LocalServer, json } from './http'
import * as paths from './paths'

const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
  '.json': 'application/json',
}

export class FrontEnd {
  private constructor(private readonly server: LocalServer) {}

  static async open(port: number, kratos: string): Promise<FrontEnd> {
    const server = new LocalServer(port, async (request, response) => {
      const path = new URL(request.url ?? '/', 'http://127.0.0.1').pathname
      if (path === '/config.json') return json(response, 200, { kratos })
      // `normalize` of an absolute path cannot leave the folder.
      const asked = join(paths.frontEnd, normalize(path))
      // Pages of a single-page app are not files.
      const file = extname(asked) !== '' && existsSync(asked) ? asked : join(paths.frontEnd, 'index.html')
      if (!existsSync(file)) throw new Error(`no ${file}: run \`npm run build\` in examples/front-end`)
      response.writeHead(200, { 'Content-Type': types[extname(file)] ?? 'application/octet-stream' })
      response.end(await readFile(file))
    })
    await server.up()
    return new FrontEnd(server)
  }

  close(): Promise<void> {
    return this.server.down()
  }
}
