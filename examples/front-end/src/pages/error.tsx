// Where Kratos sends people when no form can tell them what went wrong.

import type { FrontendApi } from "@ory/client-fetch"
import { useEffect, useState } from "react"
import type { Language } from "../language"
import { Failure, Waiting } from "./frame"

interface Told {
  reason?: string
  message?: string
}

export function ErrorPage({ api, language }: { api: FrontendApi; language: Language }) {
  const [told, setTold] = useState<Told>()
  useEffect(() => {
    const id = new URLSearchParams(window.location.search).get("id") ?? ""
    api.getFlowError({ id }).then(
      ({ error }) => {
        setTold((error ?? {}) as Told)
      },
      () => {
        setTold({})
      },
    )
  }, [api])
  if (!told) return <Waiting language={language} />
  return <Failure language={language} reason={told.reason ?? told.message ?? ""} />
}
