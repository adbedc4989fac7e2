// A Vestibule of its own, with the settings of examples/settings/company.yaml.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from './port'
import * as places from './places'
import { Program } from './program'

export const key = 'a-key-for-the-tests-of-the-front-end'

export class Vestibule {
  private constructor(
    readonly url: string,
    private readonly program: Program,
  ) {}

  static async start(folder: string, services: { vatRegister: string; crm: string }): Promise<Vestibule> {
    if (!existsSync(places.vestibule)) {
      throw new Error(`no ${places.vestibule}: run \`cargo build\`, or name a Vestibule in VESTIBULE_BIN`)
    }
    const [port, adminPort] = [await freePort(), await freePort()]
    const settings = join(places.repository, 'examples/settings/company.yaml')
    const program = Program.start(
      'vestibule',
      places.vestibule,
      ['serve', '--config', settings],
      {
        VESTIBULE_KEY: key,
        VESTIBULE_PORT: String(port),
        VESTIBULE_ADMIN_PORT: String(adminPort),
        VESTIBULE_DSN: `sqlite://${join(folder, 'vestibule.db')}`,
        VAT_REGISTER: services.vatRegister,
        CRM: services.crm,
        // No scene waits for the end of a flow, after which it would be looked up what became of it.
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
