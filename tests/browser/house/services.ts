// The systems that Vestibule asks and tells: a VAT register and a CRM.
import { freePort } from './port'
import { eventually } from './eventually'
import { LocalServer, json } from './http'

export const unknownVatNumber = 'DE999999999'
export const knownVatNumber = 'DE811115368'
export const registeredName = 'Muster Maschinenbau GmbH'

/** Knows every VAT number but one, as long as it works. */
export class VatRegister {
  private mood: 'works' | 'breaks' | 'hangs' = 'works'
  private hanging: (() => void)[] = []
  readonly asked: string[] = []

  private constructor(private readonly server: LocalServer) {}

  static async open(port?: number): Promise<VatRegister> {
    const register: VatRegister = new VatRegister(
      new LocalServer(port ?? (await freePort()), async (_request, response, body) => {
        const { countryCode, vatNumber } = JSON.parse(body) as { countryCode: string; vatNumber: string }
        const number = `${countryCode}${vatNumber}`
        register.asked.push(number)
        if (register.mood === 'breaks') return json(response, 500, { error: 'out of order' })
        if (register.mood === 'hangs') await new Promise<void>((done) => register.hanging.push(done))
        json(response, 200, number === unknownVatNumber ? { valid: false } : { valid: true, name: registeredName })
      }),
    )
    await register.server.up()
    return register
  }

  get url(): string {
    return this.server.url
  }

  /** Answers as it should, from now on. */
  async works(): Promise<void> {
    this.mood = 'works'
    for (const release of this.hanging.splice(0)) release()
    await this.server.up()
  }

  /** Answers nothing until it works again. */
  hangs(): void {
    this.mood = 'hangs'
  }

  breaks(): void {
    this.mood = 'breaks'
  }

  /** Is not there at all. */
  async goesDown(): Promise<void> {
    for (const release of this.hanging.splice(0)) release()
    await this.server.down()
  }
}

export interface Contact {
  id: string
  email: string
  vat_number: string
}

/** Keeps the contacts that Vestibule delivers. */
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

  /** The contact with this address, as soon as it is here. */
  contact(email: string): Promise<Contact> {
    return eventually(`a contact ${email}`, async () => this.contacts.find((one) => one.email === email))
  }

  async close(): Promise<void> {
    await this.server.down()
  }
}
