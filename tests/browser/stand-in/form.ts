// A recorded form, filled with what belongs to one flow.
import { answer, type Json } from '../house/recording'
import type { Place } from '../house/house'

export interface Message {
  id: number
  text: string
  type: string
}

/** What Vestibule says of a field, or with `#/` of the form. */
export interface Said {
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
  returnTo: string | undefined
  traits: Record<string, string>
  said: Said[]
}

const recordings: Record<string, string> = {
  'registration one': 'registration-one-step',
  'registration profile': 'registration-profile',
  'registration credentials': 'registration-credentials',
  'login one': 'login',
  'settings one': 'settings',
}

/** The name of the node that a pointer leads to: `#/traits/a` to `traits.a`. */
function nodeName(pointer: string): string {
  return pointer.replace(/^#\//, '').replaceAll('/', '.')
}

export function form(flow: Flow, place: Place): Json {
  const { body } = answer(recordings[`${flow.kind} ${flow.step}`] ?? '', place)
  body.id = flow.id
  body.ui.action = `${place.kratos}/self-service/${flow.kind}?flow=${flow.id}`
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
  for (const { instance_ptr, messages } of flow.said) {
    const node = body.ui.nodes.find((one: Json) => one.attributes.name === nodeName(instance_ptr))
    if (node) node.messages.push(...messages)
    else body.ui.messages = [...(body.ui.messages ?? []), ...messages]
  }
  return body
}
