// The two calls to Vestibule, as kratos-config/vestibule.jsonnet makes them of what Kratos knows.
import { randomUUID } from 'node:crypto'
import type { Json } from '../house/recording'
import type { Place } from '../house/house'
import { key } from '../house/vestibule'
import { form, type Flow, type Said } from './form'

export interface Identity {
  id: string
  traits: Record<string, string>
  metadata_public: Json
}

const nobody = '00000000-0000-0000-0000-000000000000'
const never = '0001-01-01T00:00:00Z'

export class Hooks {
  constructor(private readonly place: Place) {}

  /** Whether the identity may be saved, and how it looks then. */
  async pre(flow: Flow, identity: Identity, previous: Identity | undefined, language: string): Promise<Identity | Said[]> {
    const { status, body } = await this.call('pre', flow, identity, previous, language)
    if (status === 204) return identity
    if (status === 200) return { ...identity, ...body.identity }
    if (status === 400 && Array.isArray(body.messages)) return body.messages as Said[]
    throw new Error(`pre: status ${status} ${JSON.stringify(body)}`)
  }

  async post(flow: Flow, identity: Identity, previous: Identity | undefined, language: string): Promise<void> {
    const { status } = await this.call('post', flow, identity, previous, language)
    if (status !== 204) throw new Error(`post: status ${status}`)
  }

  private async call(stage: string, flow: Flow, identity: Identity, previous: Identity | undefined, language: string): Promise<{ status: number; body: Json }> {
    const method = flow.kind === 'settings' ? 'profile' : 'password'
    const { nodes } = form(flow, this.place).ui as { nodes: Json[] }
    const saved = identity.id === '' ? undefined : identity.id
    const answer = await fetch(`${this.place.hooks}/hooks/${flow.kind}/${stage}?method=${method}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'X-Vestibule-Key': key, 'Ory-Webhook-Trigger-ID': randomUUID() },
      body: JSON.stringify({
        version: 1,
        flow: {
          id: flow.id,
          type: 'browser',
          issued_at: new Date(flow.issued).toISOString(),
          expires_at: new Date(flow.expires).toISOString(),
          return_to: flow.returnTo,
          transient_payload: {},
        },
        identity: {
          id: saved ?? nobody,
          schema_id: 'company',
          state: 'active',
          created_at: saved ? new Date(flow.issued).toISOString() : never,
          updated_at: saved ? new Date().toISOString() : never,
          traits: identity.traits,
          metadata_public: identity.metadata_public,
          verifiable_addresses: [{ value: identity.traits.email, via: 'email', verified: false, status: 'pending' }],
          recovery_addresses: [{ value: identity.traits.email, via: 'email' }],
        },
        ...(previous && { previous: { traits: previous.traits, metadata_public: previous.metadata_public } }),
        nodes: nodes
          .filter((node) => String(node.attributes.name).startsWith('traits.'))
          .map((node) => ({ name: node.attributes.name, hidden: node.attributes.type === 'hidden', title: node.meta.label?.text })),
        request: { headers: { 'Accept-Language': language } },
      }),
    })
    const text = await answer.text()
    return { status: answer.status, body: text === '' ? null : JSON.parse(text) }
  }
}
