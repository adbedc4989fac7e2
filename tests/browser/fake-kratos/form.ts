// A recorded form with the data of one flow.
import { recordedAnswer, type Json } from '../env/recording'
import type { EnvConfig } from '../env/test-env'

export interface Message {
  id: number
  text: string
  type: string
}

/** Vestibule's messages for a field, or for the form with `#/`. */
export interface FieldMessages {
  instance_ptr: string
  messages: Message[]
}

export interface Flow {
  id: string
  kind: 'registration' | 'login' | 'settings'
  step: 'one' | 'profile' | 'credentials'
  csrf: string
  expires: number
  issued: number
  requestUrl: string
  returnTo: string | undefined
  traits: Record<string, string>
  messages: FieldMessages[]
}

const recordings: Record<string, string> = {
  'registration one': 'registration-one-step',
  'registration profile': 'registration-profile',
  'registration credentials': 'registration-credentials',
  'login one': 'login',
  'settings one': 'settings',
}

/** The name of the node for a pointer: `traits.a` for `#/traits/a`. */
function nodeName(pointer: string): string {
  return pointer.replace(/^#\//, '').replaceAll('/', '.')
}

export function form(flow: Flow, config: EnvConfig): Json {
  const { body } = recordedAnswer(recordings[`${flow.kind} ${flow.step}`] ?? '', config)
  body.id = flow.id
  body.request_url = flow.requestUrl
  body.ui.action = `${config.kratos}/self-service/${flow.kind}?flow=${flow.id}`
  body.issued_at = new Date(flow.issued).toISOString()
  body.expires_at = new Date(flow.expires).toISOString()
  if (flow.returnTo === undefined) delete body.return_to
  else body.return_to = flow.returnTo
  for (const node of body.ui.nodes) {
    const { name } = node.attributes as { name: string }
    if (name === 'csrf_token') node.attributes.value = flow.csrf
    if (name.startsWith('traits.')) {
      const value = flow.traits[name.slice('traits.'.length)]
      if (value === undefined) delete node.attributes.value
      else node.attributes.value = value
    }
  }
  for (const { instance_ptr, messages } of flow.messages) {
    const node = body.ui.nodes.find((one: Json) => one.attributes.name === nodeName(instance_ptr))
    if (node) node.messages.push(...messages)
    else body.ui.messages = [...(body.ui.messages ?? []), ...messages]
  }
  return body
}
