// A Vestibule with the settings of examples/settings/company.yaml.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from './port'
import * as paths from './paths'
import { Program } from './program'

export const key = 'a-key-for-the-tests-of-the-front-end'

export class Vestibule {
  private constructor(
    readonly url: string,
    private readonly program: Program,
  ) {}

  static async start(folder: string, services: { vatRegister: string; crm: string }): Promise<Vestibule> {
    if (!existsSync(paths.vestibule)) {
      throw new Error(`no ${paths.vestibule}: run \`cargo build\`, or set VESTIBULE_BIN`)
    }
    const [port, adminPort] = [await freePort(), await freePort()]
    const settings = join(paths.repository, 'examples/settings/company.yaml')
    const program = Program.start(
      'vestibule',
      paths.vestibule,
      ['serve', '--config', settings],
      {
        VESTIBULE_KEY: key,
        VESTIBULE_PORT: String(port),
        VESTIBULE_ADMIN_PORT: String(adminPort),
        VESTIBULE_DSN: `sqlite://${join(folder, 'vestibule.db')}`,
        VAT_REGISTER: services.vatRegister,
        CRM: services.crm,
        // No test waits for the end of a flow, after which Vestibule looks up a sign-up without a `post`.
        KRATOS_ADMIN: 'http://127.0.0.1:9',
      },
      join(folder, 'vestibule.log'),
    )
    const url = `http://127.0.0.1:${port}`
    await program.ready(`${url}/health/ready`)
    return new Vestibule(url, program)
  }

  stop(): Promise<void> {
    return this.program.stop()
  }
}
