// The `pre` and `post` calls to Vestibule, with the body of kratos-config/vestibule.jsonnet.
import { randomUUID } from 'node:crypto'
import type { Json } from '../env/recording'
import type { EnvConfig } from '../env/test-env'
import { key } from '../env/vestibule'
import { form, type Flow, type FieldMessages } from './form'

export interface Identity {
  id: string
  traits: Record<string, string>
  metadata_public: Json
}

const nilId = '00000000-0000-0000-0000-000000000000'
const zeroTime = '0001-01-01T00:00:00Z'

export class Hooks {
  constructor(private readonly config: EnvConfig) {}

  /** Calls `pre`. Returns the identity with Vestibule's changes, or the messages of a refusal. */
  async pre(flow: Flow, identity: Identity, previous: Identity | undefined, language: string): Promise<Identity | FieldMessages[]> {
    const { status, body } = await this.call('pre', flow, identity, previous, language)
    if (status === 204) return identity
    if (status === 200) return { ...identity, ...body.identity }
    if (status === 400 && Array.isArray(body.messages)) return body.messages as FieldMessages[]
    throw new Error(`pre: status ${status} ${JSON.stringify(body)}`)
  }

  async post(flow: Flow, identity: Identity, previous: Identity | undefined, language: string): Promise<void> {
    const { status } = await this.call('post', flow, identity, previous, language)
    if (status !== 204) throw new Error(`post: status ${status}`)
  }

  private async call(stage: string, flow: Flow, identity: Identity, previous: Identity | undefined, language: string): Promise<{ status: number; body: Json }> {
    const method = flow.kind === 'settings' ? 'profile' : 'password'
    const { nodes } = form(flow, this.config).ui as { nodes: Json[] }
    const saved = identity.id === '' ? undefined : identity.id
    const answer = await fetch(`${this.config.hooks}/hooks/${flow.kind}/${stage}?method=${method}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'X-Vestibule-Key': key, 'Ory-Webhook-Trigger-ID': randomUUID() },
      body: JSON.stringify({
        version: 2,
        forwarded_headers: ['Accept-Language', 'User-Agent', 'True-Client-Ip'],
        flow: {
          id: flow.id,
          type: 'browser',
          issued_at: new Date(flow.issued).toISOString(),
          expires_at: new Date(flow.expires).toISOString(),
          return_to: flow.returnTo,
          request_url: flow.kind === 'registration' ? flow.requestUrl : undefined,
          transient_payload: {},
        },
        identity: {
          id: saved ?? nilId,
          schema_id: 'company',
          state: 'active',
          created_at: saved ? new Date(flow.issued).toISOString() : zeroTime,
          updated_at: saved ? new Date().toISOString() : zeroTime,
          traits: identity.traits,
          metadata_public: identity.metadata_public,
          verifiable_addresses: [{ value: identity.traits.email, via: 'email', verified: false, status: 'pending' }],
          recovery_addresses: [{ value: identity.traits.email, via: 'email' }],
        },
        ...(previous && { previous: { state: 'active', traits: previous.traits, metadata_public: previous.metadata_public } }),
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
