// A real Kratos with the files of kratos-config/.
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'yaml'
import { eventually } from './eventually'
import type { EnvConfig } from './test-env'
import { freePort } from './port'
import * as paths from './paths'
import { Program } from './program'
import { key } from './vestibule'

type Settings = Record<string, any>

export class Kratos {
  private constructor(
    private readonly admin: string,
    private readonly program: Program,
  ) {}

  static async start(config: EnvConfig): Promise<Kratos> {
    if (!paths.kratos) throw new Error('no `kratos` on PATH and no KRATOS_BIN')
    const adminPort = await freePort()
    const file = join(config.folder, 'kratos.json')
    await writeFile(file, JSON.stringify(await settings(config, adminPort), null, 2))
    const program = Program.start(
      'kratos',
      paths.kratos,
      ['serve', '--dev', '--sqa-opt-out', '-c', file],
      {},
      join(config.folder, 'kratos.log'),
    )
    await program.ready(`${config.kratos}/health/ready`)
    return new Kratos(`http://127.0.0.1:${adminPort}`, program)
  }

  /** The stored identity with this address. */
  async identity(email: string): Promise<{ id: string; traits: Record<string, string> } | undefined> {
    const answer = await fetch(`${this.admin}/admin/identities?credentials_identifier=${encodeURIComponent(email)}`)
    return ((await answer.json()) as { id: string; traits: Record<string, string> }[])[0]
  }

  /** The code that Kratos mailed to this address. */
  code(email: string): Promise<string> {
    return eventually(`Kratos mails a code to ${email}`, async () => {
      const answer = await fetch(`${this.admin}/admin/courier/messages?recipient=${encodeURIComponent(email)}`)
      const [message] = (await answer.json()) as { body: string }[]
      return message?.body.match(/\b\d{6}\b/)?.[0]
    })
  }

  stop(): Promise<void> {
    return this.program.stop()
  }
}

/** kratos-config/kratos.yml with the addresses and folders of the test environment. */
async function settings(config: EnvConfig, adminPort: number): Promise<Settings> {
  const folder = join(paths.repository, 'kratos-config')
  const text = (await readFile(join(folder, 'kratos.yml'), 'utf8'))
    .replaceAll('file://kratos-config/', `file://${folder}/`)
    .replaceAll(/http:\/\/(?:127\.0\.0\.1|localhost):4455/g, config.frontEnd)
    .replaceAll(/http:\/\/127\.0\.0\.1:4480/g, config.hooks)
    .replaceAll('a-key-for-development-only', key)
  const settings = parse(text) as Settings
  settings.serve.public = {
    ...settings.serve.public,
    host: '127.0.0.1',
    port: Number(new URL(config.kratos).port),
    base_url: `${config.kratos}/`,
    cors: { enabled: true, allowed_origins: [config.frontEnd], allow_credentials: true, ...settings.serve.public.cors },
  }
  settings.serve.admin = { host: '127.0.0.1', port: adminPort, base_url: `http://127.0.0.1:${adminPort}/` }
  const { flows, methods } = settings.selfservice
  flows.registration.style = config.kratosOptions.style
  flows.registration.lifespan = config.kratosOptions.lifespan
  if (config.kratosOptions.verification) {
    flows.verification = { ...flows.verification, enabled: true, use: 'code' }
    flows.registration.after.password.hooks.push({ hook: 'show_verification_ui' })
  }
  if (config.provider) {
    methods.oidc = { enabled: true, config: { providers: [await provider(config.provider)] } }
  }
  return settings
}

async function provider(url: string): Promise<Settings> {
  const mapper = await readFile(new URL('./provider.jsonnet', import.meta.url))
  return {
    id: 'directory',
    provider: 'generic',
    label: 'Company directory',
    client_id: 'kratos',
    client_secret: 'a-secret-for-the-tests',
    issuer_url: url,
    scope: ['openid', 'email'],
    mapper_url: `base64://${mapper.toString('base64')}`,
  }
}
