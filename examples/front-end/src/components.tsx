// Elements' own look, with what screen readers and keyboards need: each message is tied to its field and read aloud.

import { getNodeLabel, type UiText } from "@ory/client-fetch"
import {
  uiTextToFormattedMessage,
  type OryFlowComponentOverrides,
  type OryMessageContentProps,
  type OryNodeInputProps,
  type OryNodeLabelProps,
} from "@ory/elements-react"
import type { PropsWithChildren } from "react"
import { useIntl } from "react-intl"
import { currentLanguage, texts } from "./language"

const messagesId = (name: string) => `${name}-messages`

function useText() {
  const intl = useIntl()
  return (message: UiText) => uiTextToFormattedMessage(message, intl)
}

function Label({ node, children }: OryNodeLabelProps) {
  const intl = useIntl()
  const text = useText()
  const { name, type, required } = node.attributes
  if (type === "hidden") return <>{children}</>
  const label = getNodeLabel(node)
  return (
    <div className="field">
      <label htmlFor={name}>
        {intl.formatMessage({ id: `forms.label.${name}`, defaultMessage: label ? text(label) : name })}
        {required && <span aria-hidden="true"> *</span>}
      </label>
      {children}
      <div id={messagesId(name)} className="field-messages" aria-live="polite">
        {node.messages.map((message) => (
          <p key={message.id} className={message.type} data-message={message.id}>
            {text(message)}
          </p>
        ))}
      </div>
    </div>
  )
}

function Input({ node, inputProps }: OryNodeInputProps) {
  const { value, ...props } = inputProps
  const wrong = node.messages.some((message) => message.type === "error")
  if (props.type === "hidden") return <input {...props} value={value ?? ""} />
  return (
    <input
      {...props}
      placeholder=""
      value={value ?? ""}
      className="input"
      required={node.attributes.required}
      aria-invalid={wrong || undefined}
      aria-describedby={messagesId(props.name)}
    />
  )
}

function Messages({ children }: PropsWithChildren) {
  return (
    <div className="form-messages" role="alert">
      {children}
    </div>
  )
}

/** "The registration flow expired": the form has been filled in again, except the password. */
const EXPIRED = [4010001, 4040001]

function Message({ message }: OryMessageContentProps) {
  const text = useText()
  if (EXPIRED.includes(message.id)) return <p className="info">{texts(currentLanguage()).passwordAgain}</p>
  return (
    <p className={message.type} data-message={message.id}>
      {text(message)}
    </p>
  )
}

export const COMPONENTS: OryFlowComponentOverrides = {
  Node: { Label, Input },
  Message: { Root: Messages, Content: Message },
  Card: { Logo: () => null },
}

/** Puts the cursor into the first field that must be corrected. */
export function focusFirstWrong(): void {
  // After the form is drawn again, and after Elements has put the cursor into a field.
  requestAnimationFrame(() =>
    setTimeout(() => {
      document.querySelector<HTMLElement>("[aria-invalid=true]")?.focus()
    }, 0),
  )
}
