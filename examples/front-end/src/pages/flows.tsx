// Registration, login, verification and settings: each page gets its flow and shows Elements' form.

import { FlowType, type FrontendApi } from "@ory/client-fetch"
import type { OryClientConfiguration, OryValidationErrorEvent } from "@ory/elements-react"
import { SessionProvider } from "@ory/elements-react/client"
import { Login, Registration, Settings, Verification } from "@ory/elements-react/theme"
import { useEffect, useMemo, useState, type ReactNode } from "react"
import { COMPONENTS, focusFirstWrong } from "../components"
import { useFlow, type Kind } from "../flow"
import type { Language } from "../language"
import { forget, recalled, rememberField, rememberMessages, remembered } from "../memory"
import { Failure, Waiting } from "./frame"

interface Props {
  api: FrontendApi
  config: OryClientConfiguration
  language: Language
}

function Flow<F extends { id: string }>(props: { kind: Kind<F>; language: Language; show: (flow: F) => ReactNode }) {
  const found = useFlow(props.kind)
  if ("fail" in found) return <Failure language={props.language} reason={found.fail} />
  if ("loading" in found) return <Waiting language={props.language} />
  return props.show(found.flow)
}

function onValidationError(event: OryValidationErrorEvent) {
  if (event.flowType === FlowType.Registration) rememberMessages(event.flow.ui.nodes)
  focusFirstWrong()
}

const shared = { components: COMPONENTS, onValidationError }

export function RegistrationPage({ api, config, language }: Props) {
  const kind = useMemo(
    () => ({
      get: (id: string) => api.getRegistrationFlow({ id }),
      begin: (returnTo?: string) => api.createBrowserRegistrationFlow({ returnTo }),
    }),
    [api],
  )
  // Remembers each value as it is typed, because the flow may expire before it is submitted.
  useEffect(() => {
    const onInput = ({ target }: Event) => {
      if (target instanceof HTMLInputElement) rememberField(target.name, target.value)
    }
    document.addEventListener("input", onInput)
    return () => {
      document.removeEventListener("input", onInput)
    }
  }, [])
  // The values from before the page was opened; later values are in the form itself.
  const [memory] = useState(remembered)
  return (
    <Flow
      kind={kind}
      language={language}
      show={(flow) => (
        <Registration flow={recalled(flow, memory)} config={config} onSuccess={forget} {...shared} />
      )}
    />
  )
}

export function LoginPage({ api, config, language }: Props) {
  const kind = useMemo(
    () => ({
      get: (id: string) => api.getLoginFlow({ id }),
      begin: (returnTo?: string) => api.createBrowserLoginFlow({ returnTo }),
    }),
    [api],
  )
  return <Flow kind={kind} language={language} show={(flow) => <Login flow={flow} config={config} {...shared} />} />
}

export function VerificationPage({ api, config, language }: Props) {
  const kind = useMemo(
    () => ({
      get: (id: string) => api.getVerificationFlow({ id }),
      begin: (returnTo?: string) => api.createBrowserVerificationFlow({ returnTo }),
    }),
    [api],
  )
  return (
    <Flow kind={kind} language={language} show={(flow) => <Verification flow={flow} config={config} {...shared} />} />
  )
}

export function SettingsPage({ api, config, language }: Props) {
  const kind = useMemo(
    () => ({
      get: (id: string) => api.getSettingsFlow({ id }),
      begin: (returnTo?: string) => api.createBrowserSettingsFlow({ returnTo }),
    }),
    [api],
  )
  return (
    <SessionProvider baseUrl={config.sdk?.url}>
      <Flow kind={kind} language={language} show={(flow) => <Settings flow={flow} config={config} {...shared} />} />
    </SessionProvider>
  )
}
