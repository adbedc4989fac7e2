// The environment of the tests of one worker: front-end, real or fake Kratos, Vestibule and the external services. All of
// them are on 127.0.0.1, so that a browser treats them as one site.
import { mkdirSync, mkdtempSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FakeKratos } from '../fake-kratos/fake-kratos'
import { FrontEnd } from './front-end'
import { Kratos } from './kratos'
import { freePort } from './port'
import { Provider } from './provider'
import { Crm, VatRegister } from './services'
import { Vestibule } from './vestibule'
import { RecordingProxy } from './recording-proxy'

export type Backend = 'kratos' | 'fake-kratos'

/** The options of kratos.yml. */
export interface KratosOptions {
  /** `profile_first` for a form in two steps, `unified` for one step. */
  style: 'unified' | 'profile_first'
  /** The lifespan of registration flows. */
  lifespan: string
  /** Whether visitors can sign up with the provider. */
  socialSignUp: boolean
  /** Whether visitors verify their address after the sign-up. */
  verification: boolean
}

/** The folder, options and addresses of a test environment. */
export interface EnvConfig {
  folder: string
  kratosOptions: KratosOptions
  kratos: string
  frontEnd: string
  hooks: string
  provider: string | undefined
}

export class TestEnv {
  private constructor(
    readonly config: EnvConfig,
    readonly vatRegister: VatRegister,
    readonly crm: Crm,
    readonly proxy: RecordingProxy,
    readonly provider: Provider | undefined,
    private readonly kratos: Kratos | FakeKratos,
    private readonly closeAll: () => Promise<void>,
  ) {}

  static async open(backend: Backend, kratosOptions: KratosOptions): Promise<TestEnv> {
    const folder = mkdtempSync(join(tmpdir(), 'vestibule-browser-'))
    mkdirSync(folder, { recursive: true })
    const vatRegister = await VatRegister.open()
    const crm = await Crm.open()
    const provider = kratosOptions.socialSignUp ? await Provider.open() : undefined
    const vestibule = await Vestibule.start(folder, { vatRegister: vatRegister.url, crm: crm.url })
    const proxy = await RecordingProxy.open(vestibule.url)
    const config: EnvConfig = {
      folder,
      kratosOptions,
      kratos: `http://127.0.0.1:${await freePort()}`,
      frontEnd: `http://127.0.0.1:${await freePort()}`,
      hooks: proxy.url,
      provider: provider?.url,
    }
    const kratos = backend === 'kratos' ? await Kratos.start(config) : await FakeKratos.start(config)
    const frontEnd = await FrontEnd.open(Number(new URL(config.frontEnd).port), config.kratos)
    return new TestEnv(config, vatRegister, crm, proxy, provider, kratos, async () => {
      await frontEnd.close()
      await kratos.stop()
      await proxy.close()
      await vestibule.stop()
      await provider?.close()
      await crm.close()
      await vatRegister.goDown()
      await rm(folder, { recursive: true })
    })
  }

  /** The URL of a page of the front-end. */
  page(path: string): string {
    return `${this.config.frontEnd}${path}`
  }

  /** The code that Kratos mailed to this address. */
  code(email: string): Promise<string> {
    return this.kratos.code(email)
  }

  /** The identity with this address. */
  identity(email: string): Promise<{ id: string; traits: Record<string, string> } | undefined> {
    return this.kratos.identity(email)
  }

  close(): Promise<void> {
    return this.closeAll()
  }
}
