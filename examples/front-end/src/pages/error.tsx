// The page to which Kratos redirects when no form can show the error.

import type { FrontendApi } from "@ory/client-fetch"
import { useEffect, useState } from "react"
import type { Language } from "../language"
import { Failure, Waiting } from "./frame"

interface FlowError {
  reason?: string
  message?: string
}

export function ErrorPage({ api, language }: { api: FrontendApi; language: Language }) {
  const [flowError, setFlowError] = useState<FlowError>()
  useEffect(() => {
    const id = new URLSearchParams(window.location.search).get("id") ?? ""
    api.getFlowError({ id }).then(
      ({ error }) => {
        setFlowError((error ?? {}) as FlowError)
      },
      () => {
        setFlowError({})
      },
    )
  }, [api])
  if (!flowError) return <Waiting language={language} />
  return <Failure language={language} reason={flowError.reason ?? flowError.message ?? ""} />
}
