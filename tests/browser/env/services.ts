// Fake external services: a VAT register and a CRM.
import { freePort } from './port'
import { eventually } from './eventually'
import { LocalServer, json } from './http'

export const unknownVatNumber = 'DE999999999'
export const knownVatNumber = 'DE811115368'
export const registeredName = 'Muster Maschinenbau GmbH'

/** A VAT register that knows every number except one. */
export class VatRegister {
  private behaviour: 'works' | 'fails' | 'hangs' = 'works'
  private hanging: (() => void)[] = []
  readonly checked: string[] = []

  private constructor(private readonly server: LocalServer) {}

  static async open(port?: number): Promise<VatRegister> {
    const register: VatRegister = new VatRegister(
      new LocalServer(port ?? (await freePort()), async (_request, response, body) => {
        const { countryCode, vatNumber } = JSON.parse(body) as { countryCode: string; vatNumber: string }
        const number = `${countryCode}${vatNumber}`
        register.checked.push(number)
        if (register.behaviour === 'fails') return json(response, 500, { error: 'internal error' })
        if (register.behaviour === 'hangs') await new Promise<void>((done) => register.hanging.push(done))
        json(response, 200, number === unknownVatNumber ? { valid: false } : { valid: true, name: registeredName })
      }),
    )
    await register.server.up()
    return register
  }

  get url(): string {
    return this.server.url
  }

  /** Answers correctly from now on, also the hanging calls. */
  async recover(): Promise<void> {
    this.behaviour = 'works'
    for (const release of this.hanging.splice(0)) release()
    await this.server.up()
  }

  /** Does not answer until it recovers. */
  hang(): void {
    this.behaviour = 'hangs'
  }

  fail(): void {
    this.behaviour = 'fails'
  }

  /** Refuses connections. */
  async goDown(): Promise<void> {
    for (const release of this.hanging.splice(0)) release()
    await this.server.down()
  }
}

export interface Contact {
  id: string
  email: string
  vat_number: string
}

/** A CRM that stores the contacts that Vestibule delivers. */
export class Crm {
  private readonly contacts: Contact[] = []

  private constructor(private readonly server: LocalServer) {}

  static async open(): Promise<Crm> {
    const crm: Crm = new Crm(
      new LocalServer(await freePort(), (_request, response, body) => {
        crm.contacts.push(JSON.parse(body) as Contact)
        json(response, 201, {})
      }),
    )
    await crm.server.up()
    return crm
  }

  get url(): string {
    return this.server.url
  }

  has(email: string): boolean {
    return this.contacts.some((one) => one.email === email)
  }

  /** Waits for the contact with this address. */
  contact(email: string): Promise<Contact> {
    return eventually(`the CRM has a contact ${email}`, async () => this.contacts.find((one) => one.email === email))
  }

  async close(): Promise<void> {
    await this.server.down()
  }
}
