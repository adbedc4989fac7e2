// Everything a person signs up at, opened for the tests of one worker: front-end, Kratos or its stand-in, Vestibule
// and the services around it. All of it is on 127.0.0.1, so cookies count as of one site.
import { mkdirSync, mkdtempSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { StandIn } from '../stand-in/stand-in'
import { FrontEnd } from './front-end'
import { Kratos } from './kratos'
import { freePort } from './port'
import { Provider } from './provider'
import { Crm, VatRegister } from './services'
import { Vestibule } from './vestibule'
import { Wire } from './wire'

export type Backend = 'kratos' | 'stand-in'

/** What a test wants of kratos.yml. */
export interface Wishes {
  /** `profile_first` asks in two steps, `unified` in one. */
  style: 'unified' | 'profile_first'
  /** How long a registration may take. */
  lifespan: string
  /** Whether people may sign up with the provider. */
  socialSignUp: boolean
  /** Whether people prove their address after the sign-up. */
  verification: boolean
}

/** The addresses of one house. */
export interface Place {
  folder: string
  wishes: Wishes
  kratos: string
  frontEnd: string
  hooks: string
  provider: string | undefined
}

export class House {
  private constructor(
    readonly place: Place,
    readonly vatRegister: VatRegister,
    readonly crm: Crm,
    readonly wire: Wire,
    readonly provider: Provider | undefined,
    private readonly identities: Kratos | StandIn,
    private readonly close_: () => Promise<void>,
  ) {}

  static async open(backend: Backend, wishes: Wishes): Promise<House> {
    const folder = mkdtempSync(join(tmpdir(), 'vestibule-browser-'))
    mkdirSync(folder, { recursive: true })
    const vatRegister = await VatRegister.open()
    const crm = await Crm.open()
    const provider = wishes.socialSignUp ? await Provider.open() : undefined
    const vestibule = await Vestibule.start(folder, { vatRegister: vatRegister.url, crm: crm.url })
    const wire = await Wire.open(vestibule.url)
    const place: Place = {
      folder,
      wishes,
      kratos: `http://127.0.0.1:${await freePort()}`,
      frontEnd: `http://127.0.0.1:${await freePort()}`,
      hooks: wire.url,
      provider: provider?.url,
    }
    const kratos = backend === 'kratos' ? await Kratos.start(place) : await StandIn.start(place)
    const frontEnd = await FrontEnd.open(Number(new URL(place.frontEnd).port), place.kratos)
    return new House(place, vatRegister, crm, wire, provider, kratos, async () => {
      await frontEnd.close()
      await kratos.stop()
      await wire.close()
      await vestibule.stop()
      await provider?.close()
      await crm.close()
      await vatRegister.goesDown()
      await rm(folder, { recursive: true })
    })
  }

  /** A page of the front-end. */
  page(path: string): string {
    return `${this.place.frontEnd}${path}`
  }

  /** The code that was mailed to this address. */
  code(email: string): Promise<string> {
    return this.identities.code(email)
  }

  /** The account with this address. */
  identity(email: string): Promise<{ id: string; traits: Record<string, string> } | undefined> {
    return this.identities.identity(email)
  }

  close(): Promise<void> {
    return this.close_()
  }
}
